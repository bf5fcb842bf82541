package jobs

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
)

// ID identifies a job for ever: a UUID, of version 7 if made here.
type ID = uuid.UUID

// ParseID reads the canonical form of a UUID (36 characters, hyphens, any case). It
// refuses other spellings (braces, urn:), so that one job has one address.
func ParseID(s string) (ID, error) {
	if len(s) != 36 {
		return ID{}, fmt.Errorf("%q is not a UUID", s)
	}
	return uuid.Parse(s)
}

// NewID makes a time-ordered id for a new job. It is a UUID of version 7 from the
// clock's milliseconds and the runtime's random numbers (ChaCha8). That takes a tenth
// of the time of uuid.NewV7, which every submission would pay.
func NewID() (id ID) {
	ms := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint64(id[:8], ms<<16|rand.Uint64()&0x0fff|0x7000)
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()>>2|1<<63)
	return id
}

// Time is a moment in nanoseconds since the Unix epoch, UTC; 0 means "not set". A
// record has seven of them, so 8 bytes each matter.
type Time int64

// TimeOf converts; the zero time.Time becomes 0.
func TimeOf(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.UnixNano())
}

// Std converts to a time.Time in UTC; 0 becomes the zero time.Time.
func (t Time) Std() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(t)).UTC()
}

// Add moves t by d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub is the span from u to t.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// String is t in RFC 3339 with up to nine decimals, or "" if it is not set.
func (t Time) String() string {
	if t == 0 {
		return ""
	}
	return t.Std().Format(time.RFC3339Nano)
}

// Status is the state of a job. The zero value is no status.
type Status uint8

// The statuses, in the order of a job's life.
const (
	Scheduled Status = iota + 1
	Pending
	Processing
	Retrying
	Completed
	Failed
	Cancelled
)

// NumStatus is one more than the highest Status, for arrays indexed by it.
const NumStatus = int(Cancelled) + 1

var statusNames = [NumStatus]string{"", "scheduled", "pending", "processing", "retrying", "completed", "failed", "cancelled"}

func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// ParseStatus is the inverse of String.
func ParseStatus(name string) (Status, bool) {
	for i := 1; i < NumStatus; i++ {
		if statusNames[i] == name {
			return Status(i), true
		}
	}
	return 0, false
}

// StatusNames lists all statuses, for error messages.
func StatusNames() []string { return statusNames[1:] }

// Ended says whether s is final: completed, failed or cancelled.
func (s Status) Ended() bool { return s >= Completed }

// Priority is 1 (first) to 5 (last).
type Priority uint8

// The range of priorities, and the default.
const (
	HighestPriority Priority = 1
	DefaultPriority Priority = 3
	LowestPriority  Priority = 5
)

// Valid says whether p is within the range.
func (p Priority) Valid() bool { return p >= HighestPriority && p <= LowestPriority }

// Lane is a queue of its own: the jobs of one type and one priority, in the order of
// submission.
type Lane struct {
	Type     string
	Priority Priority
}

// String is "type-priority", which is also the lane's consumer name.
func (l Lane) String() string { return l.Type + "-" + string('0'+rune(l.Priority)) }

// AttemptError is the error of one attempt.
type AttemptError struct {
	Attempt int
	Error   string
	At      Time
}

// HistoryEntry is one line of a job's history as GET /jobs/{id}/events shows it.
type HistoryEntry struct {
	Kind     Kind
	At       Time
	Attempt  int    // 0 where none applies
	Progress int    // percent, for progress
	Text     string // error or progress message
	Node     string
	Due      Time   // for retrying and snoozed: when the next attempt is due
	Actor    string // who has cancelled or retried it; "" = nobody by hand. [Job.CreatedBy] has submitted it
}

// Artifact describes a file of a job.
type Artifact struct {
	Name        string // the name for downloads
	ContentType string
	Size        int64 // bytes
	SHA256      string
}

// Bounds of a record's lists; the newest entries stay.
const (
	MaxErrors   = 100 // attempt errors
	MaxHistory  = 300 // history entries
	MaxProgress = 40  // of them, those of progress
)

// Job is the record of one job: the request and its state. A committed Job is never
// changed in place; readers may share it. It has as many fields as the record, which is
// flat in its JSON and on disk.
type Job struct {
	ID       ID
	Key      uint64 // the tracker's key: the sequence of the job's first message in JOBS
	Seq      uint64 // the sequence of its present message in JOBS; Key unless it was published again
	Type     string
	Priority Priority
	Status   Status
	Progress int // percent
	Message  string

	Run         int // 1; one more for every manual retry
	Attempt     int // number of the attempt that runs or ran last, 0 before the first
	Failures    int // attempts that ended in an error
	MaxAttempts int // 1 + retry_count
	Lost        int // times its worker died

	Timeout  time.Duration // of one attempt, 0 = its type's
	Payload  json.RawMessage
	Result   json.RawMessage
	Artifact *Artifact // the first file that it left; nil = none
	// Artifacts are all files that it left, the first one too; nil unless there are
	// several. See [Job.Files].
	Artifacts []Artifact
	// Checkpoint is the last attempt's checkpoint for the next one, see
	// [Task.SetCheckpoint]. It outlives a retry by hand.
	Checkpoint json.RawMessage
	Error      string // the last error
	Errors     []AttemptError
	Tags       []string
	Node       string // where its last attempt ran

	CreatedAt Time
	CreatedBy string // the principal that has submitted it; "" for a bare message
	UpdatedAt Time
	DueAt     Time // when a scheduled or retrying job's next attempt is due
	StartedAt Time // of the last attempt
	EndedAt   Time

	History []HistoryEntry

	Terms *Terms // nil for most
	Place Place
	Slot  bool // it has a turn of its concurrency key

	// Permanent says that it failed with an error that no retry can mend.
	Permanent bool

	// Unlisted says that its type was unknown on arrival. Clients can invent any number
	// of types, so these share one name in counts and filters, [UnknownTypes].
	Unlisted bool
}

// UnknownTypes is the name of all unknown types in counts and lists. It is no valid
// type.
const UnknownTypes = "(unknown)"

// ListedAs is the job's type in counts and lists.
func (j *Job) ListedAs() string {
	if j.Unlisted {
		return UnknownTypes
	}
	return j.Type
}

// Files are all files that the job has left. The caller does not change them.
func (j *Job) Files() []Artifact {
	if j.Artifact != nil && len(j.Artifacts) == 0 {
		return []Artifact{*j.Artifact}
	}
	return j.Artifacts
}

// Lane is the job's queue.
func (j *Job) Lane() Lane { return Lane{j.Type, j.Priority} }

// Clone is a copy with fields and lists of its own. Payload, Result, Tags, Terms,
// Artifact and Artifacts are shared: they are replaced, never edited.
func (j *Job) Clone() *Job {
	c := newJob(j)
	if n := len(j.History) + 2; n > shortHistory {
		c.History = make([]HistoryEntry, 0, n)
	}
	c.Errors = append([]AttemptError(nil), j.Errors...)
	c.History = append(c.History, j.History...)
	return c
}

// shortHistory is the number of entries with which most jobs end: submitted, started,
// completed.
const shortHistory = 3

// BlankJob is a job without any field set. Its empty history has room for the entries
// of most jobs, in one piece of memory.
func BlankJob() *Job { return newJob(&Job{}) }

// newJob is a copy of j with an empty history, with room for shortHistory entries in
// one piece of memory.
func newJob(j *Job) *Job {
	c := &struct {
		Job
		history [shortHistory]HistoryEntry
	}{Job: *j}
	c.History = c.history[:0]
	return &c.Job
}

// thinOut drops every other progress entry once their bound is reached, because each
// report writes them all again. The rest covers the whole run, with the most detail at
// its end.
func (j *Job) thinOut() {
	n := 0
	for i := range j.History {
		if j.History[i].Kind == KindProgress {
			n++
		}
	}
	if n < MaxProgress {
		return
	}
	kept := j.History[:0]
	for _, e := range j.History {
		if e.Kind == KindProgress {
			if n--; n%2 == 0 {
				continue
			}
		}
		kept = append(kept, e)
	}
	j.History = kept
}

// remember appends to the history. A full one first loses progress entries, then the
// oldest ones.
func (j *Job) remember(h HistoryEntry) {
	if len(j.History) >= MaxHistory {
		kept := j.History[:0]
		for _, e := range j.History {
			if e.Kind != KindProgress {
				kept = append(kept, e)
			}
		}
		j.History = kept
		if over := len(kept) - MaxHistory + 1; over > 0 {
			// The first entry, the submission, stays.
			j.History = append(kept[:1], kept[1+over:]...)
		}
	}
	j.History = append(j.History, h)
}

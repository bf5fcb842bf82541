package jobs

import (
	"encoding/json"
	"fmt"
	"time"
)

// The attributes of jobs are listed in tables: [TermsFields] are the wishes of a
// submission, [MessageFields] its message, [JobFields] the record of a job, [EventFields]
// an event. The parts of a record have tables, too. All codecs walk over them: headers in
// JOBS, REST bodies, the job resource, records, batches, and both forms of events. So a
// new attribute is a field of the struct and one entry at the end of its table. The
// tests of all codecs cover it.
//
// The order of a table is that on disk, where the last fields may be missing. Entries
// are only added at the end, and never removed.

// Field is one attribute of a T.
type Field[T any] struct {
	// Name is its name in JSON, unless it is Hidden there.
	Name string
	// Of returns a pointer to its value, of one of the types that [IsZero] knows.
	Of func(*T) any
	// JSON says whether JSON shows it.
	JSON Showing
	// Shown returns the value that the job resource shows in place of Of; nil for none.
	Shown func(*T) any
	// Few says that the same few texts recur, so that they may share memory.
	Few bool

	// The rest is for attributes of a submission.

	// Header is the name of the header of a message in JOBS.
	Header string
	// Span and SpanHeader are the names of a moment when it is given as a duration from
	// now.
	Span, SpanHeader string
	// Server says that only the server writes it. A submission must not have it; in a
	// message it counts.
	Server bool
	// Check returns the problem with a given value, if any.
	Check func(*T) error
	// Doc says what it means: in the descriptions of the API, and, for an attribute that a
	// submission may have, in the references of REST and NATS.
	Doc string
}

// Showing says when JSON has a field.
type Showing uint8

// When JSON has a field.
const (
	WhenSet Showing = iota
	Always
	Hidden
)

// TermsFields are the attributes of [Terms].
var TermsFields = []Field[Terms]{
	{
		Name: "run_at", Of: func(t *Terms) any { return &t.RunAt }, JSON: Hidden, // the job has a run_at of its own
		Header: "Job-Run-At", Span: "delay", SpanHeader: "Job-Delay",
		Doc: "not before: how long from now, or when",
	},
	{
		Name: "expires_at", Of: func(t *Terms) any { return &t.ExpiresAt },
		Header: "Job-Expires-At", Span: "ttl", SpanHeader: "Job-Ttl",
		Doc: "cancelled with the error `expired…` unless its first attempt has started by then; as how long it counts from when the job may start (in a header from now)",
	},
	{
		Name: "deadline", Of: func(t *Terms) any { return &t.Deadline },
		Header: "Job-Deadline",
		Doc:    "fails unless it has ended by then, over all attempts; REST takes how long from now as well",
	},
	{
		Name: "scheduled_for", Of: func(t *Terms) any { return &t.ScheduledFor },
		Header: "Job-Scheduled-For", Server: true,
	},
	{
		Name: "unique_key", Of: func(t *Terms) any { return &t.UniqueKey },
		Header: "Job-Unique-Key", Check: func(t *Terms) error { return CheckKey(t.UniqueKey) },
		Doc: "belongs to one unfinished job of its token, or of all who have none, at a time: REST answers a second one with 409 `duplicate` and that job's `job_id`, a bare message becomes a failed job",
	},
	{
		Name: "concurrency_key", Of: func(t *Terms) any { return &t.ConcurrencyKey },
		Header: "Job-Concurrency-Key", Check: func(t *Terms) error { return CheckKey(t.ConcurrencyKey) },
		Doc: "at most `concurrency_per_key` jobs of the type run at once with this key (1 by default), and the keys take turns",
	},
	{
		Name: "schedule", Of: func(t *Terms) any { return &t.Schedule }, Few: true,
		Header: "Job-Schedule", Server: true, Check: func(t *Terms) error { return CheckKey(t.Schedule) },
	},
	{
		Name: "inputs", Of: func(t *Terms) any { return &t.Inputs }, // a submission only refers to them, see ReadInputs
		Header: "Job-Inputs", Server: true, Check: func(t *Terms) error { return checkInputs(t.Inputs) },
	},
	{
		Name: "callback_url", Of: func(t *Terms) any { return &t.CallbackURL },
		Header: "Job-Callback-Url", Check: func(t *Terms) error { return CheckCallbackURL(t.CallbackURL) },
		Doc: "gets a POST with the job when that has ended; https, unless `callbacks.allow` has its host",
	},
	{
		Name: TraceHeader, Of: func(t *Terms) any { return &t.Trace },
		Header: TraceHeader,
		Doc:    "its place in a trace, by W3C Trace Context; a malformed one counts as none",
	},
}

// JobFields are the attributes of a [Job].
var JobFields = []Field[Job]{
	{Name: "id", Of: func(j *Job) any { return &j.ID }, JSON: Always, Doc: "a UUID; a bare message's follows from its place in the stream"},
	{Name: "seq", Of: func(j *Job) any { return &j.Seq }, Doc: "its sequence in the stream JOBS, if that is still known; also an address of the job"},
	{Name: "type", Of: func(j *Job) any { return &j.Type }, JSON: Always, Few: true},
	{Name: "priority", Of: func(j *Job) any { return (*uint8)(&j.Priority) }, JSON: Always, Doc: "1 is first"},
	{Name: "status", Of: func(j *Job) any { return &j.Status }, JSON: Always},
	{Name: "progress", Of: func(j *Job) any { return &j.Progress }, JSON: Always, Doc: "in percent; 100 when it is completed"},
	{Name: "message", Of: func(j *Job) any { return &j.Message }, JSON: Always, Doc: "of its progress"},
	{Name: "run", Of: func(j *Job) any { return &j.Run }, Shown: shownRun, Doc: "one more than the number of retries by hand, if there were any"},
	{Name: "attempt", Of: func(j *Job) any { return &j.Attempt }, JSON: Always, Doc: "the present or last one, from 1; 0 before the first"},
	{Name: "failures", Of: func(j *Job) any { return &j.Failures }, JSON: Hidden},
	{Name: "max_attempts", Of: func(j *Job) any { return &j.MaxAttempts }, JSON: Always, Doc: "how often it is tried"},
	{Name: "lost", Of: func(j *Job) any { return &j.Lost }, Doc: "attempts whose worker died"},
	{Name: "timeout", Of: func(j *Job) any { return &j.Timeout }, Doc: "of each attempt in seconds, instead of the type's"},
	{Name: "payload", Of: func(j *Job) any { return &j.Payload }, JSON: Always},
	{Name: "result", Of: func(j *Job) any { return &j.Result }, JSON: Always, Doc: "what it returned; null if nothing"},
	{Name: "artifact", Of: func(j *Job) any { return &j.Artifact }, Doc: "the first file that it has left"},
	{Name: "error", Of: func(j *Job) any { return &j.Error }, JSON: Always, Doc: "of the last attempt; empty if there is none"},
	{Name: "errors", Of: func(j *Job) any { return &j.Errors }, JSON: Always, Doc: "of all failed attempts"},
	{Name: "tags", Of: func(j *Job) any { return &j.Tags }, JSON: Always},
	{Name: "node", Of: func(j *Job) any { return &j.Node }, Few: true, Doc: "who ran it last"},
	{Name: "created_at", Of: func(j *Job) any { return &j.CreatedAt }, JSON: Always},
	{Name: "updated_at", Of: func(j *Job) any { return &j.UpdatedAt }, JSON: Always, Doc: "its last change"},
	{Name: "run_at", Of: func(j *Job) any { return &j.DueAt }, JSON: Always, Shown: shownRunAt, Doc: "when the next attempt may start"},
	{Name: "started_at", Of: func(j *Job) any { return &j.StartedAt }, JSON: Always, Doc: "of the last attempt"},
	{Name: "ended_at", Of: func(j *Job) any { return &j.EndedAt }, JSON: Always},
	{Name: "history", Of: func(j *Job) any { return &j.History }, JSON: Hidden},
	{Name: "key", Of: func(j *Job) any { return &j.Key }, JSON: Hidden},
	{Name: "terms", Of: func(j *Job) any { return &j.Terms }, JSON: Hidden}, // JSON shows their members beside the job's
	{Name: "place", Of: func(j *Job) any { return (*uint8)(&j.Place) }, JSON: Hidden},
	{Name: "slot", Of: func(j *Job) any { return &j.Slot }, JSON: Hidden},
	{Name: "unlisted", Of: func(j *Job) any { return &j.Unlisted }, JSON: Hidden},
	{Name: "checkpoint", Of: func(j *Job) any { return &j.Checkpoint }, JSON: Hidden},
	{Name: "artifacts", Of: func(j *Job) any { return &j.Artifacts }, Doc: "all files that it has left, if they are several"},
	{Name: "created_by", Of: func(j *Job) any { return &j.CreatedBy }, Few: true, Doc: "the name of the token or subject that has submitted it, or anonymous; a bare message has none"},
	{Name: "permanent", Of: func(j *Job) any { return &j.Permanent }},
}

// MessageFields are the attributes of a [Message], as a batch stores them.
var MessageFields = []Field[Message]{
	{Name: "id", Of: func(m *Message) any { return &m.ID }},
	{Name: "type", Of: func(m *Message) any { return &m.Type }, Few: true},
	{Name: "priority", Of: func(m *Message) any { return (*uint8)(&m.Priority) }},
	{Name: "payload", Of: func(m *Message) any { return &m.Payload }},
	{Name: "tags", Of: func(m *Message) any { return &m.Tags }},
	{Name: "retry_count", Of: func(m *Message) any { return &m.RetryCount }},
	{Name: "timeout", Of: func(m *Message) any { return &m.Timeout }},
	{Name: "terms", Of: func(m *Message) any { return &m.Terms }},
	{Name: "created_by", Of: func(m *Message) any { return &m.CreatedBy }, Few: true},
}

// ArtifactFields are the attributes of an [Artifact].
var ArtifactFields = []Field[Artifact]{
	{Name: "name", Of: func(a *Artifact) any { return &a.Name }, JSON: Always},
	{Name: "content_type", Of: func(a *Artifact) any { return &a.ContentType }, JSON: Always},
	{Name: "size", Of: func(a *Artifact) any { return &a.Size }, JSON: Always},
	{Name: "sha256", Of: func(a *Artifact) any { return &a.SHA256 }, JSON: Always},
}

// InputFields are the attributes of an [Input].
var InputFields = []Field[Input]{
	{Name: "input", Of: func(in *Input) any { return &in.Name }, JSON: Hidden}, // JSON has them by their names
	{Name: "artifact", Of: func(in *Input) any { return &in.ID }, JSON: Always},
	{Name: "job", Of: func(in *Input) any { return &in.Job }},
	{Name: "name", Of: func(in *Input) any { return &in.File.Name }, JSON: Always},
	{Name: "content_type", Of: func(in *Input) any { return &in.File.ContentType }, JSON: Always},
	{Name: "size", Of: func(in *Input) any { return &in.File.Size }, JSON: Always},
	{Name: "sha256", Of: func(in *Input) any { return &in.File.SHA256 }, JSON: Always},
}

// ErrorFields are the attributes of an [AttemptError].
var ErrorFields = []Field[AttemptError]{
	{Name: "attempt", Of: func(e *AttemptError) any { return &e.Attempt }, JSON: Always},
	{Name: "error", Of: func(e *AttemptError) any { return &e.Error }, JSON: Always},
	{Name: "at", Of: func(e *AttemptError) any { return &e.At }, JSON: Always},
}

// HistoryFields are the attributes of a [HistoryEntry].
var HistoryFields = []Field[HistoryEntry]{
	{Name: "kind", Of: func(h *HistoryEntry) any { return &h.Kind }},
	{Name: "at", Of: func(h *HistoryEntry) any { return &h.At }},
	{Name: "attempt", Of: func(h *HistoryEntry) any { return &h.Attempt }},
	{Name: "progress", Of: func(h *HistoryEntry) any { return &h.Progress }},
	{Name: "text", Of: func(h *HistoryEntry) any { return &h.Text }},
	{Name: "node", Of: func(h *HistoryEntry) any { return &h.Node }, Few: true},
	{Name: "due", Of: func(h *HistoryEntry) any { return &h.Due }},
	{Name: "actor", Of: func(h *HistoryEntry) any { return &h.Actor }, Few: true},
}

// EventFields are the attributes of an [Event].
var EventFields = []Field[Event]{
	{Name: "kind", Of: func(e *Event) any { return &e.Kind }},
	{Name: "id", Of: func(e *Event) any { return &e.ID }},
	{Name: "seq", Of: func(e *Event) any { return &e.Seq }},
	{Name: "type", Of: func(e *Event) any { return &e.Type }, Few: true},
	{Name: "priority", Of: func(e *Event) any { return (*uint8)(&e.Priority) }},
	{Name: "created_at", Of: func(e *Event) any { return &e.CreatedAt }},
	{Name: "max_attempts", Of: func(e *Event) any { return &e.MaxAttempts }},
	{Name: "run", Of: func(e *Event) any { return &e.Run }},
	{Name: "attempt", Of: func(e *Event) any { return &e.Attempt }},
	{Name: "at", Of: func(e *Event) any { return &e.At }},
	{Name: "started_at", Of: func(e *Event) any { return &e.StartedAt }},
	{Name: "node", Of: func(e *Event) any { return &e.Node }, Few: true},
	{Name: "result", Of: func(e *Event) any { return &e.Result }},
	{Name: "progress", Of: func(e *Event) any { return &e.Progress }},
	{Name: "message", Of: func(e *Event) any { return &e.Message }},
	{Name: "error", Of: func(e *Event) any { return &e.Error }},
	{Name: "due", Of: func(e *Event) any { return &e.Due }},
	{Name: "lost", Of: func(e *Event) any { return &e.Lost }},
	{Name: "artifact", Of: func(e *Event) any { return &e.Artifact }},
	{Name: "checkpoint", Of: func(e *Event) any { return &e.Checkpoint }},
	{Name: "artifacts", Of: func(e *Event) any { return &e.Artifacts }},
	{Name: "permanent", Of: func(e *Event) any { return &e.Permanent }},
}

// shownRun hides the number of the first run.
func shownRun(j *Job) any {
	if j.Run <= 1 {
		return nil
	}
	return &j.Run
}

// shownRunAt is the moment of the next attempt, or the earliest one of the first.
func shownRunAt(j *Job) any {
	if j.DueAt == 0 && j.Terms != nil {
		return &j.Terms.RunAt
	}
	return &j.DueAt
}

// IsZero says whether a value of a [Field] is not set.
func IsZero(v any) bool {
	switch v := v.(type) {
	case *string:
		return *v == ""
	case *int:
		return *v == 0
	case *int64:
		return *v == 0
	case *uint64:
		return *v == 0
	case *uint8:
		return *v == 0
	case *bool:
		return !*v
	case *Time:
		return *v == 0
	case *time.Duration:
		return *v == 0
	case *json.RawMessage:
		return len(*v) == 0
	case *[]string:
		return len(*v) == 0
	case *ID:
		return *v == ID{}
	case *Trace:
		return *v == Trace{}
	case *Status:
		return *v == 0
	case *Kind:
		return *v == 0
	case **Artifact:
		return *v == nil
	case **Terms:
		return *v == nil
	case *[]Artifact:
		return len(*v) == 0
	case *[]Input:
		return len(*v) == 0
	case *[]AttemptError:
		return len(*v) == 0
	case *[]HistoryEntry:
		return len(*v) == 0
	}
	panic(fmt.Sprintf("no codec knows attributes of type %T", v))
}

// AllZero says whether none of the fields of v is set.
func AllZero[T any](fields []Field[T], v *T) bool { return NumSet(fields, v, 0) == 0 }

// NumSet is the number of v's fields that have to be written: up to the last one that
// is set, and at least least.
func NumSet[T any](fields []Field[T], v *T, least int) int {
	n := len(fields)
	for n > least && IsZero(fields[n-1].Of(v)) {
		n--
	}
	return n
}

// TextSize is the size of v's texts in bytes.
func TextSize[T any](fields []Field[T], v *T) (n int) {
	for i := range fields {
		switch v := fields[i].Of(v).(type) {
		case *string:
			n += len(*v)
		case *json.RawMessage:
			n += len(*v)
		case *[]string:
			for _, s := range *v {
				n += len(s)
			}
		}
	}
	return n
}

// FieldNamed is the field with this name; nil if there is none.
func FieldNamed[T any](fields []Field[T], name string) *Field[T] {
	for i := range fields {
		if fields[i].Name == name {
			return &fields[i]
		}
	}
	return nil
}

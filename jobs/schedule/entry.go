package schedule

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"jobstream/jobs"
)

// Source is the origin of a schedule.
type Source string

// The sources.
const (
	FromAPI    Source = "api"    // a request, and only requests change it
	FromConfig Source = "config" // the configuration, and only that changes it
)

// State is the progress of a schedule.
type State struct {
	Source    Source
	CreatedAt jobs.Time
	UpdatedAt jobs.Time // when a user changed it last
	// Anchor is the origin of an interval's grid: the making of the schedule, or the
	// last change of its interval.
	Anchor jobs.Time
	// Done is the time up to which everything is dealt with: the last time that was
	// fired or skipped, or the making, change or resumption of the schedule.
	Done      jobs.Time
	LastRunAt jobs.Time // when its last job was made; 0 = never
	LastJob   jobs.ID   // zero = none
	Skipped   uint64    // times that passed because the job before had not ended
	// CreatedBy is the principal that has put it as it is now. Its jobs are that one's. "" =
	// the configuration, or an earlier version.
	CreatedBy string
}

// Entry is a schedule as the tracker keeps it. It is never changed in place.
type Entry struct {
	Spec
	State
}

// Plan has the times of the entry.
func (e *Entry) Plan() (*Plan, error) { return NewPlan(&e.Spec, e.Anchor) }

// Ran is the entry after it made a job for a time (0 for a run by hand). Repeats change
// nothing.
func (e *Entry) Ran(job jobs.ID, scheduledFor, at jobs.Time) *Entry {
	c := *e
	c.Done = max(c.Done, scheduledFor)
	if at >= c.LastRunAt {
		c.LastRunAt, c.LastJob = at, job
	}
	return &c
}

// Message is the submission of the entry's job for a time. The same time gives the same
// id. 0 means a run by hand, with an id of its own.
func (e *Entry) Message(scheduledFor jobs.Time) *jobs.Message {
	id := jobs.NewID()
	if scheduledFor != 0 {
		id = FireID(e.Name, scheduledFor)
	}
	return &jobs.Message{
		ID: id, Type: e.Type, Priority: e.Priority, Payload: e.Payload, Tags: e.Tags,
		RetryCount: e.RetryCount, Timeout: e.Timeout, CreatedBy: e.CreatedBy,
		Terms: &jobs.Terms{Schedule: e.Name, ScheduledFor: scheduledFor, CallbackURL: e.CallbackURL},
	}
}

// FireID is the id of a schedule's job for a time: the time in milliseconds as in version
// 7, and a hash of both. So a repeated fire is a duplicate.
func FireID(name string, scheduledFor jobs.Time) jobs.ID {
	in := binary.BigEndian.AppendUint64([]byte("schedule\x00"), uint64(scheduledFor))
	sum := sha256.Sum256(append(in, name...))
	ms := uint64(scheduledFor) / uint64(time.Millisecond)
	var id jobs.ID
	copy(id[6:], sum[:10])
	binary.BigEndian.PutUint32(id[:4], uint32(ms>>16))
	binary.BigEndian.PutUint16(id[4:6], uint16(ms))
	id[6] = id[6]&0x0f | jobs.MadeVersion<<4
	id[8] = id[8]&0x3f | 0x80
	return id
}

// NextRunAt is the first time of the entry after a moment. It is 0 if the entry is
// paused or never fires. An entry stored under other rules or zones may never fire;
// then the resource has the problem.
func (e *Entry) NextRunAt(now jobs.Time) jobs.Time {
	p, err := e.Plan()
	if err != nil || e.Paused {
		return 0
	}
	return p.Next(max(e.Done, now))
}

// AppendJSON appends the schedule resource of REST, as of a moment.
func (e *Entry) AppendJSON(b []byte, now jobs.Time) []byte {
	b = append(b, `{"name":`...)
	b = jobs.AppendString(b, e.Name)
	if e.Cron != "" {
		b = append(b, `,"cron":`...)
		b = jobs.AppendString(b, e.Cron)
	} else {
		b = append(b, `,"every":`...)
		b = jobs.AppendString(b, e.Interval())
	}
	b = append(b, `,"timezone":`...)
	b = jobs.AppendString(b, e.Timezone)
	b = append(b, `,"type":`...)
	b = jobs.AppendString(b, e.Type)
	b = append(b, `,"payload":`...)
	if e.Payload == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, e.Payload...)
	}
	b = append(b, `,"priority":`...)
	b = strconv.AppendUint(b, uint64(e.Priority), 10)
	b = append(b, `,"tags":[`...)
	for i, t := range e.Tags {
		if i > 0 {
			b = append(b, ',')
		}
		b = jobs.AppendString(b, t)
	}
	b = append(b, ']')
	if e.RetryCount >= 0 {
		b = append(b, `,"retry_count":`...)
		b = strconv.AppendInt(b, int64(e.RetryCount), 10)
	}
	if e.Timeout > 0 {
		b = append(b, `,"timeout":`...)
		b = strconv.AppendFloat(b, e.Timeout.Seconds(), 'f', -1, 64)
	}
	if e.CallbackURL != "" {
		b = append(b, `,"callback_url":`...)
		b = jobs.AppendString(b, e.CallbackURL)
	}
	b = append(b, `,"paused":`...)
	b = strconv.AppendBool(b, e.Paused)
	b = append(b, `,"overlap":`...)
	b = jobs.AppendString(b, string(e.Overlap))
	b = append(b, `,"catch_up":`...)
	b = jobs.AppendString(b, string(e.CatchUp))
	b = append(b, `,"next_run_at":`...)
	b = appendTime(b, e.NextRunAt(now))
	b = append(b, `,"last_run_at":`...)
	b = appendTime(b, e.LastRunAt)
	b = append(b, `,"last_job_id":`...)
	if e.LastJob == (jobs.ID{}) {
		b = append(b, "null"...)
	} else {
		b = jobs.AppendString(b, e.LastJob.String())
	}
	b = append(b, `,"skipped":`...)
	b = strconv.AppendUint(b, e.Skipped, 10)
	if _, err := e.Plan(); err != nil {
		b = append(b, `,"problem":`...)
		b = jobs.AppendString(b, err.Error())
	}
	b = append(b, `,"source":`...)
	b = jobs.AppendString(b, string(e.Source))
	if e.CreatedBy != "" {
		b = append(b, `,"created_by":`...)
		b = jobs.AppendString(b, e.CreatedBy)
	}
	b = append(b, `,"created_at":`...)
	b = appendTime(b, e.CreatedAt)
	b = append(b, `,"updated_at":`...)
	b = appendTime(b, e.UpdatedAt)
	return append(b, '}')
}

// appendTime appends a time in RFC 3339, or null.
func appendTime(b []byte, t jobs.Time) []byte {
	if t == 0 {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = t.Std().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

// ListJSON is the list resource of schedules in REST, as of a moment.
func ListJSON(all []*Entry, now jobs.Time) []byte {
	b := []byte(`{"schedules":[`)
	for i, e := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = e.AppendJSON(b, now)
	}
	return append(b, "]}"...)
}

// recordVersion is the version of an entry's stored form.
const recordVersion = 1

// record is an entry's stored form. It is flat, because earlier versions wrote it so.
type record struct {
	Version    int             `json:"v"`
	Name       string          `json:"name"`
	Cron       string          `json:"cron,omitempty"`
	Every      time.Duration   `json:"every,omitempty"` // nanoseconds, as in the other fields
	EveryText  string          `json:"every_text,omitempty"`
	Timezone   string          `json:"timezone"`
	Type       string          `json:"type"`
	Payload    json.RawMessage `json:"payload,omitempty"`
	Priority   jobs.Priority   `json:"priority"`
	Tags       []string        `json:"tags,omitempty"`
	RetryCount int             `json:"retry_count"`
	Timeout    time.Duration   `json:"timeout,omitempty"`
	Paused     bool            `json:"paused,omitempty"`
	Overlap    Overlap         `json:"overlap"`
	CatchUp    CatchUp         `json:"catch_up"`
	Source     Source          `json:"source"`
	CreatedAt  jobs.Time       `json:"created_at"`
	UpdatedAt  jobs.Time       `json:"updated_at"`
	Anchor     jobs.Time       `json:"anchor"`
	Done       jobs.Time       `json:"done"`
	LastRunAt  jobs.Time       `json:"last_run_at,omitempty"`
	LastJob    jobs.ID         `json:"last_job"`
	Skipped    uint64          `json:"skipped,omitempty"`
	Callback   string          `json:"callback_url,omitempty"`
	CreatedBy  string          `json:"created_by,omitempty"`
}

// Encode returns the entry's stored form. The error means that the payload is not JSON.
func (e *Entry) Encode() ([]byte, error) {
	b, err := json.Marshal(record{
		recordVersion, e.Name, e.Cron, e.Every, e.EveryText, e.Timezone, e.Type, e.Payload, e.Priority, e.Tags,
		e.RetryCount, e.Timeout, e.Paused, e.Overlap, e.CatchUp, e.Source, e.CreatedAt, e.UpdatedAt,
		e.Anchor, e.Done, e.LastRunAt, e.LastJob, e.Skipped, e.CallbackURL,
		e.CreatedBy,
	})
	if err != nil {
		return nil, fmt.Errorf("schedule %q cannot be stored: %w", e.Name, err)
	}
	return b, nil
}

// Decode reads an entry's stored form. It keeps nothing of b. It checks the version
// only, because the rest was checked before it was stored.
func Decode(b []byte) (*Entry, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("a stored schedule cannot be read: %w", err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("schedule %q was stored in version %d, and this program reads %d; use the program that wrote it",
			r.Name, r.Version, recordVersion)
	}
	return &Entry{
		Spec{
			r.Name, r.Cron, r.Every, r.EveryText, r.Timezone, r.Type, r.Payload, r.Priority, r.Tags,
			r.RetryCount, r.Timeout, r.Paused, r.Overlap, r.CatchUp, r.Callback,
		},
		State{r.Source, r.CreatedAt, r.UpdatedAt, r.Anchor, r.Done, r.LastRunAt, r.LastJob, r.Skipped, r.CreatedBy},
	}, nil
}

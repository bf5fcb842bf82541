package jobs

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the job resource, as REST, the service and notifications
// show it. It is written by hand because every job passes here at least once.
func (j *Job) AppendJSON(b []byte) []byte {
	b = append(b, `{"id":"`...)
	b = appendID(b, j.ID)
	b = append(b, `","type":`...)
	b = AppendString(b, j.Type)
	b = append(b, `,"priority":`...)
	b = strconv.AppendUint(b, uint64(j.Priority), 10)
	b = append(b, `,"status":"`...)
	b = append(b, j.Status.String()...)
	b = append(b, `","progress":`...)
	b = strconv.AppendInt(b, int64(j.Progress), 10)
	b = append(b, `,"message":`...)
	b = AppendString(b, j.Message)
	b = append(b, `,"attempt":`...)
	b = strconv.AppendInt(b, int64(j.Attempt), 10)
	b = append(b, `,"max_attempts":`...)
	b = strconv.AppendInt(b, int64(j.MaxAttempts), 10)
	if j.Timeout > 0 {
		b = append(b, `,"timeout":`...)
		b = strconv.AppendFloat(b, j.Timeout.Seconds(), 'f', -1, 64)
	}
	b = append(b, `,"payload":`...)
	b = appendRaw(b, j.Payload)
	b = append(b, `,"result":`...)
	b = appendRaw(b, j.Result)
	b = append(b, `,"error":`...)
	b = AppendString(b, j.Error)
	b = append(b, `,"errors":[`...)
	for i, e := range j.Errors {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"attempt":`...)
		b = strconv.AppendInt(b, int64(e.Attempt), 10)
		b = append(b, `,"error":`...)
		b = AppendString(b, e.Error)
		b = append(b, `,"at":`...)
		b = appendTime(b, e.At)
		b = append(b, '}')
	}
	b = append(b, `],"tags":[`...)
	for i, t := range j.Tags {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(b, t)
	}
	b = append(b, `],"created_at":`...)
	b = appendTime(b, j.CreatedAt)
	b = append(b, `,"updated_at":`...)
	b = appendTime(b, j.UpdatedAt)
	b = append(b, `,"run_at":`...)
	if j.DueAt == 0 && j.Terms != nil {
		b = appendTime(b, j.Terms.RunAt)
	} else {
		b = appendTime(b, j.DueAt)
	}
	b = append(b, `,"started_at":`...)
	b = appendTime(b, j.StartedAt)
	b = append(b, `,"ended_at":`...)
	b = appendTime(b, j.EndedAt)
	if j.Node != "" {
		b = append(b, `,"node":`...)
		b = AppendString(b, j.Node)
	}
	if j.Lost > 0 {
		b = append(b, `,"lost":`...)
		b = strconv.AppendInt(b, int64(j.Lost), 10)
	}
	if j.Artifact != nil {
		b = append(b, `,"artifact":{"name":`...)
		b = AppendString(b, j.Artifact.Name)
		b = append(b, `,"content_type":`...)
		b = AppendString(b, j.Artifact.ContentType)
		b = append(b, `,"size":`...)
		b = strconv.AppendInt(b, j.Artifact.Size, 10)
		b = append(b, `,"sha256":`...)
		b = AppendString(b, j.Artifact.SHA256)
		b = append(b, '}')
	}
	if j.Run > 1 {
		b = append(b, `,"run":`...)
		b = strconv.AppendInt(b, int64(j.Run), 10)
	}
	if j.Terms != nil {
		b = j.Terms.appendJSON(b)
	}
	if j.Seq != 0 { // else it is not known any more
		b = append(b, `,"seq":`...)
		b = strconv.AppendUint(b, j.Seq, 10)
	}
	return append(b, '}')
}

// SizeHint is about how many bytes the job resource has.
func (j *Job) SizeHint() int { return 1024 + len(j.Payload) + len(j.Result) }

// AppendFitting appends the job resource, with what the job waits for (nil for
// most), without fields that would make it larger than most bytes: first the
// payload goes, then the result and the attempts' errors. omitted names them.
func (j *Job) AppendFitting(b []byte, w *Waiting, most int) (out []byte, omitted string) {
	start := len(b)
	if b = j.AppendWaiting(b, w); len(b)-start <= most {
		return b, ""
	}
	short := j.Clone()
	short.Payload = nil
	if b = short.AppendWaiting(b[:start], w); len(b)-start <= most {
		return b, "payload"
	}
	short.Result, short.Errors = nil, nil
	return short.AppendWaiting(b[:start], w), "payload,result,errors"
}

// appendJSON appends the fields that are set, each with a comma before it.
func (t *Terms) appendJSON(b []byte) []byte {
	for _, f := range [...]struct {
		name string
		at   Time
	}{{"expires_at", t.ExpiresAt}, {"deadline", t.Deadline}, {"scheduled_for", t.ScheduledFor}} {
		if f.at != 0 {
			b = append(append(append(b, `,"`...), f.name...), `":`...)
			b = appendTime(b, f.at)
		}
	}
	for _, f := range [...]struct{ name, text string }{
		{"unique_key", t.UniqueKey}, {"concurrency_key", t.ConcurrencyKey}, {"schedule", t.Schedule},
	} {
		if f.text != "" {
			b = append(append(append(b, `,"`...), f.name...), `":`...)
			b = AppendString(b, f.text)
		}
	}
	return b
}

// MarshalJSON gives the job resource.
func (j *Job) MarshalJSON() ([]byte, error) {
	return j.AppendJSON(make([]byte, 0, 512+len(j.Payload)+len(j.Result))), nil
}

// resource is the job resource for reading it back.
type resource struct {
	ID          ID
	Type        string
	Priority    Priority
	Status      string
	Progress    int
	Message     string
	Attempt     int
	MaxAttempts int `json:"max_attempts"`
	Timeout     float64
	Payload     json.RawMessage
	Result      json.RawMessage
	Error       string
	Errors      []struct {
		Attempt int
		Error   string
		At      time.Time
	}
	Tags      []string
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	RunAt     time.Time `json:"run_at"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at"`
	Node      string
	Lost      int
	Artifact  *struct {
		Name        string
		ContentType string `json:"content_type"`
		Size        int64
		SHA256      string
	}
	Seq uint64
	Run int

	ExpiresAt      time.Time `json:"expires_at"`
	Deadline       time.Time
	ScheduledFor   time.Time `json:"scheduled_for"`
	UniqueKey      string    `json:"unique_key"`
	ConcurrencyKey string    `json:"concurrency_key"`
	Schedule       string
}

// terms are those that the resource tells of, nil if there are none.
func (r *resource) terms() *Terms {
	t := Terms{
		RunAt: TimeOf(r.RunAt), ExpiresAt: TimeOf(r.ExpiresAt), Deadline: TimeOf(r.Deadline),
		ScheduledFor: TimeOf(r.ScheduledFor), UniqueKey: r.UniqueKey, ConcurrencyKey: r.ConcurrencyKey, Schedule: r.Schedule,
	}
	if status, _ := ParseStatus(r.Status); !status.Ended() {
		t.RunAt = 0 // it is when the next attempt is due
	}
	if t == (Terms{}) {
		return nil
	}
	return &t
}

// UnmarshalJSON reads a job resource back, as far as it tells: the history is
// rebuilt from the times in it. A lost tracker takes ended jobs from their
// notifications that way.
func (j *Job) UnmarshalJSON(b []byte) error {
	var r resource
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	status, ok := ParseStatus(r.Status)
	if !ok || !r.Priority.Valid() || r.ID == (ID{}) || r.Seq == 0 {
		return fmt.Errorf("not a job resource (id %s, seq %d, status %q)", r.ID, r.Seq, r.Status)
	}
	*j = Job{
		ID: r.ID, Key: r.Seq, Seq: r.Seq, Type: r.Type, Priority: r.Priority, Status: status,
		Progress: r.Progress, Message: r.Message, Run: max(r.Run, 1), Attempt: r.Attempt, MaxAttempts: r.MaxAttempts,
		Lost: r.Lost, Timeout: seconds(r.Timeout),
		Payload: null2nil(r.Payload), Result: null2nil(r.Result), Error: r.Error, Tags: r.Tags, Node: r.Node,
		CreatedAt: TimeOf(r.CreatedAt), UpdatedAt: TimeOf(r.UpdatedAt), Terms: r.terms(),
		StartedAt: TimeOf(r.StartedAt), EndedAt: TimeOf(r.EndedAt),
	}
	if !status.Ended() {
		j.DueAt = TimeOf(r.RunAt)
	}
	if a := r.Artifact; a != nil {
		j.Artifact = &Artifact{Name: a.Name, ContentType: a.ContentType, Size: a.Size, SHA256: a.SHA256}
	}
	j.remember(HistoryEntry{Kind: KindSubmitted, At: j.CreatedAt})
	for _, e := range r.Errors {
		j.Errors = append(j.Errors, AttemptError{Attempt: e.Attempt, Error: e.Error, At: TimeOf(e.At)})
		j.Failures = max(j.Failures, e.Attempt)
		if e.Attempt < j.Attempt {
			j.remember(HistoryEntry{Kind: KindRetrying, At: TimeOf(e.At), Attempt: e.Attempt, Text: e.Error})
		}
	}
	if j.StartedAt != 0 {
		j.remember(HistoryEntry{Kind: KindStarted, At: j.StartedAt, Attempt: j.Attempt, Node: j.Node})
	}
	if j.EndedAt != 0 {
		kind, _ := ParseKind(status.String())
		j.remember(HistoryEntry{Kind: kind, At: j.EndedAt, Attempt: j.Attempt, Text: j.Error, Node: j.Node})
	}
	return nil
}

func null2nil(raw json.RawMessage) json.RawMessage {
	if string(raw) == "null" {
		return nil
	}
	return raw
}

// AppendEventsJSON appends {"events":[…]}: the job's history, oldest first.
func (j *Job) AppendEventsJSON(b []byte) []byte {
	b = append(b, `{"events":[`...)
	for i, h := range j.History {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"seq":`...)
		b = strconv.AppendInt(b, int64(i+1), 10)
		b = append(b, `,"kind":"`...)
		b = append(b, h.Kind.String()...)
		b = append(b, `","at":`...)
		b = appendTime(b, h.At)
		b = append(b, `,"attempt":`...)
		b = strconv.AppendInt(b, int64(h.Attempt), 10)
		if h.Kind == KindProgress {
			b = append(b, `,"progress":`...)
			b = strconv.AppendInt(b, int64(h.Progress), 10)
		}
		if h.Text != "" {
			if h.Kind == KindProgress || h.Kind == KindSnoozed {
				b = append(b, `,"message":`...)
			} else {
				b = append(b, `,"error":`...)
			}
			b = AppendString(b, h.Text)
		}
		if h.Due != 0 {
			b = append(b, `,"run_at":`...)
			b = appendTime(b, h.Due)
		}
		if h.Node != "" {
			b = append(b, `,"node":`...)
			b = AppendString(b, h.Node)
		}
		b = append(b, '}')
	}
	return append(b, `]}`...)
}

func appendID(b []byte, id ID) []byte {
	const hexdigits = "0123456789abcdef"
	for i, c := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, hexdigits[c>>4], hexdigits[c&15])
	}
	return b
}

func appendTime(b []byte, t Time) []byte {
	if t == 0 {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = t.Std().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

func appendRaw(b []byte, raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return append(b, "null"...)
	}
	return append(b, raw...)
}

// AppendString appends s as a JSON string. What is not UTF-8 becomes U+FFFD.
// Unlike encoding/json it leaves <, > and & as they are: nothing here is put
// into HTML unescaped.
func AppendString(b []byte, s string) []byte {
	const hexdigits = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(append(b, s[from:i]...), "\ufffd"...)
				from = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexdigits[c>>4], hexdigits[c&15])
		}
		i++
		from = i
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}

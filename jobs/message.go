package jobs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"jobstream/jobs/strict"
)

// Message is a submission in the JOBS stream.
type Message struct {
	Seq        uint64 // its place in JOBS; 0 before it is published
	At         Time   // when the stream stored it
	ID         ID
	Type       string
	Priority   Priority
	Moved      bool // published again for a known job, whose record moves to the new sequence
	Payload    json.RawMessage
	Tags       []string
	RetryCount int           // -1 = the type's
	Timeout    time.Duration // 0 = the type's

	// CreatedAt is the first submission of a moved message; 0 if that is At.
	CreatedAt Time
	// CreatedBy is the principal that has submitted it; "" for a bare message.
	CreatedBy string

	Terms *Terms // nil for most
	Token *Token // nil without an idempotency key
	// BatchEnd marks the last message of a batch, see [Batch].
	BatchEnd ID

	// Again says that this may be a copy of a submission that is answered already. Such a
	// copy makes no job: whoever was refused would not expect one.
	Again bool

	// Checked says that this process has checked the submission at its door. Then the
	// payload needs no second check, and somebody may wait for the answer. It is not
	// part of the published message.
	Checked bool

	// Problem is the reason why this cannot be a job, like a malformed header. The
	// message becomes a failed job with that error.
	Problem string
}

// MarshalJSON is for commands, whose payloads must stay the same, byte for byte.
func (m *Message) MarshalJSON() ([]byte, error) {
	type plain Message
	return json.Marshal(struct {
		*plain
		Payload []byte
	}{(*plain)(m), m.Payload})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (m *Message) UnmarshalJSON(b []byte) error {
	type plain Message
	in := struct {
		*plain
		Payload []byte
	}{plain: (*plain)(m)}
	err := json.Unmarshal(b, &in)
	m.Payload = in.Payload
	return err
}

// DerivedID is the id of a bare message without a Job-Id. It is a UUID made from the
// message's place in the stream alone, so that a rebuild makes the same one. Its
// version is 7, with the time at which the stream stored the message.
func DerivedID(seq uint64, at Time) ID {
	var in [16]byte
	binary.BigEndian.PutUint64(in[:8], seq)
	binary.BigEndian.PutUint64(in[8:], uint64(at))
	sum := sha256.Sum256(in[:])
	var id ID
	copy(id[6:], sum[:10])
	ms := uint64(at) / uint64(time.Millisecond)
	binary.BigEndian.PutUint32(id[:4], uint32(ms>>16))
	binary.BigEndian.PutUint16(id[4:6], uint16(ms))
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// MadeVersion is the version of the UUIDs that the server makes of others and of names, for
// which another message would be a repeat: a bare message must not come first with one.
const MadeVersion = 8

// NewJob is the record of a new message. t is its type, or nil if that is unknown. A
// message with a problem, its own or one that check finds, becomes a failed job with
// the reason.
func NewJob(m *Message, t *Type, checked bool) *Job {
	j := newJob(&Job{
		ID: m.ID, Key: m.Seq, Seq: m.Seq, Type: m.Type, Priority: m.Priority,
		Status: Pending, Run: 1, Payload: m.Payload, Tags: m.Tags, Timeout: m.Timeout,
		CreatedAt: m.submitted(), CreatedBy: m.CreatedBy, UpdatedAt: m.At, Unlisted: t == nil,
	})
	j.History = append(j.History, HistoryEntry{Kind: KindSubmitted, At: j.CreatedAt})
	j.MaxAttempts = 1 + max(m.RetryCount, 0)
	if t != nil && m.RetryCount < 0 {
		j.MaxAttempts = 1 + t.RetryCount
	}
	if !checked || t == nil {
		if why := m.refusal(t); why != "" {
			j.Terms = m.Terms.ofRejected()
			j.reject(why)
			return j
		}
	}
	if m.Terms != nil {
		j.Terms = m.Terms
		j.putOff(m.Terms.RunAt)
	}
	return j
}

// ofRejected are the terms that count for a message that cannot be a job: whoever wants a
// callback wants to know of this end as well, and its trace shows it.
func (t *Terms) ofRejected() *Terms {
	if t == nil {
		return nil
	}
	kept := Terms{Trace: t.Trace}
	if CheckCallbackURL(t.CallbackURL) == nil {
		kept.CallbackURL = t.CallbackURL
	}
	if AllZero(TermsFields, &kept) {
		return nil
	}
	return &kept
}

// putOff makes a new job wait for its time. The message alone decides whether that is
// still to come, so that a rebuilt tracker decides the same.
func (j *Job) putOff(runAt Time) {
	if runAt > j.UpdatedAt {
		j.Status, j.Place, j.DueAt = Scheduled, Due, runAt
	}
}

// submitted is the moment of the job's first submission.
func (m *Message) submitted() Time {
	if m.CreatedAt != 0 {
		return m.CreatedAt
	}
	return m.At
}

// refusal is the reason why m cannot be a job of type t, or "".
func (m *Message) refusal(t *Type) string {
	switch {
	case m.Problem != "":
		return m.Problem
	case t == nil:
		return "unknown job type " + Quote(m.Type)
	case len(m.Payload) == 0:
	case strict.TooDeep(m.Payload): // encoding/json reads at most 10,000 levels
		return fmt.Sprintf("the payload is nested deeper than %d", strict.MaxDepth)
	case !isJSON(m.Payload):
		return "the payload is not JSON"
	}
	if err := t.check(m.Payload, m.Terms.inputs()); err != nil {
		return allFields(err)
	}
	return ""
}

// allFields is the text of an error with every field that it names, because a failed
// job has no other place for them.
func allFields(err error) string {
	var e *Error
	if !errors.As(err, &e) || len(e.Fields) < 2 {
		return err.Error()
	}
	var all []string
	for _, f := range e.Fields {
		all = append(all, f.Pointer+": "+f.Detail)
	}
	return strings.Join(all, "; ")
}

// isJSON says whether b is JSON text in UTF-8; json.Valid does not check strings for
// that.
func isJSON(b []byte) bool { return utf8.Valid(b) && json.Valid(b) }

// maxGarbage is how many bytes of a payload are kept that is not JSON.
const maxGarbage = 1024

// garbage is the kept part of a payload that is not JSON: its beginning, its length and
// its hash. The beginning is a JSON string, so that the resource stays JSON.
func garbage(payload []byte) json.RawMessage {
	text := string(payload[:min(len(payload), maxGarbage)])
	if len(payload) > maxGarbage {
		text += fmt.Sprintf("… (%d bytes, SHA-256 %x)", len(payload), sha256.Sum256(payload))
	}
	return AppendString(nil, text)
}

// reject ends a job that never started because it cannot be one. The reason may quote
// the message.
func (j *Job) reject(why string) {
	why = Shorten(why, MaxError)
	switch {
	case len(j.Payload) == 0:
	case !isJSON(j.Payload):
		j.Payload = garbage(j.Payload)
	case strict.TooDeep(j.Payload):
		j.Payload = nil // many clients could not read the resource
	}
	j.Status, j.Permanent = Failed, true
	j.Error = why
	j.Errors = []AttemptError{{Attempt: 0, Error: why, At: j.CreatedAt}}
	j.EndedAt = j.CreatedAt
	j.remember(HistoryEntry{Kind: KindFailed, At: j.CreatedAt, Text: why})
}

// Merge completes a record that was made from events alone ([Event.Stub]) with its late
// submission. It sets only the fields that a submission knows.
func Merge(j *Job, m *Message) {
	j.Payload, j.Tags, j.Timeout, j.Terms = m.Payload, m.Tags, m.Timeout, m.Terms
	j.CreatedAt, j.CreatedBy = m.submitted(), m.CreatedBy
	if len(j.History) > 0 && j.History[0].Kind == KindSubmitted {
		j.History[0].At = j.CreatedAt
	}
}

// Again is the message that puts a known job into the queue again.
func (j *Job) Again() *Message {
	return &Message{
		ID: j.ID, Type: j.Type, Priority: j.Priority, Payload: j.Payload, Tags: j.Tags,
		RetryCount: j.MaxAttempts - 1, Timeout: j.Timeout, Terms: j.Terms, Moved: true, CreatedAt: j.CreatedAt, CreatedBy: j.CreatedBy,
	}
}

// Batch is a set of submissions that get in together or not at all. It is stored as a
// whole before the first of its messages is published. If the process dies in between,
// the next start completes it.
type Batch struct {
	ID       ID // the id of its first job
	Token    *Token
	Messages []*Message
}

package jobs

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"jobstream/jobs/strict"
)

// AppendJSON appends the job resource of REST, the service and notifications. The
// members of its terms are beside the job's own.
func (j *Job) AppendJSON(b []byte) []byte {
	start := len(b)
	b = appendMembers(b, JobFields, j)
	if j.Terms != nil {
		b = appendMembers(b, TermsFields, j.Terms)
	}
	if f := j.Fingerprint(); f != "" {
		b = append(append(append(b, `,"fingerprint":"`...), f...), '"')
	}
	b[start] = '{'
	return append(b, '}')
}

// SizeHint is about the size of the job resource, in bytes.
func (j *Job) SizeHint() int { return 1024 + len(j.Payload) + len(j.Result) }

// AppendFitting appends the job resource, with what the job waits for (nil for most),
// in at most most bytes. If it would be larger, the payload is left out first, then the
// result and the attempts' errors. omitted names them.
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

// MarshalJSON gives the job resource.
func (j *Job) MarshalJSON() ([]byte, error) {
	return j.AppendJSON(make([]byte, 0, 512+len(j.Payload)+len(j.Result))), nil
}

// UnmarshalJSON reads a job resource back, and rebuilds the history from its times. A
// rebuilt tracker reads ended jobs from their notifications with it.
func (j *Job) UnmarshalJSON(b []byte) error {
	*j = Job{}
	var t Terms
	if b[0] != '{' {
		return fmt.Errorf("not a job resource: %s", strict.Describe(b))
	}
	for name, raw := range strict.Members(b) {
		known, err := readMember(JobFields, j, name, raw)
		if !known {
			_, err = readMember(TermsFields, &t, name, raw)
		}
		if err != nil {
			return err
		}
	}
	if j.Status == 0 || !j.Priority.Valid() || j.ID == (ID{}) || j.Seq == 0 {
		return fmt.Errorf("not a job resource (id %s, seq %d, status %q)", j.ID, j.Seq, j.Status)
	}
	if j.Status.Ended() { // else it is the moment of the next attempt
		t.RunAt, j.DueAt = j.DueAt, 0
	}
	if !AllZero(TermsFields, &t) {
		j.Terms = &t
	}
	j.Key, j.Run = j.Seq, max(j.Run, 1)
	j.remember(HistoryEntry{Kind: KindSubmitted, At: j.CreatedAt})
	for _, e := range j.Errors {
		j.Failures = max(j.Failures, e.Attempt)
		if e.Attempt < j.Attempt {
			j.remember(HistoryEntry{Kind: KindRetrying, At: e.At, Attempt: e.Attempt, Text: e.Error})
		}
	}
	if j.StartedAt != 0 {
		j.remember(HistoryEntry{Kind: KindStarted, At: j.StartedAt, Attempt: j.Attempt, Node: j.Node})
	}
	if j.EndedAt != 0 {
		kind, _ := ParseKind(j.Status.String())
		j.remember(HistoryEntry{Kind: kind, At: j.EndedAt, Attempt: j.Attempt, Text: j.Error, Node: j.Node})
	}
	return nil
}

// AppendEventsJSON appends {"events":[…],"next_cursor":"…"}: up to limit entries of the
// job's history behind the first after ones, oldest first.
func (j *Job) AppendEventsJSON(b []byte, after, limit int) []byte {
	b = append(b, `{"events":[`...)
	next, end := "", len(j.History)
	if after+limit < end {
		end = after + limit
		next = strconv.Itoa(end)
	}
	for i := after; i < end; i++ { // after may be behind the end: entries are thinned out
		h := j.History[i]
		if i > after {
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
			if h.Kind == KindProgress || h.Kind == KindSnoozed || h.Kind == KindRevised {
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
		actor := h.Actor
		if h.Kind == KindSubmitted {
			actor = j.CreatedBy
		}
		if actor != "" {
			b = append(b, `,"actor":`...)
			b = AppendString(b, actor)
		}
		b = append(b, '}')
	}
	b = AppendString(append(b, `],"next_cursor":`...), next)
	return append(b, '}')
}

// AppendID appends an id in its usual form.
func AppendID(b []byte, id ID) []byte {
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

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
// Unlike encoding/json it keeps <, > and &, because nothing here gets into HTML
// unescaped.
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

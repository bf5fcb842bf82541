package jobs

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// terms are the special wishes, made if need be.
func (s *Submission) terms() *Terms {
	if s.Terms == nil {
		s.Terms = &Terms{}
	}
	return s.Terms
}

// TooEarly are the problems with moments that leave a job no time, as of now.
func (t *Terms) TooEarly(now Time) (wrong []FieldError) {
	check := func(name string, at Time) {
		switch {
		case at == 0:
		case at <= now:
			wrong = append(wrong, FieldError{"/" + name, "has passed already"})
		case at <= t.RunAt:
			wrong = append(wrong, FieldError{"/" + name, "comes before the job may start"})
		}
	}
	check("expires_at", t.ExpiresAt)
	check("deadline", t.Deadline)
	return wrong
}

// Admit is a door for submissions that a program has made. It returns the submission as
// of now: its Spans have become moments, and its IdempotencyKey a token of a realm, see
// [NewToken]. The error is an [*Error] with all values that are out of bounds. It does
// not know the types; see [Registry.Check].
func (s *Submission) Admit(realm string, now Time) (*Submission, error) {
	c := checker{}
	c.check("priority", s.Priority.Valid(), "must be a whole number from %d to %d", HighestPriority, LowestPriority)
	c.check("retry_count", s.RetryCount >= -1 && s.RetryCount <= MaxRetryCount, "must be a whole number from 0 to %d", MaxRetryCount)
	c.check("timeout", s.Timeout >= 0 && s.Timeout <= MaxTimeout, "must be above 0, at most %s", MaxTimeout)
	c.take("tags", CheckTags(s.Tags))
	c.check("payload", len(s.Payload) == 0 || json.Valid(s.Payload), "is not JSON")
	admitted := *s
	if s.IdempotencyKey != "" {
		c.take("idempotency_key", CheckKey(s.IdempotencyKey))
		admitted.Token, admitted.IdempotencyKey = NewToken(realm, s.IdempotencyKey, s.AppendJSON(nil)), ""
	}
	if s.Terms != nil || s.Spans != (Spans{}) {
		admitted.Terms, admitted.Spans = c.terms(s, now), Spans{}
	}
	if len(c.wrong) > 0 {
		return nil, InvalidFields(c.wrong...)
	}
	return &admitted, nil
}

// checker gathers the problems with a submission.
type checker struct{ wrong []FieldError }

func (c *checker) check(name string, right bool, format string, args ...any) {
	if !right {
		c.take(name, fmt.Errorf(format, args...))
	}
}

func (c *checker) take(name string, err error) {
	if err != nil {
		c.wrong = append(c.wrong, FieldError{"/" + name, err.Error()})
	}
}

// terms are those of s as of now; nil if it has no wishes.
func (c *checker) terms(s *Submission, now Time) *Terms {
	t := Terms{}
	if s.Terms != nil {
		t = *s.Terms
	}
	for _, span := range []struct {
		name string
		d    time.Duration
		at   Time
		as   string
	}{
		{"delay", s.Spans.Delay, t.RunAt, "run_at"},
		{"ttl", s.Spans.TTL, t.ExpiresAt, "expires_at"},
		{"deadline", s.Spans.Deadline, t.Deadline, "a moment"},
	} {
		c.check(span.name, span.d >= 0 && span.d <= MaxDelay, "must be from 0 to ten years")
		c.check(span.name, span.d == 0 || span.at == 0, "cannot be given together with %s", span.as)
	}
	for i := range TermsFields {
		f := &TermsFields[i]
		switch {
		case IsZero(f.Of(&t)) || f.Name == "inputs": // the server describes their files
		case f.Server:
			c.check(f.Name, false, "is for the server only")
		case f.Check != nil:
			c.take(f.Name, f.Check(&t))
		}
	}
	c.check("inputs", len(t.Inputs) <= MaxInputs, "has more than %d entries", MaxInputs)
	s.Spans.Fix(&t, now)
	c.wrong = append(c.wrong, t.TooEarly(now)...)
	if AllZero(TermsFields, &t) {
		return nil
	}
	return &t
}

// AppendJSON appends the submission as a door reads it; see
// [jobstream/jobs/api.ParseSubmission]. It leaves out what is no part of that: the ID, the
// Token with its key, and CreatedBy.
func (s *Submission) AppendJSON(b []byte) []byte {
	b = AppendString(append(b, `{"type":`...), s.Type)
	if len(s.Payload) > 0 {
		b = append(append(b, `,"payload":`...), s.Payload...)
	}
	if s.Priority != 0 {
		b = strconv.AppendUint(append(b, `,"priority":`...), uint64(s.Priority), 10)
	}
	if s.RetryCount >= 0 {
		b = strconv.AppendInt(append(b, `,"retry_count":`...), int64(s.RetryCount), 10)
	}
	if len(s.Tags) > 0 {
		b = AppendValueJSON(append(b, `,"tags":`...), &s.Tags)
	}
	b = appendSpan(b, "timeout", s.Timeout)
	b = appendSpan(b, "delay", s.Spans.Delay)
	b = appendSpan(b, "ttl", s.Spans.TTL)
	b = appendSpan(b, "deadline", s.Spans.Deadline)
	if s.Terms != nil {
		for i := range TermsFields {
			f := &TermsFields[i]
			if v := f.Of(s.Terms); !f.Server && !IsZero(v) {
				b = AppendValueJSON(append(AppendString(append(b, ','), f.Name), ':'), v)
			}
		}
		b = appendSubmittedInputs(b, s.Terms.Inputs)
	}
	return append(b, '}')
}

// MarshalJSON gives the submission as a door reads it; see [Submission.AppendJSON].
func (s *Submission) MarshalJSON() ([]byte, error) { return s.AppendJSON(nil), nil }

func appendSpan(b []byte, name string, d time.Duration) []byte {
	if d == 0 {
		return b
	}
	return AppendValueJSON(append(AppendString(append(b, ','), name), ':'), &d)
}

// appendSubmittedInputs is the inverse of [ReadInputs].
func appendSubmittedInputs(b []byte, inputs []Input) []byte {
	for i := range inputs {
		in, before := &inputs[i], `,`
		if i == 0 {
			before = `,"inputs":{`
		}
		b = append(AppendString(append(b, before...), in.Name), ':')
		if in.Job == (ID{}) {
			b = AppendValueJSON(b, &in.ID)
			continue
		}
		b = AppendValueJSON(append(b, `{"job":`...), &in.Job)
		if in.File.Name != "" {
			b = AppendString(append(b, `,"artifact":`...), in.File.Name)
		}
		b = append(b, '}')
	}
	if len(inputs) > 0 {
		b = append(b, '}')
	}
	return b
}

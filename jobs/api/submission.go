package api

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// ParseSubmission reads a submission from JSON, strictly: one object, known fields
// only, each once, each with a sensible value. It does not know the types; see
// [jobs.Registry.Check].
func ParseSubmission(body []byte) (s *jobs.Submission, err error) {
	if err = jobs.Read("", body, func(v strict.Value) { s = submissionOf(v) }); err != nil {
		return nil, err
	}
	return s, nil
}

func submissionOf(v strict.Value) *jobs.Submission {
	s := &jobs.Submission{Priority: jobs.DefaultPriority, RetryCount: -1}
	var t termsReader
	var room [32]strict.Field // most that there are, without an allocation
	run := jobs.RunFields(&s.Payload, &s.Priority, &s.Tags, &s.RetryCount, &s.Timeout)
	fields := append(room[:0], strict.Need("type", func(v strict.Value) { s.Type, _ = v.Text() }))
	v.Object(t.appendFields(append(fields, run[:]...))...)
	s.Terms = t.terms(v, jobs.Now())
	return s
}

// termsReader reads the fields of a submission that make its [jobs.Terms].
type termsReader struct {
	t                    *jobs.Terms // nil before the first field
	spans                jobs.Spans
	hasDelay, hasRunAt   bool
	hasTTL, hasExpiresAt bool
}

// appendFields appends the fields that a submission may have of [jobs.TermsFields].
func (r *termsReader) appendFields(fields []strict.Field) []strict.Field {
	read := r.read
	for i := range jobs.TermsFields {
		f := &jobs.TermsFields[i]
		if f.Span != "" {
			fields = append(fields, strict.May(f.Span, read))
		}
		if !f.Server {
			fields = append(fields, strict.May(f.Name, read))
		}
	}
	return append(fields, strict.May("inputs", read))
}

// read reads one field. Those that can be given in two ways have a case of their own; the
// rest is in [jobs.TermsFields] alone.
func (r *termsReader) read(v strict.Value) {
	if r.t == nil {
		r.t = &jobs.Terms{}
	}
	switch v.Name() {
	case "delay":
		r.hasDelay, r.spans.Delay = true, strict.As(v, jobs.ReadDelay)
		return
	case "ttl":
		r.hasTTL, r.spans.TTL = true, strict.As(v, spanOf)
		return
	case "deadline":
		if text, err := strict.Text(v.Raw); err != nil || !strings.ContainsAny(text, "-:") {
			r.spans.Deadline = strict.As(v, spanOf)
			return
		}
	case "inputs":
		r.t.Inputs = jobs.ReadInputs(v)
		return
	case "run_at":
		r.hasRunAt = true
	case "expires_at":
		r.hasExpiresAt = true
	}
	f := jobs.FieldNamed(jobs.TermsFields, v.Name())
	right := false
	switch of := f.Of(r.t).(type) {
	case *jobs.Time:
		at, err := jobs.ReadMoment(v.Raw)
		*of, right = at, v.Check(err)
	default:
		right = v.Check(jobs.ReadValueJSON(of, v.Raw))
	}
	if right && f.Check != nil {
		v.Check(f.Check(r.t))
	}
}

// spanOf reads how long from now something is to happen.
func spanOf(raw json.RawMessage) (time.Duration, error) {
	d, err := jobs.ReadDelay(raw)
	if err == nil && d == 0 {
		err = errors.New("must be above 0")
	}
	return d, err
}

// terms puts the fields together as of now, nil if there were none. It complains of those
// that do not go together.
func (r *termsReader) terms(whole strict.Value, now jobs.Time) *jobs.Terms {
	if r.t == nil {
		return nil
	}
	if r.hasDelay && r.hasRunAt {
		whole.At("run_at").Fail("cannot be given together with delay")
	}
	if r.hasTTL && r.hasExpiresAt {
		whole.At("expires_at").Fail("cannot be given together with ttl")
	}
	r.spans.Fix(r.t, now)
	for _, f := range r.t.TooEarly(now) {
		whole.At(f.Pointer[1:]).Fail("%s", f.Detail)
	}
	if jobs.AllZero(jobs.TermsFields, r.t) {
		return nil
	}
	return r.t
}

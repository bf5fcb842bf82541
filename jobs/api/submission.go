package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// ParseSubmission reads a submission from JSON, strictly: one object, known
// fields only, each once, each with a sensible value. It doesn't know the types;
// see [jobs.Registry.Check].
func ParseSubmission(body []byte) (*jobs.Submission, error) {
	s := &jobs.Submission{Priority: jobs.DefaultPriority, RetryCount: -1}
	var terms termsParser
	err := jobs.EachKnown(body, submissionFields(), submissionNeeds, func(name string, raw json.RawMessage) (err error) {
		switch name {
		case "type":
			s.Type, err = strict.Text(raw)
		case "payload":
			s.Payload = raw
		case "priority":
			var n int
			if n, err = strict.Int(raw, int(jobs.HighestPriority), int(jobs.LowestPriority)); err == nil {
				s.Priority = jobs.Priority(n)
			}
		case "retry_count":
			s.RetryCount, err = strict.Int(raw, 0, jobs.MaxRetryCount)
		case "timeout":
			s.Timeout, err = jobs.ReadTimeout(raw)
		case "tags":
			s.Tags, err = jobs.ReadTags(raw)
		default:
			err = terms.field(name, raw)
		}
		return err
	})
	var bad fieldErrors
	s.Terms = terms.terms(jobs.Now(), &bad)
	if e, ok := jobs.AsError(err); ok {
		if len(e.Fields) == 0 {
			return nil, err // nothing could be read
		}
		bad = append(e.Fields, bad...)
	}
	if len(bad) > 0 {
		return nil, jobs.InvalidFields(bad...)
	}
	return s, nil
}

// submissionNeeds are the fields that a submission must have.
var submissionNeeds = []string{"type"}

// submissionFields are those that it may have.
func submissionFields() []string {
	names := append(make([]string, 0, 6+2*len(jobs.TermsFields)), "type", "payload", "priority", "tags", "retry_count", "timeout")
	for i := range jobs.TermsFields {
		f := &jobs.TermsFields[i]
		if f.Span != "" {
			names = append(names, f.Span)
		}
		if !f.Server {
			names = append(names, f.Name)
		}
	}
	return names
}

// termsParser reads the fields of a submission that make its [jobs.Terms].
type termsParser struct {
	t                    *jobs.Terms // nil before the first field
	delay, ttl           time.Duration
	hasDelay, hasRunAt   bool
	hasTTL, hasExpiresAt bool
	deadline             time.Duration
	relative             bool // the deadline is given as a duration
}

// field takes one field. What can be given in two ways is put together by terms; the
// rest stands in [jobs.TermsFields] alone.
func (p *termsParser) field(name string, raw json.RawMessage) (err error) {
	if p.t == nil {
		p.t = &jobs.Terms{}
	}
	switch name {
	case "delay":
		p.hasDelay = true
		p.delay, err = jobs.ReadDelay(raw)
		return err
	case "ttl":
		p.hasTTL = true
		if p.ttl, err = jobs.ReadDelay(raw); err == nil && p.ttl == 0 {
			err = fmt.Errorf("must be above 0")
		}
		return err
	case "deadline":
		return p.deadlineValue(raw)
	case "run_at":
		p.hasRunAt = true
	case "expires_at":
		p.hasExpiresAt = true
	}
	f := jobs.FieldNamed(jobs.TermsFields, name)
	v := f.Of(p.t)
	if at, ok := v.(*jobs.Time); ok {
		*at, err = jobs.ReadMoment(raw)
	} else {
		err = jobs.ReadValueJSON(v, raw)
	}
	if err == nil && f.Check != nil {
		err = f.Check(p.t)
	}
	return err
}

// deadlineValue reads a moment, or how long from now.
func (p *termsParser) deadlineValue(raw json.RawMessage) (err error) {
	if text, wrong := strict.Text(raw); wrong == nil && (strings.Contains(text, "-") || strings.Contains(text, ":")) {
		p.t.Deadline, err = jobs.ParseMoment(text)
		return err
	}
	p.deadline, err = jobs.ReadDelay(raw)
	if err == nil && p.deadline == 0 {
		err = fmt.Errorf("must be above 0")
	}
	p.relative = err == nil
	return err
}

// terms puts the fields together as of now, nil if there were none. What does
// not go together is added to bad.
func (p *termsParser) terms(now jobs.Time, bad *fieldErrors) *jobs.Terms {
	if p.t == nil {
		return nil
	}
	if p.hasDelay && p.hasRunAt {
		bad.add("/run_at", errors.New("cannot be given together with delay"))
	}
	if p.hasTTL && p.hasExpiresAt {
		bad.add("/expires_at", errors.New("cannot be given together with ttl"))
	}
	if p.delay > 0 {
		p.t.RunAt = now.Add(p.delay)
	}
	if p.ttl > 0 {
		p.t.ExpiresAt = max(now, p.t.RunAt).Add(p.ttl)
	}
	if p.relative {
		p.t.Deadline = now.Add(p.deadline)
	}
	for _, f := range [...]struct {
		name string
		at   jobs.Time
	}{{"expires_at", p.t.ExpiresAt}, {"deadline", p.t.Deadline}} {
		switch {
		case f.at == 0:
		case f.at <= now:
			bad.add("/"+f.name, errors.New("has passed already"))
		case f.at <= p.t.RunAt:
			bad.add("/"+f.name, errors.New("comes before the job may start"))
		}
	}
	if jobs.AllZero(jobs.TermsFields, p.t) {
		return nil
	}
	return p.t
}

package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"jobstream/jobs/strict"
)

// termsParser reads the fields of a submission that make its [Terms].
type termsParser struct {
	t                    *Terms // nil before the first field
	delay, ttl           time.Duration
	hasDelay, hasRunAt   bool
	hasTTL, hasExpiresAt bool
	deadline             time.Duration
	relative             bool // the deadline is given as a duration
}

// field takes one field. What can be given in two ways is put together by terms; the
// rest stands in [TermsFields] alone.
func (p *termsParser) field(name string, raw json.RawMessage) (err error) {
	if p.t == nil {
		p.t = &Terms{}
	}
	switch name {
	case "delay":
		p.hasDelay = true
		p.delay, err = delayValue(raw)
		return err
	case "ttl":
		p.hasTTL = true
		if p.ttl, err = delayValue(raw); err == nil && p.ttl == 0 {
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
	f := FieldNamed(TermsFields, name)
	v := f.Of(p.t)
	if at, ok := v.(*Time); ok {
		*at, err = momentValue(raw)
	} else {
		err = readValueJSON(v, raw)
	}
	if err == nil && f.Check != nil {
		err = f.Check(p.t)
	}
	return err
}

// deadlineValue reads a moment, or how long from now.
func (p *termsParser) deadlineValue(raw json.RawMessage) (err error) {
	if text, wrong := strict.Text(raw); wrong == nil && (strings.Contains(text, "-") || strings.Contains(text, ":")) {
		p.t.Deadline, err = ParseMoment(text)
		return err
	}
	p.deadline, err = delayValue(raw)
	if err == nil && p.deadline == 0 {
		err = fmt.Errorf("must be above 0")
	}
	p.relative = err == nil
	return err
}

// terms puts the fields together as of now, nil if there were none. What does
// not go together is added to bad.
func (p *termsParser) terms(now Time, bad *fieldErrors) *Terms {
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
		at   Time
	}{{"expires_at", p.t.ExpiresAt}, {"deadline", p.t.Deadline}} {
		switch {
		case f.at == 0:
		case f.at <= now:
			bad.add("/"+f.name, errors.New("has passed already"))
		case f.at <= p.t.RunAt:
			bad.add("/"+f.name, errors.New("comes before the job may start"))
		}
	}
	if AllZero(TermsFields, p.t) {
		return nil
	}
	return p.t
}

// delayValue reads seconds or a duration, 0 to [MaxDelay].
func delayValue(raw json.RawMessage) (time.Duration, error) {
	d, err := spanValue(raw, MaxDelay)
	if err != nil {
		return 0, fmt.Errorf("must be seconds or a duration like \"5m\", at most ten years, not %s", strict.Describe(raw))
	}
	return d, nil
}

// momentValue reads an RFC 3339 time.
func momentValue(raw json.RawMessage) (Time, error) {
	text, err := strict.Text(raw)
	if err != nil {
		return 0, err
	}
	return ParseMoment(text)
}

// CheckKey says what is wrong with a unique, concurrency or idempotency key, if
// anything.
func CheckKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("is empty")
	case len(key) > MaxKey:
		return fmt.Errorf("is longer than %d bytes", MaxKey)
	case strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }):
		return fmt.Errorf("has a control character or is not UTF-8")
	case strings.TrimSpace(key) != key:
		return fmt.Errorf("begins or ends with a space")
	}
	return nil
}

// MaxBatch is the largest number of jobs in one batch.
const MaxBatch = 1000

// ParseBatch reads {"jobs":[…]}, each as [ParseSubmission] reads one. Pointers in
// errors begin with the job's: /jobs/3/type.
func ParseBatch(body []byte) (subs []*Submission, err error) {
	var bad fieldErrors
	fields := []string{"jobs"}
	err = EachKnown(body, fields, fields, func(_ string, raw json.RawMessage) error {
		subs = parseBatch(raw, &bad)
		return nil
	})
	if err == nil && len(bad) > 0 {
		err = InvalidFields(bad...)
	}
	if err != nil {
		return nil, err
	}
	return subs, nil
}

func parseBatch(raw json.RawMessage, bad *fieldErrors) (subs []*Submission) {
	if raw[0] != '[' {
		bad.add("/jobs", fmt.Errorf("must be a list of jobs, not %s", strict.Describe(raw)))
		return nil
	}
	n := 0
	strict.EachElement(raw, func(entry json.RawMessage) {
		if n++; n > MaxBatch {
			return
		}
		at := fmt.Sprintf("/jobs/%d", n-1)
		if entry[0] != '{' {
			bad.add(at, fmt.Errorf("must be an object, not %s", strict.Describe(entry)))
			return
		}
		s, err := ParseSubmission(entry)
		bad.within(at, err)
		subs = append(subs, s)
	})
	if n == 0 || n > MaxBatch {
		bad.add("/jobs", fmt.Errorf("must have 1 to %d jobs, not %d", MaxBatch, n))
	}
	return subs
}

// CheckBatch is [Registry.Check] for all jobs of a batch.
func (r *Registry) CheckBatch(subs []*Submission) error {
	var bad fieldErrors
	kind := InvalidRequest
	for i, s := range subs {
		err := r.Check(s)
		if err == nil {
			continue
		}
		if e, ok := AsError(err); ok {
			kind = e.Kind
		}
		bad.within(fmt.Sprintf("/jobs/%d", i), err)
	}
	if len(bad) == 0 {
		return nil
	}
	e := InvalidFields(bad...)
	if len(bad) == 1 {
		e.Kind = kind // unknown_type rather than just invalid
	}
	return e
}

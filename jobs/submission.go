package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"jobstream/jobs/strict"
)

// Submission is a client's wish for a job, as POST /jobs and jobstream.submit
// take it.
type Submission struct {
	Type       string
	Payload    json.RawMessage // nil if none was given
	Priority   Priority
	RetryCount int           // -1 = the type's
	Timeout    time.Duration // 0 = the type's
	Tags       []string
	Terms      *Terms // nil if it asks for nothing beyond the ordinary
	Token      *Token // nil without an idempotency key
}

// Bounds of a submission.
const (
	MaxRetryCount = 1000
	MaxTimeout    = 7 * 24 * time.Hour
	MaxTags       = 32
	MaxTagLength  = 128 // bytes
)

// Message is the message that submits s, with a new id.
func (s *Submission) Message() *Message {
	return &Message{
		ID: NewID(), Type: s.Type, Priority: s.Priority, Payload: s.Payload, Tags: s.Tags,
		RetryCount: s.RetryCount, Timeout: s.Timeout, Terms: s.Terms, Token: s.Token,
	}
}

// ParseSubmission reads a submission from JSON, strictly: one object, known
// fields only, each once, each with a sensible value. It doesn't know the types;
// see [Registry.Check].
func ParseSubmission(body []byte) (*Submission, error) {
	s := &Submission{Priority: DefaultPriority, RetryCount: -1}
	var terms termsParser
	err := EachKnown(body, submissionFields(), submissionNeeds, func(name string, raw json.RawMessage) (err error) {
		switch name {
		case "type":
			s.Type, err = strict.Text(raw)
		case "payload":
			s.Payload = raw
		case "priority":
			var n int
			if n, err = strict.Int(raw, int(HighestPriority), int(LowestPriority)); err == nil {
				s.Priority = Priority(n)
			}
		case "retry_count":
			s.RetryCount, err = strict.Int(raw, 0, MaxRetryCount)
		case "timeout":
			s.Timeout, err = timeoutValue(raw)
		case "tags":
			s.Tags, err = tagsValue(raw)
		default:
			err = terms.field(name, raw)
		}
		return err
	})
	var bad fieldErrors
	s.Terms = terms.terms(Now(), &bad)
	if e, ok := AsError(err); ok {
		if len(e.Fields) == 0 {
			return nil, err // nothing could be read
		}
		bad = append(e.Fields, bad...)
	}
	if len(bad) > 0 {
		return nil, InvalidFields(bad...)
	}
	return s, nil
}

// submissionNeeds are the fields that a submission must have.
var submissionNeeds = []string{"type"}

// submissionFields are those that it may have.
func submissionFields() []string {
	names := append(make([]string, 0, 6+2*len(TermsFields)), "type", "payload", "priority", "tags", "retry_count", "timeout")
	for i := range TermsFields {
		f := &TermsFields[i]
		if f.Span != "" {
			names = append(names, f.Span)
		}
		if !f.Server {
			names = append(names, f.Name)
		}
	}
	return names
}

// Check says whether the registry has the submission's type, and whether that
// type can use the payload.
func (r *Registry) Check(s *Submission) error {
	t := r.Lookup(s.Type)
	if t == nil {
		return r.Unknown(s.Type)
	}
	if err := t.Check(s.Payload); err != nil {
		return err
	}
	return nil
}

// EachKnown is [EachField] for an object that has no other fields than known, and
// all of required. A null is as if its field were not there. What read says is
// wrong with a field is gathered, in one [*Error].
func EachKnown(body []byte, known, required []string, read func(name string, raw json.RawMessage) error) error {
	var bad fieldErrors
	given := 0 // a bit for each of required
	err := EachField(body, func(name string, raw json.RawMessage) {
		switch {
		case !slices.Contains(known, name):
			bad.add(strict.Pointer(name), unknownField(known))
		case string(raw) != "null":
			if i := slices.Index(required, name); i >= 0 {
				given |= 1 << i
			}
			bad.add(strict.Pointer(name), read(name, raw))
		}
	})
	if err != nil {
		return err
	}
	for i, name := range required {
		if given&(1<<i) == 0 {
			bad.add(strict.Pointer(name), errors.New("is required"))
		}
	}
	if len(bad) > 0 {
		return InvalidFields(bad...)
	}
	return nil
}

func unknownField(known []string) error {
	if len(known) == 1 {
		return fmt.Errorf("is not a known field; known is %s", known[0])
	}
	return fmt.Errorf("is not a known field; known are %s", strings.Join(known, ", "))
}

// EachField calls f for every field of the JSON object in body, in order. An
// *Error comes back if body is not JSON ([MalformedJSON]), not an object, nested
// deeper than [jobstream/jobs/strict.MaxDepth], or names a field twice. raw is a part of body.
func EachField(body []byte, f func(name string, raw json.RawMessage)) error {
	if err := strict.Check(body); err != nil {
		return &Error{Kind: MalformedJSON, Detail: err.Error()}
	}
	switch {
	case strict.TooDeep(body):
		return Invalid("", fmt.Sprintf("is nested deeper than %d", strict.MaxDepth))
	case bytes.TrimSpace(body)[0] != '{':
		return &Error{
			Kind: InvalidRequest, Detail: "the body must be a JSON object",
			Fields: []FieldError{{Pointer: "", Detail: "must be a JSON object"}},
		}
	}
	if wrong := strict.EachOnce(body, f); wrong != nil {
		return Invalid(wrong.Pointer, wrong.Detail)
	}
	return nil
}

func timeoutValue(raw []byte) (time.Duration, error) {
	d, err := spanValue(raw, MaxTimeout)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("must be seconds above 0 or a duration like \"5m\", at most 7d, not %s", strict.Describe(raw))
	}
	return d, nil
}

// spanValue reads seconds, in any spelling of a number (300, 300.0, 3e2, 0.5), or
// a duration as text, 0 to longest.
func spanValue(raw []byte, longest time.Duration) (d time.Duration, err error) {
	if raw[0] == '"' {
		var text string
		if text, err = strict.Text(raw); err == nil {
			d, err = ParseDuration(text)
		}
	} else {
		var f float64
		f, err = strconv.ParseFloat(string(raw), 64)
		if d = -1; err == nil && f >= 0 && f <= longest.Seconds() {
			d = seconds(f)
		}
	}
	if err == nil && (d < 0 || d > longest) {
		err = errors.New("out of range")
	}
	return d, err
}

// seconds is f seconds to the nearest nanosecond: 16560.404 is not a hair less.
func seconds(f float64) time.Duration { return time.Duration(math.Round(f * float64(time.Second))) }

func tagsValue(raw []byte) ([]string, error) {
	tags, err := strict.Texts(raw)
	if err != nil {
		return nil, err
	}
	return tags, CheckTags(tags)
}

// CheckTags says what is wrong with a list of tags, if anything.
func CheckTags(tags []string) error {
	if len(tags) > MaxTags {
		return fmt.Errorf("has %d entries, at most %d are allowed", len(tags), MaxTags)
	}
	for i, t := range tags {
		switch {
		case t == "":
			return fmt.Errorf("entry %d is empty", i)
		case len(t) > MaxTagLength:
			return fmt.Errorf("entry %d is longer than %d bytes", i, MaxTagLength)
		case strings.ContainsFunc(t, func(r rune) bool { return r < ' ' || r == 0x7f || r == ',' || r == utf8.RuneError }):
			return fmt.Errorf("entry %d has a comma or a control character", i)
		case strings.TrimSpace(t) != t:
			return fmt.Errorf("entry %d begins or ends with a space", i)
		}
	}
	return nil
}

// ParseDuration reads whole seconds ("300") or a Go duration with the units d
// (24 h) and w (7 d) as well ("1h30m", "30d", "1w2d"). Negative ones and those
// beyond 290 years are errors.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration: whole seconds, or like 90s, 5m, 1h30m, 30d, 2w", s)
	if s == "" {
		return 0, bad
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/int64(time.Second) {
			return 0, bad
		}
		return time.Duration(n) * time.Second, nil
	}
	var total time.Duration
	rest := s
	for rest != "" {
		i := 0
		for i < len(rest) && (rest[i] >= '0' && rest[i] <= '9' || rest[i] == '.') {
			i++
		}
		k := i
		for k < len(rest) && (rest[k] < '0' || rest[k] > '9') && rest[k] != '.' {
			k++
		}
		number, unit := rest[:i], rest[i:k]
		rest = rest[k:]
		var d time.Duration
		switch unit {
		case "d", "w":
			f, err := strconv.ParseFloat(number, 64)
			if err != nil {
				return 0, bad
			}
			if unit == "w" {
				f *= 7
			}
			ns := f * 24 * float64(time.Hour)
			if ns >= math.MaxInt64 { // which is 2^63 as a float, one too many
				return 0, bad
			}
			d = time.Duration(ns)
		default:
			var err error
			if d, err = time.ParseDuration(number + unit); err != nil || d < 0 {
				return 0, bad
			}
		}
		if total+d < total {
			return 0, bad
		}
		total += d
	}
	return total, nil
}

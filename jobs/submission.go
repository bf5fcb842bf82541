package jobs

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Submission is a client's request for a job, by POST /jobs or jobstream.submit.
type Submission struct {
	ID         ID // of the job; the zero ID = a new one
	Type       string
	Payload    json.RawMessage // nil if none was given
	Priority   Priority
	RetryCount int           // -1 = the type's
	Timeout    time.Duration // 0 = the type's
	Tags       []string
	Terms      *Terms // nil without special wishes
	Token      *Token // nil without an idempotency key
	CreatedBy  string // the principal; "" = nobody

	// The rest is how clients write parts of Terms and Token. See [Submission.Admit].

	Spans          Spans
	IdempotencyKey string // "" = none
}

// Spans are moments of [Terms] by how far they are from the submission; 0 = not given.
type Spans struct {
	Delay    time.Duration // to RunAt
	TTL      time.Duration // to ExpiresAt, from when the job may start
	Deadline time.Duration // to Deadline
}

// Fix sets in t the moments that are given as spans.
func (s Spans) Fix(t *Terms, now Time) {
	if s.Delay > 0 {
		t.RunAt = now.Add(s.Delay)
	}
	if s.TTL > 0 {
		t.ExpiresAt = max(now, t.RunAt).Add(s.TTL)
	}
	if s.Deadline > 0 {
		t.Deadline = now.Add(s.Deadline)
	}
}

// Bounds of a submission.
const (
	MaxRetryCount = 1000
	MaxTimeout    = 7 * 24 * time.Hour
	MaxTags       = 32
	MaxTagLength  = 128 // bytes
)

// MaxBatch is the largest number of jobs in one batch.
const MaxBatch = 1000

// Message is the message that submits s.
func (s *Submission) Message() *Message {
	id := s.ID
	if id == (ID{}) {
		id = NewID()
	}
	return &Message{
		ID: id, Again: s.ID != (ID{}), Type: s.Type, Priority: s.Priority, Payload: s.Payload, Tags: s.Tags,
		RetryCount: s.RetryCount, Timeout: s.Timeout, Terms: s.Terms, Token: s.Token, CreatedBy: s.CreatedBy,
	}
}

// Inputs are the files that the job is to get.
func (s *Submission) Inputs() []Input { return s.Terms.inputs() }

// Check returns an [*Error] if the registry does not have the submission's type, or if
// that type cannot use the payload or the names of the inputs.
func (r *Registry) Check(s *Submission) error {
	t := r.Lookup(s.Type)
	if t == nil || s.Type == CallbackType {
		return r.Unknown(s.Type)
	}
	if err := t.check(s.Payload, s.Inputs()); err != nil {
		return err
	}
	if s.Terms == nil || s.Terms.CallbackURL == "" {
		return nil
	}
	return r.checkCallback(s.Terms.CallbackURL)
}

// CallbackChecker is the handler of [CallbackType]. CheckURL returns the problem with a
// URL, if it is clear that no request can be sent there.
type CallbackChecker interface{ CheckURL(url string) error }

// checkCallback returns an [*Error] if there can be no callback to a URL.
func (r *Registry) checkCallback(url string) error {
	t := r.Lookup(CallbackType)
	if t == nil {
		return Invalid("/callback_url", "is not possible: this server makes no callbacks")
	}
	if c, ok := t.Handler.(CallbackChecker); ok {
		if err := c.CheckURL(url); err != nil {
			return Invalid("/callback_url", err.Error())
		}
	}
	return nil
}

// CheckBatch is [Registry.Check] for all jobs of a batch.
func (r *Registry) CheckBatch(subs []*Submission) error {
	var bad []FieldError
	kind := InvalidRequest
	for i, s := range subs {
		err := r.Check(s)
		if err == nil {
			continue
		}
		at, wrong := fmt.Sprintf("/jobs/%d", i), []FieldError{{Detail: err.Error()}}
		if e, ok := AsError(err); ok {
			kind = e.Kind
			if len(e.Fields) > 0 {
				wrong = e.Fields
			}
		}
		for _, f := range wrong {
			bad = append(bad, FieldError{Pointer: at + f.Pointer, Detail: f.Detail})
		}
	}
	if len(bad) == 0 {
		return nil
	}
	e := InvalidFields(bad...)
	if len(bad) == 1 {
		e.Kind = kind // unknown_type is more exact than invalid
	}
	return e
}

// CheckTags returns the problem with a list of tags, if any.
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

// CheckKey returns the problem with a unique, concurrency or idempotency key, if any.
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

package schedule

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// Overlap decides about a schedule's time while its last job has not ended.
type Overlap string

// The policies of overlap.
const (
	Skip  Overlap = "skip"  // the time passes without a job
	Queue Overlap = "queue" // a job is made anyway
)

// CatchUp decides about times that were missed during a downtime.
type CatchUp string

// The policies of catching up.
const (
	One  CatchUp = "one"  // one job for the latest of them
	None CatchUp = "none" // no job; the next time counts
)

// Bounds of an interval.
const (
	MinEvery = time.Second
	MaxEvery = 366 * 24 * time.Hour
)

// Bounds of all schedules together, because the list of them is one answer.
const (
	MaxSchedules = 10_000
	MaxStored    = 32 << 20 // bytes of their stored forms
)

// Spec is a user's request for a schedule. It does not change once it is part of an
// [Entry].
type Spec struct {
	Name       string
	Cron       string        // the given expression; "" if Every is set
	Every      time.Duration // the interval; 0 if Cron is set
	EveryText  string        // the given text of Every, for display; see [Spec.Interval]
	Timezone   string        // IANA name of Cron's zone
	Type       string
	Payload    json.RawMessage // nil if none was given
	Priority   jobs.Priority
	Tags       []string
	RetryCount int           // -1 = the type's
	Timeout    time.Duration // 0 = the type's
	Paused     bool
	Overlap    Overlap
	CatchUp    CatchUp
}

// MarshalJSON is for commands, whose payloads must stay the same, byte for byte.
func (s Spec) MarshalJSON() ([]byte, error) {
	type plain Spec
	return json.Marshal(struct {
		*plain
		Payload []byte
	}{(*plain)(&s), s.Payload})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (s *Spec) UnmarshalJSON(b []byte) error {
	type plain Spec
	in := struct {
		*plain
		Payload []byte
	}{plain: (*plain)(s)}
	err := json.Unmarshal(b, &in)
	s.Payload = in.Payload
	return err
}

// ParseSpec reads a schedule from JSON, strictly: one object, only known fields, each
// at most once and with a sensible value, and times that come. It does not know the job
// types. Errors are [*jobs.Error]s that point at the fields.
func ParseSpec(body []byte) (*Spec, error) { return parse("", body) }

// ParseNamedSpec is [ParseSpec] for a schedule whose name is given elsewhere, in a path
// or as a key. The body may leave the name out, or must have the same one.
func ParseNamedSpec(name string, body []byte) (*Spec, error) { return parse(name, body) }

func parse(name string, body []byte) (*Spec, error) {
	r := reader{given: make(map[string]bool)}
	r.spec = Spec{
		Name: name, Timezone: "UTC", Priority: jobs.DefaultPriority, RetryCount: -1,
		Overlap: Skip, CatchUp: One,
	}
	err := jobs.EachKnown(body, specFields, nil, func(field string, raw json.RawMessage) error {
		r.given[field] = true
		return r.read(field, raw, name)
	})
	if e, ok := jobs.AsError(err); ok {
		if len(e.Fields) == 0 || len(r.given) == 0 {
			return nil, err // nothing could be read
		}
		r.bad = e.Fields
	}
	r.require(name)
	if len(r.bad) > 0 {
		return nil, jobs.InvalidFields(r.bad...)
	}
	return &r.spec, nil
}

// specFields are the fields of a schedule. The last ones are the server's.
var specFields = []string{
	"name", "cron", "every", "timezone", "type", "payload", "priority", "tags", "retry_count", "timeout", "paused", "overlap", "catch_up",
	"next_run_at", "last_run_at", "last_job_id", "skipped", "source", "problem", "created_at", "updated_at",
}

// reader collects a spec and its problems.
type reader struct {
	spec  Spec
	given map[string]bool
	bad   []jobs.FieldError
}

func (r *reader) fail(pointer, detail string) {
	r.bad = append(r.bad, jobs.FieldError{Pointer: pointer, Detail: detail})
}

// read reads one field.
func (r *reader) read(field string, raw json.RawMessage, name string) (err error) {
	s := &r.spec
	switch field {
	case "name":
		s.Name, err = nameField(raw, name)
	case "cron":
		s.Cron, err = strict.Text(raw)
		s.Cron = strings.TrimSpace(s.Cron)
	case "every":
		s.Every, s.EveryText, err = everyField(raw)
	case "timezone":
		s.Timezone, err = strict.Text(raw)
	case "type":
		s.Type, err = strict.Text(raw)
	case "payload":
		s.Payload = raw
	case "priority":
		var n int
		n, err = strict.Int(raw, int(jobs.HighestPriority), int(jobs.LowestPriority))
		s.Priority = jobs.Priority(n)
	case "tags":
		s.Tags, err = jobs.ReadTags(raw)
	case "retry_count":
		s.RetryCount, err = strict.Int(raw, 0, jobs.MaxRetryCount)
	case "timeout":
		s.Timeout, err = jobs.ReadTimeout(raw)
	case "paused":
		s.Paused, err = strict.Bool(raw)
	case "overlap":
		s.Overlap, err = choice(raw, Skip, Queue)
	case "catch_up":
		s.CatchUp, err = choice(raw, One, None)
	default:
		err = errors.New("is kept by the server and cannot be set; leave it out")
	}
	return err
}

// require checks the rules about several fields.
func (r *reader) require(name string) {
	s := &r.spec
	switch {
	case !r.given["name"] && name == "":
		r.fail("/name", "is required")
	case !r.given["name"] && !jobs.ValidTypeName(name):
		r.fail("/name", badName(name))
	}
	if !r.given["type"] {
		r.fail("/type", "is required")
	} else if s.Type == "" && !r.failed("/type") {
		r.fail("/type", "must be the name of a job type")
	}
	switch {
	case r.given["cron"] && r.given["every"]:
		r.fail("/every", "goes instead of cron, not with it; give one of the two")
	case !r.given["cron"] && !r.given["every"]:
		r.fail("/cron", "is required, or every instead")
	}
	if r.failed("/cron") || r.failed("/every") || r.failed("/timezone") {
		return
	}
	if _, err := NewPlan(s, 0); err != nil {
		var e *jobs.Error
		if errors.As(err, &e) {
			r.bad = append(r.bad, e.Fields...)
		}
	}
}

func (r *reader) failed(pointer string) bool {
	for _, b := range r.bad {
		if b.Pointer == pointer {
			return true
		}
	}
	return false
}

func nameField(raw json.RawMessage, want string) (string, error) {
	name, err := strict.Text(raw)
	switch {
	case err != nil:
		return "", err
	case !jobs.ValidTypeName(name):
		return name, errors.New(badName(name))
	case want != "" && name != want:
		return name, fmt.Errorf("is %q, but this is about %q; make them the same, or leave it out", name, want)
	}
	return name, nil
}

func badName(name string) string {
	const longest = 80
	if len(name) > longest {
		name = name[:longest] + "…"
	}
	return fmt.Sprintf("must be 1 to %d letters, digits, _ and -, not %q", jobs.MaxTypeName, name)
}

func everyField(raw json.RawMessage) (d time.Duration, text string, err error) {
	if raw[0] == '"' {
		if text, err = strict.Text(raw); err == nil {
			d, err = jobs.ParseDuration(text)
		}
	} else {
		var f float64
		if f, err = strconv.ParseFloat(string(raw), 64); err == nil && f >= 0 && f <= MaxEvery.Seconds() {
			d = time.Duration(math.Round(f * float64(time.Second)))
		}
	}
	if err != nil || badEvery(d) {
		return 0, "", fmt.Errorf("must be seconds or a duration like \"90s\" or \"1h30m\", from 1s to 366d, not %s", strict.Describe(raw))
	}
	return d, text, nil
}

// Interval is the given text of Every, or one like 90s; "" if there is none.
func (s *Spec) Interval() string {
	switch {
	case s.Every == 0 || s.EveryText != "":
		return s.EveryText
	case s.Every%time.Second == 0:
		return strconv.FormatInt(int64(s.Every/time.Second), 10) + "s"
	}
	return s.Every.String()
}

// sameTimes says whether two specs have the same times.
func (s *Spec) sameTimes(t *Spec) bool {
	return s.Cron == t.Cron && s.Every == t.Every && s.Timezone == t.Timezone
}

func badEvery(d time.Duration) bool { return d < MinEvery || d > MaxEvery }

func choice[T ~string](raw json.RawMessage, options ...T) (T, error) {
	s, err := strict.Text(raw)
	if err == nil {
		for _, o := range options {
			if T(s) == o {
				return o, nil
			}
		}
	}
	return options[0], fmt.Errorf("must be %q or %q, not %s", options[0], options[1], strict.Describe(raw))
}

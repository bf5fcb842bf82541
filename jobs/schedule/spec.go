package schedule

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
	// CallbackURL is that of all its jobs; "" = none.
	CallbackURL string
}

// Submission is what a job of the schedule is, as far as its type and the server check it.
func (s *Spec) Submission() *jobs.Submission {
	sub := &jobs.Submission{Type: s.Type, Payload: s.Payload}
	if s.CallbackURL != "" {
		sub.Terms = &jobs.Terms{CallbackURL: s.CallbackURL}
	}
	return sub
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
	s := &Spec{
		Name: name, Timezone: "UTC", Priority: jobs.DefaultPriority, RetryCount: -1,
		Overlap: Skip, CatchUp: One,
	}
	if err := jobs.Read("", body, func(v strict.Value) { s.read(v, name) }); err != nil {
		return nil, err
	}
	return s, nil
}

// serverFields are the fields of a schedule that nobody else can set.
var serverFields = []string{"next_run_at", "last_run_at", "last_job_id", "skipped", "source", "problem", "created_by", "created_at", "updated_at"}

// read reads a spec whose name, unless it is "", is given elsewhere.
func (s *Spec) read(v strict.Value, name string) {
	run := jobs.RunFields(&s.Payload, &s.Priority, &s.Tags, &s.RetryCount, &s.Timeout)
	fields := []strict.Field{
		strict.May("name", func(v strict.Value) { s.Name = nameOf(v, name) }),
		strict.May("cron", func(v strict.Value) {
			text, _ := v.Text()
			s.Cron = strings.TrimSpace(text)
		}),
		strict.May("every", s.readEvery),
		strict.May("timezone", func(v strict.Value) { s.Timezone, _ = v.Text() }),
		strict.May("type", func(v strict.Value) { s.Type, _ = v.Text() }),
	}
	fields = append(append(fields, run[:]...),
		strict.May("paused", func(v strict.Value) { s.Paused = v.Bool() }),
		strict.May("overlap", func(v strict.Value) { s.Overlap = choice(v, Skip, Queue) }),
		strict.May("catch_up", func(v strict.Value) { s.CatchUp = choice(v, One, None) }),
		strict.May("callback_url", func(v strict.Value) {
			if text, ok := v.Text(); ok && v.Check(jobs.CheckCallbackURL(text)) {
				s.CallbackURL = text
			}
		}),
	)
	for _, name := range serverFields {
		fields = append(fields, strict.Field{Name: name, Alien: true, Read: func(v strict.Value) {
			if !v.Null() {
				v.Fail("is kept by the server and cannot be set; leave it out")
			}
		}})
	}
	if !v.Object(fields...) {
		return
	}
	if v.Right() || slices.ContainsFunc(fields, func(f strict.Field) bool { return given(v, f.Name) }) {
		s.check(v, name)
	}
}

func given(v strict.Value, field string) bool { return !v.Get(field).Null() }

// check checks the rules about several fields.
func (s *Spec) check(v strict.Value, name string) {
	switch {
	case given(v, "name"):
	case name == "":
		v.At("name").Fail("is required")
	case !jobs.ValidTypeName(name):
		v.At("name").Fail("%s", badName(name))
	}
	if !given(v, "type") {
		v.At("type").Fail("is required")
	} else if s.Type == "" && !v.At("type").Failed() {
		v.At("type").Fail("must be the name of a job type")
	}
	switch cron, every := given(v, "cron"), given(v, "every"); {
	case cron && every:
		v.At("every").Fail("goes instead of cron, not with it; give one of the two")
	case !cron && !every:
		v.At("cron").Fail("is required, or every instead")
	}
	if v.At("cron").Failed() || v.At("every").Failed() || v.At("timezone").Failed() {
		return
	}
	_, err := NewPlan(s, 0)
	var e *jobs.Error
	if errors.As(err, &e) {
		for _, f := range e.Fields {
			v.At(strings.TrimPrefix(f.Pointer, "/")).Fail("%s", f.Detail)
		}
	}
}

func nameOf(v strict.Value, want string) string {
	name, ok := v.Text()
	switch {
	case !ok:
	case !jobs.ValidTypeName(name):
		v.Fail("%s", badName(name))
	case want != "" && name != want:
		v.Fail("is %q, but this is about %q; make them the same, or leave it out", name, want)
	}
	return name
}

func badName(name string) string {
	const longest = 80
	if len(name) > longest {
		name = name[:longest] + "…"
	}
	return fmt.Sprintf("must be 1 to %d letters, digits, _ and -, not %q", jobs.MaxTypeName, name)
}

// readEvery reads an interval.
func (s *Spec) readEvery(v strict.Value) {
	d, err := jobs.ReadSpan(v.Raw, MaxEvery)
	if err != nil || badEvery(d) {
		v.Fail("must be seconds or a duration like \"90s\" or \"1h30m\", from 1s to 366d, not %s", v)
		return
	}
	s.Every = d
	if v.IsText() {
		s.EveryText, _ = v.Text()
	}
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

func choice[T ~string](v strict.Value, options ...T) T {
	text, err := strict.Text(v.Raw)
	if err != nil || !slices.Contains(options, T(text)) {
		v.Fail("must be %q or %q, not %s", options[0], options[1], v)
	}
	return T(text)
}

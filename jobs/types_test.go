package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

func TestBackoffDelay(t *testing.T) {
	const s = time.Second
	tests := []struct {
		name    string
		backoff jobs.Backoff
		want    []time.Duration // after attempt 1, 2, 3 …
	}{
		{name: "default", backoff: jobs.DefaultBackoff(), want: []time.Duration{s, 2 * s, 3 * s, 4 * s}},
		{name: "linear", backoff: jobs.Backoff{Kind: jobs.Linear, Base: 3 * s, Max: 7 * s}, want: []time.Duration{3 * s, 6 * s, 7 * s, 7 * s}},
		{name: "exponential", backoff: jobs.Backoff{Kind: jobs.Exponential, Base: s, Max: 7 * s}, want: []time.Duration{s, 2 * s, 4 * s, 7 * s, 7 * s}},
		{name: "constant", backoff: jobs.Backoff{Kind: jobs.Constant, Base: 2 * s, Max: 7 * s}, want: []time.Duration{2 * s, 2 * s, 2 * s}},
		{name: "constant above its bound", backoff: jobs.Backoff{Kind: jobs.Constant, Base: 9 * s, Max: 7 * s}, want: []time.Duration{7 * s}},
		{name: "no base", backoff: jobs.Backoff{Kind: jobs.Exponential, Max: s}, want: []time.Duration{0, 0, 0}},
		{name: "no bound", backoff: jobs.Backoff{Kind: jobs.Linear, Base: time.Hour}, want: []time.Duration{time.Hour, 2 * time.Hour}},
		{name: "list", backoff: jobs.Backoff{Kind: jobs.ListKind, Delays: []time.Duration{5 * s, s, time.Hour}, Base: s, Max: 5 * s}, want: []time.Duration{5 * s, s, time.Hour, time.Hour}},
		{name: "empty list", backoff: jobs.Backoff{Kind: jobs.ListKind, Base: s}, want: []time.Duration{0, 0}},
		{name: "no kind", backoff: jobs.Backoff{Base: s}, want: []time.Duration{s, 2 * s}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i, want := range tt.want {
				if got := tt.backoff.Delay(i + 1); got != want {
					t.Errorf("after attempt %d: %s, want %s", i+1, got, want)
				}
			}
		})
	}
}

func TestBackoffNeverOverflows(t *testing.T) {
	for _, kind := range []jobs.BackoffKind{jobs.Linear, jobs.Exponential, jobs.Constant} {
		for _, limit := range []time.Duration{0, time.Second, 5 * time.Minute, math.MaxInt64} {
			last := time.Duration(0)
			for _, n := range []int{1, 2, 3, 10, 31, 32, 33, 34, 62, 63, 64, 65, 1001, math.MaxInt32} {
				got := jobs.Backoff{Kind: kind, Base: time.Second, Max: limit}.Delay(n)
				if got < last || limit > 0 && got > limit {
					t.Errorf("%s, at most %s, attempt %d: %s after %s", kind, limit, n, got, last)
				}
				last = got
			}
		}
	}
}

func TestBackoffJitter(t *testing.T) {
	b := jobs.Backoff{Kind: jobs.Constant, Base: time.Second, Max: time.Minute, Jitter: 0.25}
	lowest, highest := time.Hour, time.Duration(0)
	for range 5000 {
		d := b.Delay(1)
		lowest, highest = min(lowest, d), max(highest, d)
	}
	if lowest < 750*time.Millisecond || highest > 1250*time.Millisecond {
		t.Errorf("delays from %s to %s", lowest, highest)
	}
	if lowest > 800*time.Millisecond || highest < 1200*time.Millisecond {
		t.Errorf("5000 delays lie between %s and %s only", lowest, highest)
	}
}

func TestRegistry(t *testing.T) {
	b := &jobs.Type{Name: "b", Handler: jobstest.Nothing}
	a := &jobs.Type{Name: "a", Handler: jobstest.Picky{HandlerFunc: jobstest.Nothing}}
	r := jobs.NewRegistry(b, a)
	if !slices.Equal(r.Names(), []string{"a", "b"}) || r.Lookup("a") != a || r.Lookup("b") != b || r.Lookup("c") != nil {
		t.Errorf("names %v", r.Names())
	}
	tests := []struct {
		sub  jobs.Submission
		want string
	}{
		{sub: jobs.Submission{Type: "b"}},
		{sub: jobs.Submission{Type: "a", Payload: []byte(`{"to":"x"}`)}},
		{sub: jobs.Submission{Type: "a"}, want: "invalid_request /payload/to"},
		{sub: jobs.Submission{Type: "A"}, want: "unknown_type /type"},
		{sub: jobs.Submission{}, want: "unknown_type /type"},
	}
	for _, tt := range tests {
		if got := jobstest.Failure(t, r.Check(&tt.sub)); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.sub.Type, tt.sub.Payload, got, tt.want)
		}
	}
	if err := r.Check(&jobs.Submission{Type: "x"}); !strings.Contains(err.Error(), "known are a, b") {
		t.Errorf("the known types are not named: %v", err)
	}
	for name, types := range map[string][]*jobs.Type{
		"repeated":   {a, {Name: "a", Handler: jobstest.Nothing}},
		"bad name":   {{Name: "a.b", Handler: jobstest.Nothing}},
		"no handler": {{Name: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it is taken")
				}
			}()
			jobs.NewRegistry(types...)
		})
	}
}

func TestRegistryReplace(t *testing.T) {
	t.Parallel()
	a, b := &jobs.Type{Name: "a", Handler: jobstest.Nothing}, &jobs.Type{Name: "b", Handler: jobstest.Nothing}
	r := jobs.NewRegistry(a)
	before := r.Now()
	r.Replace(b)
	r.Replace(b)
	if r.Lookup("a") != nil || r.Lookup("b") != b || !slices.Equal(r.Names(), []string{"b"}) || len(r.Types()) != 1 {
		t.Errorf("after a removal there are %v", r.Names())
	}
	if r.Admitted("a") != a || r.Admitted("b") != b || r.Admitted("c") != nil {
		t.Error("submissions that were checked do not find their types")
	}
	if before.Lookup("a") != a || before.Lookup("b") != nil {
		t.Error("an earlier state has changed")
	}
	next := *a
	r.Replace(&next)
	if r.Admitted("a") != &next || r.Lookup("a") != &next || r.Admitted("b") != b {
		t.Error("a type that is back has its old definition")
	}
}

// TestRegistryInternal has a type that works and is not shown.
func TestRegistryInternal(t *testing.T) {
	hidden := &jobs.Type{Name: "a-own", Handler: jobstest.Nothing, Internal: true}
	r := jobs.NewRegistry(&jobs.Type{Name: "b", Handler: jobstest.Nothing}, hidden)
	if r.Lookup("a-own") != hidden || r.Check(&jobs.Submission{Type: "a-own"}) != nil {
		t.Error("the internal type cannot be used")
	}
	if !slices.Equal(r.Names(), []string{"b"}) || strings.Contains(r.Unknown("x").Error(), "a-own") {
		t.Errorf("the internal type is shown: %v, %v", r.Names(), r.Unknown("x"))
	}
	if all := r.Types(); len(all) != 2 || all[0] != hidden || all[1].Name != "b" {
		t.Errorf("all types are %v", all)
	}
}

func TestValidTypeName(t *testing.T) {
	for name, want := range map[string]bool{
		"email": true, "E-mail_2": true, "0": true, strings.Repeat("x", 64): true,
		"": false, "a b": false, "a.b": false, "a*": false, ">": false, "é": false, "a\n": false, strings.Repeat("x", 65): false,
	} {
		if jobs.ValidTypeName(name) != want {
			t.Errorf("%q: want %v", name, want)
		}
	}
}

func TestLaneNames(t *testing.T) {
	if got := (jobs.Lane{Type: "email", Priority: 3}).String(); got != "email-3" {
		t.Errorf("got %q", got)
	}
}

// schemaOf is a schema for tests.
type schemaOf func(p *jobs.Payload) error

func (s schemaOf) Check(p *jobs.Payload) error { return s(p) }
func (s schemaOf) JSON() json.RawMessage       { return json.RawMessage("{}") }

type lookingAt func(p *jobs.Payload) error

func (f lookingAt) Handle(context.Context, *jobs.Task) (jobs.Result, error) {
	return jobs.Result{}, nil
}
func (f lookingAt) Check(p *jobs.Payload) error { return f(p) }

// TestSchemaFirst asks the schema of a type before its handler, and both see one value.
func TestSchemaFirst(t *testing.T) {
	var seen []any
	look := func(p *jobs.Payload) error {
		v, err := p.Value()
		seen = append(seen, v)
		return err
	}
	typ := &jobs.Type{Handler: lookingAt(look), Schema: schemaOf(look)}
	if err := typ.Check(json.RawMessage(`{"a":12345678901234567890}`)); err != nil {
		t.Fatal(err)
	}
	seen[0].(map[string]any)["mark"] = true
	if v := seen[1].(map[string]any); v["mark"] != true || v["a"] != json.Number("12345678901234567890") {
		t.Errorf("the handler sees %v", v)
	}
	wrong := errors.New("wrong")
	typ.Schema = schemaOf(func(*jobs.Payload) error { return wrong })
	if err := typ.Check(nil); !errors.Is(err, wrong) || len(seen) != 2 {
		t.Errorf("got %v; looked %d times", err, len(seen))
	}
}

// TestNoSchemaNoWork checks payloads of types that have nothing to check.
func TestNoSchemaNoWork(t *testing.T) {
	payload := json.RawMessage(`{"a":[1,2,3]}`)
	plain := &jobs.Type{Handler: jobstest.Nothing}
	if n := testing.AllocsPerRun(100, func() { _ = plain.Check(payload) }); n != 0 {
		t.Errorf("a type without schema and Checker takes %v allocations", n)
	}
	textOnly := &jobs.Type{Handler: lookingAt(func(p *jobs.Payload) error { _ = len(p.JSON); return nil })}
	if n := testing.AllocsPerRun(100, func() { _ = textOnly.Check(payload) }); n > 1 {
		t.Errorf("a handler that reads the text only makes the type take %v allocations", n)
	}
}

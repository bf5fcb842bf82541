package api_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// TestRemoteRequests: what a worker in Go writes is what the door reads.
func TestRemoteRequests(t *testing.T) {
	t.Parallel()
	half := "half"
	tests := []struct {
		name string
		body []byte
		want string
	}{
		{"worker.next", api.AppendAsk(nil, &jobs.Ask{Types: []string{"b", "a"}, Max: 7, Wait: 1500 * time.Millisecond, Worker: "w"}), `next [b a] 7 "w"`},
		{"worker.beat", api.AppendBeat(nil, "w", []string{"A", "B"}), `beat "w" [A B]`},
		{"worker.beat", api.AppendBeat(nil, "", nil), `beat "" []`},
		{"worker.progress", api.AppendProgress(nil, "A", &jobs.Progress{Percent: -1}), `progress A -1 - [] `},
		{
			"worker.progress", api.AppendProgress(nil, "A", &jobs.Progress{Message: &half, Log: []jobs.LogLine{{Level: "warn", Stream: "stderr", Text: "x"}, {Level: "info", Text: "y"}}, Checkpoint: json.RawMessage(`{"row":1}`)}),
			`progress A 0 half [{warn stderr x} {info  y}] {"row":1}`,
		},
		{"worker.done", api.AppendDone(nil, &jobs.Done{Token: "A"}), `done A `},
		{"worker.done", api.AppendDone(nil, &jobs.Done{Token: "A", Result: json.RawMessage(`{"a":"<"}`)}), `done A {"a":"<"}`},
		{"worker.fail", api.AppendFailure(nil, "A", &jobs.Failure{Error: "no luck", Permanent: true, RetryAfter: 1500 * time.Millisecond}), `fail A "no luck" true 1.5s`},
		{"worker.fail", api.AppendFailure(nil, "A", &jobs.Failure{Error: "no luck", Busy: true}), `fail A "no luck" false 0s busy`},
		{"worker.release", api.AppendGiveBack(nil, "A", &jobs.GiveBack{Delay: time.Minute, Reason: "off", Busy: true}), `release A 1m0s "off" busy`},
		{"worker.release", api.AppendGiveBack(nil, "A", &jobs.GiveBack{}), `release A 0s ""`},
	}
	for _, tt := range tests {
		l := &lessor{beats: jobs.Beats{Span: time.Second}, ending: jobs.Ending{Status: jobs.Completed}}
		got, err := (&counter{b: &api.Backend{Leases: l}, body: string(tt.body)}).do(t, tt.name)
		if err != nil || strings.Join(l.calls, "\n") != tt.want {
			t.Errorf("%s %s: called %q, want %q (%s, %v)", tt.name, tt.body, l.calls, tt.want, got, err)
		}
	}
}

// TestRemoteAnswers: what the door answers is what a worker in Go reads.
func TestRemoteAnswers(t *testing.T) {
	t.Parallel()
	j := &jobs.Job{
		ID: jobs.ID{1}, Seq: 9, Type: "thumb", Priority: 3, Status: jobs.Retrying, Attempt: 1, MaxAttempts: 4, StartedAt: 1e18,
		Payload: json.RawMessage(`{"a":1}`), Checkpoint: json.RawMessage(`{"row":7}`),
		Terms: &jobs.Terms{Deadline: 3e18, Inputs: []jobs.Input{{Name: "picture", ID: jobs.ID{2}, File: jobs.Artifact{Name: "p.png", Size: 5}}}},
	}
	beats := jobs.Beats{Span: 2500 * time.Millisecond, Lost: []string{"B"}, Cancelled: map[string]string{"A": "wrong"}}
	end := jobs.Ending{Status: jobs.Retrying, RunAt: 2e18, Repeated: true}
	l := &lessor{beats: beats, ending: end, leases: []jobs.Lease{{Token: "T", Span: 5500 * time.Millisecond, Fence: 1e18, Deadline: 2e18, Attempt: 2, Job: j}}}
	ask := func(name, body string) []byte {
		got, err := (&counter{b: &api.Backend{Leases: l}, body: body}).do(t, name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return []byte(got)
	}
	leases, err := api.ReadLeases(ask("worker.next", `{"types":["thumb"],"wait":0}`))
	if err != nil || len(leases) != 1 {
		t.Fatalf("%d leases, %v", len(leases), err)
	}
	got := leases[0]
	if got.Token != "T" || got.Span != 5500*time.Millisecond || got.Fence != 1e18 || got.Deadline != 2e18 || got.Attempt != 2 {
		t.Errorf("the lease is %+v", got)
	}
	if g := got.Job; g.ID != j.ID || g.Type != "thumb" || string(g.Payload) != `{"a":1}` || string(g.Checkpoint) != `{"row":7}` ||
		g.Terms == nil || g.Terms.Deadline != 3e18 || !reflect.DeepEqual(g.Inputs(), j.Terms.Inputs) {
		t.Errorf("its job is %+v, its terms %+v", g, g.Terms)
	}
	if b, err := api.ReadBeats(ask("worker.beat", `{"leases":["A"]}`)); err != nil || !reflect.DeepEqual(b, beats) {
		t.Errorf("the beat is %+v, %v", b, err)
	}
	if e, err := api.ReadEnding(ask("worker.done", `{"lease":"A"}`)); err != nil || e != end {
		t.Errorf("the end is %+v, %v", e, err)
	}
	many := api.AppendManyDone(nil, [][]byte{api.AppendDone(nil, &jobs.Done{Token: "A"}), api.AppendDone(nil, &jobs.Done{Token: "B", Result: []byte("7")})})
	if taken, err := api.ReadTaken(ask("worker.done_many", string(many))); err != nil || !slices.Equal(taken, []bool{true, true}) {
		t.Errorf("of the ends %s %v are taken, %v", many, taken, err)
	}
	if taken, err := api.ReadTaken([]byte(`{"done":[{"lease":"A","problem":{"code":"lease_lost"}},{"lease":"B","status":"completed"}]}`)); err != nil || !slices.Equal(taken, []bool{false, true}) {
		t.Errorf("of an end and a problem %v are taken, %v", taken, err)
	}
	for _, e := range []*jobs.Error{
		{Kind: jobs.Duplicate, Detail: "there is one", JobID: jobs.ID{3}},
		{Kind: jobs.InvalidRequest, Detail: "no", Fields: []jobs.FieldError{{Pointer: "/a", Detail: "b"}}},
		{Kind: jobs.LeaseLost, Detail: "lost", State: &jobs.LeaseState{Status: jobs.Cancelled, Attempt: 2, Error: "x"}},
	} {
		if got := api.ReadProblem(api.HTTPStatus(e), api.Problem(e)); !reflect.DeepEqual(got, e) {
			t.Errorf("the problem %+v is read as %+v", e, got)
		}
	}
	for status, want := range map[int]jobs.ErrorKind{503: jobs.Unavailable, 429: jobs.TooMany, 404: jobs.InvalidRequest, 500: jobs.Internal} {
		if got := api.ReadProblem(status, []byte("<html>")); got.Kind != want || !strings.Contains(got.Detail, "<html>") {
			t.Errorf("%d is %+v", status, got)
		}
	}
}

// FuzzRemoteAnswers: no answer makes a worker panic. One that is no answer is an error.
func FuzzRemoteAnswers(f *testing.F) {
	f.Add([]byte(`{"leases":[{"lease":"A","lease_seconds":30,"fence":1,"deadline":"2024-01-01T00:00:00Z","job":{"id":"01000000-0000-0000-0000-000000000000","seq":1,"type":"a","priority":3,"status":"processing"}}]}`))
	f.Add([]byte(`{"leases":[{"job":null}]}`))
	f.Add([]byte(`{"lease_seconds":1e300,"lost":["a"],"cancel":{"b":"c"}}`))
	f.Add([]byte(`{"status":"retrying","run_at":"2024-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"code":"lease_lost","job":{"status":"x"},"errors":[{}]}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		leases, err := api.ReadLeases(answer)
		for _, l := range leases {
			if err != nil || l.Token == "" || l.Job == nil || l.Span <= 0 {
				t.Errorf("%s has the lease %+v, %v", answer, l, err)
			}
		}
		_, _ = api.ReadBeats(answer)
		if e, err := api.ReadEnding(answer); err == nil && e.Status == 0 {
			t.Errorf("%s ends as nothing", answer)
		}
		var e *jobs.Error
		if !errors.As(api.ReadProblem(503, answer), &e) || e.Kind == "" {
			t.Errorf("%s is no problem", answer)
		}
	})
}

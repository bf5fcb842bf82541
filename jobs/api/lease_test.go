package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/api"
)

// counter is a request at a door without a network.
type counter struct {
	b      *api.Backend
	lease  string // in the path
	query  url.Values
	body   string
	waited time.Duration
	gone   bool
	closed error // why no more jobs are given out
}

func (d *counter) Backend() *api.Backend { return d.b }
func (d *counter) Caller() api.Caller {
	return api.Caller{Principal: &access.Principal{Name: "test", Scopes: []access.Scope{access.Admin}}}
}
func (d *counter) Admits() error              { return d.closed }
func (d *counter) Query() (url.Values, error) { return d.query, nil }
func (d *counter) Upload() (io.Reader, error) { return strings.NewReader(d.body), nil }
func (d *counter) Body() ([]byte, error)      { return []byte(d.body), nil }
func (d *counter) Header(string) []string     { return nil }
func (d *counter) Patience() time.Duration    { return 0 }
func (d *counter) Gone() bool                 { return d.gone }
func (d *counter) Param(name string) (p string) {
	if name == "lease" {
		p = d.lease
	}
	return p
}

func (d *counter) Wait(ctx context.Context, w time.Duration) (context.Context, context.CancelFunc, error) {
	d.waited = w
	ctx, cancel := context.WithTimeout(ctx, w)
	return ctx, cancel, nil
}

// lessor is [jobs.Leases] that writes down its calls.
type lessor struct {
	calls  []string
	leases []jobs.Lease
	beats  jobs.Beats
	ending jobs.Ending
	next   func(ctx context.Context, a *jobs.Ask)
}

func (l *lessor) called(format string, args ...any) {
	l.calls = append(l.calls, fmt.Sprintf(format, args...))
}

func (l *lessor) Next(ctx context.Context, a *jobs.Ask) ([]jobs.Lease, error) {
	l.called("next %v %d %q", a.Types, a.Max, a.Worker)
	if l.next != nil {
		l.next(ctx, a)
	}
	return l.leases, nil
}

func (l *lessor) Beat(_ context.Context, worker string, tokens []string) (jobs.Beats, error) {
	l.called("beat %q %v", worker, tokens)
	return l.beats, nil
}

func (l *lessor) Progress(_ context.Context, token string, p *jobs.Progress) (jobs.Beats, error) {
	message := "-"
	if p.Message != nil {
		message = *p.Message
	}
	l.called("progress %s %d %s %v %s", token, p.Percent, message, p.Log, p.Checkpoint)
	return l.beats, nil
}

func (l *lessor) Done(_ context.Context, of []jobs.Done) (all []jobs.Ending) {
	for _, d := range of {
		l.called("done %s %s", d.Token, d.Result)
		all = append(all, l.ending)
	}
	return all
}

func (l *lessor) Fail(_ context.Context, token string, f *jobs.Failure) jobs.Ending {
	l.called("fail %s %q %v %s%s", token, f.Error, f.Permanent, f.RetryAfter, map[bool]string{true: " busy"}[f.Busy])
	return l.ending
}

func (l *lessor) Release(_ context.Context, token string, g *jobs.GiveBack) jobs.Ending {
	l.called("release %s %s %q%s", token, g.Delay, g.Reason, map[bool]string{true: " busy"}[g.Busy])
	return l.ending
}

func (l *lessor) Attach(context.Context, string, string, string, io.Reader) (*jobs.Artifact, error) {
	return nil, nil
}
func (l *lessor) Job(context.Context, string) (*jobs.Job, error) { return nil, nil }
func (l *lessor) AtWork() []jobs.Worker {
	return []jobs.Worker{
		{Name: "host", Node: "host", Local: true},
		{Name: "w-1", Node: "host", Types: []string{"thumb"}, Seen: 1e18, Work: []jobs.AtWork{{ID: jobs.ID{1}, Type: "thumb", Since: 2e18, Progress: 45}}},
	}
}

// do sends a request to an operation: over REST if it names a lease in the path.
func (d *counter) do(t *testing.T, name string) (string, error) {
	t.Helper()
	for _, op := range api.Operations() {
		if op.Name != name {
			continue
		}
		h := op.NATS
		if d.lease != "" || h == nil {
			h = op.REST
		}
		a, err := h(t.Context(), d)
		if err != nil {
			return "", err
		}
		return string(a.JSON.AppendJSON(nil)), nil
	}
	t.Fatalf("there is no operation %s", name)
	return "", nil
}

func TestReports(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", jobs.MaxMessage+1)
	tests := []struct {
		name, lease, body string
		call, answer      string
	}{
		{"worker.next", "", `{"types":["b","a"],"max":7,"worker":"w-17@host#2","wait":0}`, `next [b a] 7 "w-17@host#2"`, `{"leases":[]}`},
		{"worker.next", "", `{"types":"a","wait":"0s"}`, `next [a] 1 ""`, `{"leases":[]}`},
		{"worker.beat", "", `{"worker":"w","leases":["A","B"]}`, `beat "w" [A B]`, `{"lease_seconds":30,"lost":["B"],"cancel":{"A":"wrong input"}}`},
		{"worker.beat", "", `{"leases":[]}`, `beat "" []`, `{"lease_seconds":30,"lost":["B"],"cancel":{"A":"wrong input"}}`},
		{"worker.progress", "A", ``, `progress A -1 - [] `, `{"lease_seconds":30,"lost":["B"],"cancel":{"A":"wrong input"}}`},
		{
			"worker.progress", "A", `{"percent":45,"message":"half","log":[{"level":"warn","text":"x","stream":"stderr"},"y"],"checkpoint":{"row":1}}`,
			`progress A 45 half [{warn stderr x} {info  y}] {"row":1}`, `{"lease_seconds":30,"lost":["B"],"cancel":{"A":"wrong input"}}`,
		},
		{"worker.progress", "", `{"lease":"A","message":"` + long + `"}`, `progress A -1 ` + long[1:] + `… [] `, ``},
		{"worker.done", "A", ``, `done A `, `{"status":"completed","repeated":true}`},
		{"worker.done", "A", `{"result":{"a":1}}`, `done A {"a":1}`, `{"status":"completed","repeated":true}`},
		{"worker.done", "", `{"lease":"A","result":null}`, `done A `, `{"status":"completed","repeated":true}`},
		{"worker.done_many", "", `{"done":[{"lease":"A","result":1}]}`, `done A 1`, `{"done":[{"lease":"A","status":"completed","repeated":true}]}`},
		{"worker.fail", "A", `{"error":"no luck","permanent":true,"retry_after":"30s"}`, `fail A "no luck" true 30s`, `{"status":"completed","repeated":true}`},
		{"worker.release", "A", `{"delay":60,"reason":"shutting down"}`, `release A 1m0s "shutting down"`, `{"status":"completed","repeated":true}`},
		{"worker.fail", "A", `{"error":"no luck","busy":true}`, `fail A "no luck" false 0s busy`, ``},
		{"worker.release", "A", `{"delay":60,"reason":"answered 429","busy":true}`, `release A 1m0s "answered 429" busy`, ``},
		{"worker.release", "", `{"lease":"A"}`, `release A 0s ""`, `{"status":"completed","repeated":true}`},
		{
			"worker.list", "", ``, ``, `{"workers":[{"worker":"host","node":"host","local":true,"types":[],"leases":[]},` +
				`{"worker":"w-1","node":"host","types":["thumb"],"last_seen":"2001-09-09T01:46:40Z","leases":[{"job":"01000000-0000-0000-0000-000000000000","type":"thumb","since":"2033-05-18T03:33:20Z","progress":45}]}]}`,
		},
	}
	for _, tt := range tests {
		l := &lessor{
			beats:  jobs.Beats{Span: 30 * time.Second, Lost: []string{"B"}, Cancelled: map[string]string{"A": "wrong input"}},
			ending: jobs.Ending{Status: jobs.Completed, Repeated: true},
		}
		got, err := (&counter{b: &api.Backend{Leases: l}, lease: tt.lease, body: tt.body}).do(t, tt.name)
		if err != nil || strings.Join(l.calls, "; ") != tt.call || tt.answer != "" && got != tt.answer {
			t.Errorf("%s %s\n called %q (%v), want %q\n answer %s\n want   %s", tt.name, tt.body, l.calls, err, tt.call, got, tt.answer)
		}
	}
}

// TestReportMistakes sends what no operation of leases can use. Nothing of it reaches them.
func TestReportMistakes(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, lease, body, want string }{
		{"worker.next", "", ``, "malformed_json"},
		{"worker.next", "", `{}`, "invalid_request /types: is required"},
		{"worker.next", "", `{"types":[]}`, "invalid_request /types: must name 1 to 100 types"},
		{"worker.next", "", `{"types":["a"],"max":101}`, "invalid_request /max: must be a whole number from 1 to 100, not 101"},
		{"worker.next", "", `{"types":["a"],"max":0}`, "invalid_request /max: must be a whole number from 1 to 100, not 0"},
		{"worker.next", "", `{"types":["a"],"wait":"61s"}`, `invalid_request /wait: must be seconds or a duration like "30s", at most 60 seconds, not "61s"`},
		{"worker.next", "", `{"types":["a"],"worker":"a b"}`, `invalid_request /worker: must be 1 to 64 letters, digits, _, -, @ or #, not "a b"`},
		{"worker.next", "", `{"types":["a"],"worker":""}`, `invalid_request /worker: must be 1 to 64 letters, digits, _, -, @ or #, not ""`},
		{"worker.next", "", `{"types":["a"],"worker":"` + strings.Repeat("w", 65) + `"}`, `invalid_request /worker: must be 1 to 64`},
		{"worker.next", "", `{"types":["a"],"version":"1"}`, "invalid_request /version: is not a known field"},
		{"worker.beat", "", `{}`, "invalid_request /leases: is required"},
		{"worker.beat", "", `{"leases":["` + strings.Repeat(`A","`, 1000) + `A"]}`, "invalid_request /leases: has 1001 leases"},
		{"worker.progress", "", `{}`, "invalid_request /lease: is required"},
		{"worker.progress", "A", `{"lease":"B"}`, "invalid_request /lease: is not a known field"},
		{"worker.progress", "A", `{"percent":101,"log":["a",{"level":"loud"}]}`, "invalid_request /percent: must be a whole number from 0 to 100, not 101; /log/1/level: must be one of debug, info, warn, error, not \"loud\"; /log/1/text: is required"},
		{"worker.progress", "A", `{"log":"a"}`, "invalid_request /log: must be a list"},
		{"worker.progress", "A", `{"log":[` + strings.Repeat(`"a",`, 1000) + `"a"]}`, "invalid_request /log: has 1001 lines"},
		{"worker.progress", "A", `{"checkpoint":"` + strings.Repeat("a", jobs.MaxCheckpoint) + `"}`, "invalid_request /checkpoint: has 262146 bytes"},
		{"worker.done", "A", `{"result":"` + strings.Repeat("a", jobs.MaxResult) + `"}`, "invalid_request /result: has 262146 bytes of JSON"},
		{"worker.done", "A", `nope`, "malformed_json"},
		{"worker.done_many", "", `{"done":[]}`, "invalid_request /done: must have 1 to 100 entries"},
		{"worker.done_many", "", `{"done":{}}`, "invalid_request /done: must be a list"},
		{"worker.done_many", "", `{"done":[{"result":1}]}`, "invalid_request /done/0/lease: is required"},
		{"worker.fail", "A", ``, "invalid_request /error: is required"},
		{"worker.fail", "A", `{"error":1,"retry_after":-1}`, "invalid_request /error: must be a string, not 1; /retry_after: must be seconds"},
		{"worker.release", "A", `{"delay":"20y"}`, "invalid_request /delay: must be seconds"},
	}
	for _, tt := range tests {
		l := &lessor{}
		_, err := (&counter{b: &api.Backend{Leases: l}, lease: tt.lease, body: tt.body}).do(t, tt.name)
		e, _ := jobs.AsError(err)
		if err == nil {
			t.Errorf("%s %.80s is accepted", tt.name, tt.body)
			continue
		}
		var fields []string
		for _, f := range e.Fields {
			fields = append(fields, f.Pointer+": "+f.Detail)
		}
		if got := string(e.Kind) + " " + strings.Join(fields, "; "); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s %.80s\n got  %s\n want %s", tt.name, tt.body, got, tt.want)
		}
		if len(l.calls) > 0 {
			t.Errorf("%s %.80s is refused, but did %v", tt.name, tt.body, l.calls)
		}
	}
	query := &counter{b: &api.Backend{Leases: &lessor{}}, lease: "A", query: url.Values{"x": {"1"}}}
	if _, err := query.do(t, "worker.done"); err == nil || !strings.Contains(err.Error(), "query/x") {
		t.Errorf("a query gives %v", err)
	}
	closed := &counter{b: &api.Backend{Leases: &lessor{}}, body: `{"types":["a"]}`, closed: &jobs.Error{Kind: jobs.ShuttingDown}}
	_, err := closed.do(t, "worker.next")
	if e, _ := jobs.AsError(err); err == nil || e.Kind != jobs.ShuttingDown {
		t.Errorf("a server that stops answers %v", err)
	}
}

// TestNextWaits has the wait of an ask, and the client that goes away meanwhile.
func TestNextWaits(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]time.Duration{`{"types":["a"]}`: 30 * time.Second, `{"types":["a"],"wait":"1m"}`: time.Minute, `{"types":["a"],"wait":0}`: 0} {
		d := &counter{body: body}
		asked := false
		d.b = &api.Backend{Leases: &lessor{next: func(_ context.Context, a *jobs.Ask) {
			asked = true
			if a.Wait != want || want > 0 && d.waited <= want || want == 0 && d.waited != 0 {
				t.Errorf("%s: the ask waits %s, the door %s", body, a.Wait, d.waited)
			}
			d.gone = true
			if !a.Gone() {
				t.Error("a client that is gone seems to be there")
			}
		}}}
		if _, err := d.do(t, "worker.next"); err != nil || !asked {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// TestLeased has the form of a lease, with and without room for all of it.
func TestLeased(t *testing.T) {
	t.Parallel()
	j := &jobs.Job{
		ID: jobs.ID{1}, Type: "thumb", Priority: 3, Status: jobs.Retrying, DueAt: 5, Message: "off", Attempt: 1, MaxAttempts: 4,
		Payload: json.RawMessage(`{"a":1}`), Checkpoint: json.RawMessage(`{"row":7}`),
		Errors: []jobs.AttemptError{{Attempt: 1, Error: strings.Repeat("e", 400)}},
	}
	l := &lessor{leases: []jobs.Lease{{Token: "T1", Span: 30 * time.Second, Fence: 1e18, Deadline: 2e18, Attempt: 2, Job: j}, {Token: "T2", Span: 5500 * time.Millisecond, Deadline: 2e18, Job: j}}}
	d := &counter{b: &api.Backend{Leases: l}, body: `{"types":["thumb"],"max":2,"wait":0}`}
	got, err := d.do(t, "worker.next")
	if err != nil {
		t.Fatal(err)
	}
	var a struct {
		Leases []struct {
			Lease      string
			Seconds    float64 `json:"lease_seconds"`
			Fence      int64
			Deadline   time.Time
			Checkpoint json.RawMessage
			Job        struct {
				Status, Message string
				Attempt         int
				Payload         json.RawMessage
				Errors          []any
			}
		}
	}
	if err := json.Unmarshal([]byte(got), &a); err != nil || len(a.Leases) != 2 {
		t.Fatalf("%s: %v", got, err)
	}
	one := a.Leases[0]
	if one.Lease != "T1" || one.Seconds != 30 || one.Fence != 1e18 || one.Deadline.Unix() != 2e9 || string(one.Checkpoint) != `{"row":7}` || a.Leases[1].Seconds != 5.5 {
		t.Errorf("the lease is %s", got)
	}
	if one.Job.Status != "processing" || one.Job.Attempt != 2 || one.Job.Message != "" || string(one.Job.Payload) != `{"a":1}` || len(one.Job.Errors) != 1 {
		t.Errorf("its job is %s", got)
	}
	if j.Status != jobs.Retrying {
		t.Error("the shared record was changed")
	}
	for _, op := range api.Operations() {
		if op.Name == "worker.next" {
			answer, err := op.NATS(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			out, omitted := answer.JSON.(api.Fitting).AppendFitting(nil, 1500)
			if len(out) > 1500 || omitted != "errors" || !strings.Contains(string(out), `"payload":{"a":1}`) {
				t.Errorf("with little room it is %s without %s", out, omitted)
			}
		}
	}
}

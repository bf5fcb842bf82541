package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/jobstest"
)

type (
	picture struct {
		URL    string    `json:"url"`
		Size   *size     `json:"size,omitempty"`
		Layers []layer   `json:"layers"`
		At     time.Time `json:"at"`
		More   map[string]int
		named
	}
	size  struct{ Width, Height uint8 }
	layer struct {
		Name string `json:"name"`
		Size size   `json:"size"`
	}
	named struct {
		Title string `json:"title"`
	}
	thumb struct {
		Path string `json:"path"`
	}
)

func (p *picture) Validate() error {
	switch p.URL {
	case "bad":
		return jobs.Invalid("/url", "is no address")
	case "worse":
		return errors.New("does not go together")
	}
	return nil
}

// registered is a registry with one type that does as f says.
func registered[In, Out any](d *jobs.Definition[In, Out], f func(context.Context, *jobs.Task, In) (Out, error)) *jobs.Registry {
	r := jobs.NewRegistry()
	d.Handle(r, f)
	return r
}

func draw(_ context.Context, _ *jobs.Task, in picture) (thumb, error) {
	return thumb{in.URL + ".small"}, nil
}

// TestDefinitionChecks gives a type payloads that fit and do not fit. The pointers name
// what is wrong, and nothing else.
func TestDefinitionChecks(t *testing.T) {
	t.Parallel()
	strictly, leniently := jobs.Define[picture, thumb]("strict"), jobs.Define[picture, thumb]("lenient", jobs.Lenient())
	r := registered(strictly, draw)
	leniently.Remote(r) // a remote type checks as well
	deep := strings.Repeat(`{"a":`, 500) + "1" + strings.Repeat("}", 500)
	tests := []struct{ payload, want, lenient string }{
		{payload: ``},
		{payload: `null`},
		{payload: `{}`},
		{payload: ` {"url":"x","size":{"Width":1},"layers":[{"name":"a"},null],"at":"2030-01-01T00:00:00Z","More":{"a":1},"title":"t"} `},
		{payload: `{"URL":"x"}`}, // encoding/json does not mind
		{payload: `[]`, want: "/payload", lenient: "/payload"},
		{payload: `"text"`, want: "/payload", lenient: "/payload"},
		{payload: `{"urll":"x"}`, want: "/payload/urll"},
		{payload: `{"urll":null}`, want: "/payload/urll"},
		{payload: `{"a/b~c":1}`, want: "/payload/a~1b~0c"},
		{payload: `{"url":1}`, want: "/payload/url", lenient: "/payload/url"},
		{payload: `{"urll":"x","url":1,"titel":{}}`, want: "/payload/urll /payload/url /payload/titel", lenient: "/payload/url"},
		{payload: `{"size":{"Width":256}}`, want: "/payload/size/Width", lenient: "/payload/size/Width"},
		{payload: `{"size":{"Width":1,"Depth":1}}`, want: "/payload/size/Depth"},
		{payload: `{"size":[]}`, want: "/payload/size", lenient: "/payload/size"},
		{payload: `{"layers":[{"name":"a"},{"name":"b","size":{"Width":true,"Deep":2}}]}`, want: "/payload/layers/1/size/Width /payload/layers/1/size/Deep", lenient: "/payload/layers/1/size/Width"},
		{payload: `{"at":"tomorrow"}`, want: "/payload/at", lenient: "/payload/at"},
		{payload: `{"More":{"a":"b","c":1.5}}`, want: "/payload/More/a /payload/More/c", lenient: "/payload/More/a /payload/More/c"},
		{payload: `{"url":"bad"}`, want: "/payload/url", lenient: "/payload/url"},
		{payload: `{"url":"worse"}`, want: "/payload", lenient: "/payload"},
		{payload: `{"More":` + deep + `}`, want: "/payload/More/a", lenient: "/payload/More/a"},
		{payload: `{"` + strings.Repeat("x", 5000) + `":1}`, want: "/payload/" + strings.Repeat("x", 991) + "…"},
		{payload: `{"url":`, want: "/payload", lenient: "/payload"},
		{payload: `{} {}`, want: "/payload", lenient: "/payload"},
	}
	for _, tt := range tests {
		for typ, want := range map[string]string{"strict": tt.want, "lenient": tt.lenient} {
			if want != "" {
				want = "invalid_request " + want
			}
			got := jobstest.Failure(t, r.Check(&jobs.Submission{Type: typ, Payload: json.RawMessage(tt.payload)}))
			if got != want {
				t.Errorf("%s %.200s: got %q, want %q", typ, tt.payload, got, want)
			}
		}
	}
}

// tries counts how often its value is read.
type tries struct{}

var numTries atomic.Int64

func (*tries) UnmarshalJSON(b []byte) error {
	if numTries.Add(1); len(b) > 2 {
		return errors.New("is not empty")
	}
	return nil
}

// TestDefinitionSearchIsBounded gives a type a large payload in which a search could read
// the same bytes thousands of times.
func TestDefinitionSearchIsBounded(t *testing.T) {
	t.Parallel()
	type in map[string]map[string]tries
	r := registered(jobs.Define[in, struct{}]("x"), func(context.Context, *jobs.Task, in) (struct{}, error) { return struct{}{}, nil })
	const members = 20_000
	var all strings.Builder
	for i := range members {
		fmt.Fprintf(&all, `"m%d":{},`, i)
	}
	payload := `{"` + strings.Repeat("n", 400_000) + `":{` + all.String() + `"last":{"a":1}}}`
	err := r.Check(&jobs.Submission{Type: "x", Payload: json.RawMessage(payload)})
	if got := jobstest.Failure(t, err); !strings.HasPrefix(got, "invalid_request /payload/nnn") {
		t.Errorf("got %.100q", got)
	}
	if n := numTries.Load(); n > 3*members {
		t.Errorf("%d members were read %d times", members, n)
	}
}

// TestDefinitionOptions makes submissions with every option, and reads them as a door does.
func TestDefinitionOptions(t *testing.T) {
	t.Parallel()
	d := jobs.Define[thumb, struct{}]("thumb", jobs.Retries(7), jobs.Timeout(time.Hour), jobs.MaxWorkers(2), jobs.ConcurrencyPerKey(3),
		jobs.Grace(time.Minute), jobs.LeaseTime(time.Minute), jobs.Description("for tests"), jobs.Needs("manage"),
		jobs.Takes(jobs.InputRule{Name: "a"}), jobs.Backoff{Kind: jobs.Constant, Base: time.Second}, jobs.Rate{Count: 5, Per: time.Second})
	r := jobs.NewRegistry()
	d.Remote(r)
	typ := r.Lookup("thumb")
	if typ.RetryCount != 7 || typ.Timeout != time.Hour || typ.MaxWorkers != 2 || typ.ConcurrencyPerKey != 3 || typ.Grace != time.Minute || typ.Lease != time.Minute ||
		typ.Description != "for tests" || typ.Needs != "manage" || len(typ.Inputs) != 1 || typ.Backoff.Kind != jobs.Constant || typ.Rate.Count != 5 || !typ.Remote {
		t.Errorf("the type is %+v", typ)
	}
	at := time.Date(2035, 1, 2, 3, 4, 5, 6, time.UTC)
	id, of := jobs.NewID(), jobs.NewID()
	for want, options := range map[string][]jobs.SubmitOption{
		`{"type":"thumb","payload":{"path":"p"},"priority":3}`: nil,
		`{"type":"thumb","payload":{"path":"p"},"priority":1,"retry_count":0,"tags":["a","b"],"timeout":90}`: {
			jobs.Priority(1), jobs.Retries(0), jobs.Timeout(90 * time.Second), jobs.Tags("a"), jobs.Tags("b"),
		},
		`{"type":"thumb","payload":{"path":"p"},"priority":3,"delay":1.5,"ttl":60,"deadline":3600,"unique_key":"u","concurrency_key":"c","callback_url":"https://x.test/"}`: {
			jobs.Delay(1500 * time.Millisecond), jobs.TTL(time.Minute), jobs.DeadlineIn(time.Hour), jobs.Unique("u"), jobs.ConcurrencyKey("c"), jobs.CallbackURL("https://x.test/"),
		},
		`{"type":"thumb","payload":{"path":"p"},"priority":3,"run_at":"2035-01-02T03:04:05.000000006Z","expires_at":"2035-01-02T04:04:05.000000006Z","deadline":"2035-01-02T05:04:05.000000006Z"}`: {
			jobs.RunAt(at), jobs.ExpiresAt(at.Add(time.Hour)), jobs.DeadlineAt(at.Add(2 * time.Hour)),
		},
		`{"type":"thumb","payload":{"path":"p"},"priority":3,"inputs":{"a":"` + id.String() + `","b":{"job":"` + of.String() + `","artifact":"x.csv"},"c":{"job":"` + of.String() + `"}}}`: {
			jobs.WithInput(jobs.Input{Name: "a", ID: id}), jobs.WithInput(jobs.Input{Name: "b", Job: of, File: jobs.Artifact{Name: "x.csv"}}), jobs.WithInput(jobs.Input{Name: "c", Job: of}),
		},
	} {
		c := &keeper{}
		if _, err := d.Submit(context.Background(), c, thumb{"p"}, options...); err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(c.got)
		if err != nil || string(got) != want {
			t.Errorf("got  %s, %v\nwant %s", got, err, want)
		}
		read, err := api.ParseSubmission(got)
		if err != nil {
			t.Errorf("a door refuses %s: %v", got, err)
			continue
		}
		admitted, err := c.got.Admit("", jobs.Now())
		if err != nil {
			t.Errorf("%s is refused: %v", got, err)
			continue
		}
		for _, s := range []*jobs.Submission{read, admitted} {
			if s.Terms != nil { // moments that are given as spans differ by the time between the two
				for _, m := range []*jobs.Time{&s.Terms.RunAt, &s.Terms.ExpiresAt, &s.Terms.Deadline} {
					*m = jobs.TimeOf(m.Std().Round(time.Hour))
				}
			}
		}
		a, b := fmt.Sprintf("%+v %+v", read.Message().Terms, read.Tags), fmt.Sprintf("%+v %+v", admitted.Message().Terms, admitted.Tags)
		if a != b || read.Timeout != admitted.Timeout || read.RetryCount != admitted.RetryCount || read.Priority != admitted.Priority {
			t.Errorf("%s\nread by a door %s\nadmitted       %s", got, a, b)
		}
	}
}

// keeper is a client that keeps a submission.
type keeper struct {
	got   *jobs.Submission
	ended *jobs.Job
}

func (k *keeper) Submit(_ context.Context, s *jobs.Submission) (*jobs.Job, error) {
	k.got = s
	return &jobs.Job{}, nil
}

func (k *keeper) Wait(context.Context, jobs.ID) (*jobs.Job, error) { return k.ended, nil }

// TestAdmitRefuses admits submissions with values that no door accepts.
func TestAdmitRefuses(t *testing.T) {
	t.Parallel()
	d := jobs.Define[thumb, struct{}]("thumb")
	past := time.Now().Add(-time.Minute)
	for want, options := range map[string][]jobs.SubmitOption{
		"/priority":              {jobs.Priority(6)},
		"/retry_count":           {jobs.Retries(1001)},
		"/timeout":               {jobs.Timeout(0)},
		"/tags":                  {jobs.Tags("a,b")},
		"/idempotency_key":       {jobs.Idempotency(" x")},
		"/unique_key":            {jobs.Unique(" x")},
		"/concurrency_key":       {jobs.ConcurrencyKey(strings.Repeat("x", 257))},
		"/callback_url":          {jobs.CallbackURL("ftp://x")},
		"/delay":                 {jobs.Delay(-1)},
		"/delay /ttl /deadline":  {jobs.Delay(jobs.MaxDelay + 1), jobs.TTL(-1), jobs.DeadlineIn(-1)},
		"/delay /expires_at":     {jobs.RunAt(past), jobs.Delay(time.Hour), jobs.ExpiresAt(time.Now().Add(time.Minute))},
		"/expires_at /deadline":  {jobs.ExpiresAt(past), jobs.DeadlineAt(past)},
		"/ttl":                   {jobs.TTL(time.Minute), jobs.ExpiresAt(time.Now().Add(time.Hour))},
		"/priority /unique_key":  {jobs.Priority(0), jobs.Unique("a\n")},
		"/deadline":              {jobs.Delay(time.Hour), jobs.DeadlineIn(time.Minute)},
		"/retry_count /priority": nil,
	} {
		c := &keeper{}
		if options == nil {
			c.got = &jobs.Submission{Type: "thumb", RetryCount: -2}
			want = "/priority /retry_count"
		} else if _, err := d.Submit(context.Background(), c, thumb{}, options...); err != nil {
			t.Fatal(err)
		}
		_, err := c.got.Admit("", jobs.Now())
		if got := jobstest.Failure(t, err); got != "invalid_request "+want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for name, define := range map[string]func(){
		"a bad name":   func() { jobs.Define[thumb, thumb]("a.b") },
		"retries":      func() { jobs.Define[thumb, thumb]("a", jobs.Retries(-1)) },
		"no timeout":   func() { jobs.Define[thumb, thumb]("a", jobs.Timeout(0)) },
		"a lease":      func() { jobs.Define[thumb, thumb]("a", jobs.LeaseTime(time.Second)) },
		"bounds":       func() { jobs.Define[thumb, thumb]("a", jobs.MaxWorkers(-1)) },
		"an input":     func() { jobs.Define[thumb, thumb]("a", jobs.Takes(jobs.InputRule{Name: "a b"})) },
		"an empty one": func() { jobs.Define[thumb, thumb]("") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it is taken")
				}
			}()
			define()
		})
	}
}

// TestWaitEnds waits for jobs that end in every way.
func TestWaitEnds(t *testing.T) {
	t.Parallel()
	d := jobs.Define[thumb, thumb]("thumb")
	id, other := jobs.NewID(), jobs.Define[thumb, thumb]("other")
	stopped, stop := context.WithCancel(context.Background())
	stop()
	for _, tt := range []struct {
		job  *jobs.Job
		kind jobs.EndKind
		is   error
		says string
	}{
		{job: &jobs.Job{Status: jobs.Completed, Result: json.RawMessage(`{"path":"p","new":1}`)}},
		{job: &jobs.Job{Status: jobs.Completed, Result: json.RawMessage(`{"path":1}`)}, says: "is not of its type"},
		{job: &jobs.Job{Status: jobs.Failed, Error: "boom", Attempt: 4}, kind: jobs.EndFailed, says: "failed after 4 attempts: boom"},
		{job: &jobs.Job{Status: jobs.Failed, Error: "gone", Permanent: true}, kind: jobs.EndPermanent, says: "gone"},
		{job: &jobs.Job{Status: jobs.Failed, Error: jobs.DeadlineReason + " at 8"}, kind: jobs.EndDeadline, is: jobs.ErrDeadline},
		{job: &jobs.Job{Status: jobs.Cancelled, Error: "by hand"}, kind: jobs.EndCancelled, is: jobs.ErrCancelled},
		{job: &jobs.Job{Status: jobs.Cancelled, Error: jobs.ExpiredReason + ": late"}, kind: jobs.EndExpired},
		{job: &jobs.Job{Status: jobs.Processing}, says: "it is processing"},
		{says: "there is no job"},
	} {
		if tt.job != nil {
			tt.job.ID, tt.job.Type = id, "thumb"
		}
		out, err := d.Wait(context.Background(), &keeper{ended: tt.job}, id)
		var e *jobs.JobError
		switch {
		case tt.kind == "" && tt.says == "":
			if err != nil || out.Path != "p" {
				t.Errorf("got %v, %v", out, err)
			}
		case errors.As(err, &e) != (tt.kind != ""), e != nil && (e.Kind != tt.kind || e.Job != tt.job), tt.is != nil && !errors.Is(err, tt.is), err == nil || !strings.Contains(err.Error(), tt.says):
			t.Errorf("%+v: got %v", tt.job, err)
		}
	}
	if _, err := d.Wait(stopped, &keeper{ended: &jobs.Job{Type: "thumb", Status: jobs.Pending}}, id); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
	if _, err := other.Wait(context.Background(), &keeper{ended: &jobs.Job{Type: "thumb", Status: jobs.Completed}}, id); err == nil || !strings.Contains(err.Error(), "of type thumb, not other") {
		t.Errorf("a job of another type: %v", err)
	}
}

// TestRun does attempts without a server.
func TestRun(t *testing.T) {
	t.Parallel()
	ctx, boom := context.Background(), errors.New("boom")
	d := jobs.Define[picture, thumb]("picture", jobs.Timeout(time.Minute))
	var seen *jobs.Task
	r := registered(d, func(ctx context.Context, task *jobs.Task, in picture) (thumb, error) {
		seen = task
		task.Progress(50, "half")
		task.Logf(jobs.LevelInfo, "%s", in.URL)
		switch in.URL {
		case "panic":
			panic("ouch")
		case "error":
			return thumb{}, jobs.Permanent(boom)
		case "slow":
			<-ctx.Done()
			return thumb{}, ctx.Err()
		case "file":
			w, err := task.Artifact()
			if err != nil {
				return thumb{}, err
			}
			defer w.Abort()
			_, _ = fmt.Fprint(w, "content")
			a, err := w.Commit("a.txt", "text/plain")
			return thumb{fmt.Sprint(a.Size)}, err
		case "large":
			return thumb{strings.Repeat("x", jobs.MaxResult)}, nil
		}
		return thumb{in.URL + ".small"}, nil
	})
	if out, err := jobs.Run(ctx, r, d, picture{URL: "x"}, jobs.Tags("a")); err != nil || out.Path != "x.small" {
		t.Errorf("got %v, %v", out, err)
	}
	if seen.Attempt != 1 || seen.Job.Tags[0] != "a" || seen.Job.MaxAttempts != 4 || seen.Until.IsZero() {
		t.Errorf("the function sees %+v", seen.Job)
	}
	if out, err := jobs.Run(ctx, r, d, picture{URL: "file"}); err != nil || out.Path != "7" {
		t.Errorf("with a file: %v, %v", out, err)
	}
	if _, err := jobs.Run(ctx, r, d, picture{URL: "error"}); !errors.Is(err, boom) || !jobs.IsPermanent(err) {
		t.Errorf("its own error: %v", err)
	}
	if _, err := jobs.Run(ctx, r, d, picture{URL: "slow"}, jobs.Timeout(time.Millisecond)); !errors.Is(err, jobs.ErrTimeout) {
		t.Errorf("too slow: %v", err)
	}
	if _, err := jobs.Run(ctx, r, d, picture{URL: "panic"}); err == nil || err.Error() != "panic: ouch" {
		t.Errorf("a panic: %v", err)
	}
	if _, err := jobs.Run(ctx, r, d, picture{URL: "large"}); !jobs.IsPermanent(err) {
		t.Errorf("a large result: %v", err)
	}
	if _, err := jobs.Run(ctx, r, d, picture{URL: "bad"}); jobstest.Failure(t, err) != "invalid_request /payload/url" {
		t.Errorf("a payload that does not fit: %v", err)
	}
	if _, err := jobs.Run(ctx, r, d, picture{}, jobs.Priority(9)); jobstest.Failure(t, err) != "invalid_request /priority" {
		t.Errorf("a bad option: %v", err)
	}
	if _, err := jobs.Run(ctx, r, jobs.Define[thumb, thumb]("else"), thumb{}); jobstest.Failure(t, err) != "unknown_type /type" {
		t.Errorf("a type that nobody handles: %v", err)
	}
}

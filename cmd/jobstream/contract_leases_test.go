package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/handlers/remote"
)

// remotely makes types whose jobs workers elsewhere do.
func remotely(lease time.Duration, names ...string) func(*config.Config) {
	return func(c *config.Config) {
		for _, name := range names {
			c.Jobs[name] = config.JobType{
				Run: "remote", Options: &remote.Options{Lease: lease}, RetryCount: 3, Timeout: time.Minute,
				Backoff: jobs.Backoff{Kind: jobs.Constant, Base: 10 * time.Millisecond},
			}
		}
	}
}

// leaseOf is a lease as a worker gets it.
type leaseOf struct {
	Lease      string
	Seconds    float64 `json:"lease_seconds"`
	Fence      int64
	Deadline   time.Time
	Job        *seen
	Checkpoint json.RawMessage
	Inputs     map[string]struct {
		Size        int64
		ContentType string `json:"content_type"`
	}
}

// worker is a client that works, over one of the doors.
type worker struct {
	t    *testing.T
	name string
	send func(verb, lease string, body map[string]any) (code int, answer []byte, err error)
}

// restWorker works over REST.
func restWorker(t *testing.T, url, name string) *worker {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	return &worker{t: t, name: name, send: func(verb, lease string, body map[string]any) (int, []byte, error) {
		path := map[string]string{"next": "/leases", "beat": "/leases/beat", "done_many": "/leases/done"}[verb]
		if path == "" {
			path = "/leases/" + lease + "/" + verb
		}
		b, err := json.Marshal(body)
		mustDo(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, bytes.NewReader(b))
		mustDo(t, err)
		resp, err := client.Do(req)
		if err != nil {
			return 0, nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		answer, err := io.ReadAll(resp.Body)
		return resp.StatusCode, answer, err
	}}
}

// natsWorker works over NATS.
func natsWorker(t *testing.T, url, name string) *worker {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0))
	mustDo(t, err)
	t.Cleanup(nc.Close)
	return &worker{t: t, name: name, send: func(verb, lease string, body map[string]any) (int, []byte, error) {
		if lease != "" {
			body["lease"] = lease
		}
		b, err := json.Marshal(body)
		mustDo(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		m, err := nc.RequestWithContext(ctx, "jobstream.worker."+verb, b)
		if err != nil {
			return 0, nil, err
		}
		code := http.StatusOK
		if text := m.Header.Get("Nats-Service-Error-Code"); text != "" {
			code, err = strconv.Atoi(text)
		}
		return code, m.Data, err
	}}
}

// ask sends a request that must succeed.
func (w *worker) ask(answer any, verb, lease string, body map[string]any) {
	w.t.Helper()
	if body == nil {
		body = map[string]any{}
	}
	code, b, err := w.send(verb, lease, body)
	if err != nil || code != http.StatusOK {
		w.t.Fatalf("%s is answered with %d %s (%v)", verb, code, b, err)
	}
	mustDo(w.t, json.Unmarshal(b, answer))
}

// refused sends a request that must fail, and returns the problem.
func (w *worker) refused(code int, verb, lease string, body map[string]any) (p problem) {
	w.t.Helper()
	if body == nil {
		body = map[string]any{}
	}
	got, b, err := w.send(verb, lease, body)
	mustDo(w.t, err)
	if got != code {
		w.t.Errorf("%s is answered with %d %s, want %d", verb, got, b, code)
	}
	mustDo(w.t, json.Unmarshal(b, &p))
	return p
}

// next asks for a job of these types until there is one.
func (w *worker) next(types ...string) *leaseOf {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		var a struct{ Leases []*leaseOf }
		w.ask(&a, "next", "", map[string]any{"types": types, "worker": w.name, "wait": "5s"})
		if len(a.Leases) > 0 {
			return a.Leases[0]
		}
	}
	w.t.Fatal("there was no job")
	return nil
}

// beatOf is the answer to a beat.
type beatOf struct {
	Seconds float64 `json:"lease_seconds"`
	Lost    []string
	Cancel  map[string]string
}

// beat beats for a lease.
func (w *worker) beat(lease string) (b beatOf) {
	w.t.Helper()
	w.ask(&b, "beat", "", map[string]any{"worker": w.name, "leases": []string{lease}})
	return b
}

// end is the answer to the end of an execution.
type end struct {
	Status   string
	RunAt    time.Time `json:"run_at"`
	Repeated bool
}

// end ends an execution.
func (w *worker) end(verb, lease string, body map[string]any) (e end) {
	w.t.Helper()
	w.ask(&e, verb, lease, body)
	return e
}

// bothDoors runs a test over REST and over NATS.
func bothDoors(t *testing.T, s setup, f func(t *testing.T, h *house, work func(name string) *worker)) {
	t.Parallel()
	for _, door := range []string{"REST", "NATS"} {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			h := open(t, t.TempDir(), s)
			f(t, h, func(name string) *worker {
				if door == "NATS" {
					return natsWorker(t, h.nats, name)
				}
				return restWorker(t, h.rest, name)
			})
		})
	}
}

// TestContractLease has a job done by a worker elsewhere, from its submission to its
// result, with all that the worker may say meanwhile.
func TestContractLease(t *testing.T) {
	bothDoors(t, setup{change: remotely(30*time.Second, "thumb")}, func(t *testing.T, h *house, work func(string) *worker) {
		id := h.submit(`{"type":"thumb","payload":{"a":1},"priority":2}`).ID
		w := work("w-1@host")
		l := w.next("thumb")
		if l.Job.ID != id || l.Job.Status != "processing" || l.Job.Attempt != 1 || string(l.Job.Payload) != `{"a":1}` || l.Seconds != 30 || l.Fence == 0 {
			t.Errorf("the lease is %+v of %+v", l, l.Job)
		}
		if left := time.Until(l.Deadline); left < 30*time.Second || left > time.Minute {
			t.Errorf("the deadline is in %s", left)
		}
		if j := h.job(id); j.Status != "processing" || j.Node != "w-1@host" { // already stored
			t.Errorf("its record says %s by %s", j.Status, j.Node)
		}
		if b := w.beat(l.Lease); b.Seconds != 30 || len(b.Lost)+len(b.Cancel) != 0 {
			t.Errorf("the beat is answered with %+v", b)
		}
		var b map[string]any
		w.ask(&b, "progress", l.Lease, map[string]any{"percent": 45, "message": "half", "log": []any{map[string]any{"level": "warn", "text": "odd\x1b[2Jinput"}, "plain"}})
		waitUntil(t, func() bool { j := h.job(id); return j.Progress == 45 && j.Message == "half" })
		if r := h.do(http.MethodGet, "/jobs/"+id+"/log", ""); !strings.Contains(string(r.body), "plain") || strings.Contains(string(r.body), "\x1b") {
			t.Errorf("the log is %q", r.body)
		}
		if e := w.end("done", l.Lease, map[string]any{"result": map[string]any{"width": 100}}); e.Status != "completed" || e.Repeated {
			t.Errorf("done is answered with %+v", e)
		}
		if j := h.job(id); j.Status != "completed" || string(j.Result) != `{"width":100}` || j.Progress != 100 {
			t.Errorf("the job is %+v", j)
		}
		if e := w.end("done", l.Lease, map[string]any{"result": map[string]any{"width": 100}}); e.Status != "completed" || !e.Repeated {
			t.Errorf("done again is answered with %+v", e)
		}
		if p := w.refused(http.StatusConflict, "fail", l.Lease, map[string]any{"error": "late"}); p.Code != "lease_lost" {
			t.Errorf("a late failure is answered with %+v", p)
		}
	})
}

// TestContractLeaseEnds has the other ends: failures, for good or not, and jobs that are
// given back.
func TestContractLeaseEnds(t *testing.T) {
	bothDoors(t, setup{change: remotely(30*time.Second, "thumb")}, func(t *testing.T, h *house, work func(string) *worker) {
		w := work("w-1")
		id := h.submit(`{"type":"thumb"}`).ID
		l := w.next("thumb")
		if e := w.end("fail", l.Lease, map[string]any{"error": "no luck"}); e.Status != "retrying" || e.RunAt.IsZero() {
			t.Errorf("a failure is answered with %+v", e)
		}
		again := w.next("thumb")
		if again.Job.ID != id || again.Job.Attempt != 2 || again.Fence <= l.Fence || again.Lease == l.Lease {
			t.Errorf("the second lease is %+v of %+v", again, again.Job)
		}
		p := w.refused(http.StatusConflict, "done", l.Lease, nil)
		if p.Code != "lease_lost" || p.Job.Status != "processing" || p.Job.Attempt != 2 {
			t.Errorf("the first lease is refused with %+v", p)
		}
		if b := w.beat(l.Lease); len(b.Lost) != 1 {
			t.Errorf("its beat is answered with %+v", b)
		}
		if e := w.end("release", again.Lease, map[string]any{"reason": "shutting down"}); e.Status != "pending" {
			t.Errorf("giving it back is answered with %+v", e)
		}
		third := w.next("thumb")
		if third.Job.Attempt != 2 {
			t.Errorf("giving it back has used an attempt: %d", third.Job.Attempt)
		}
		if e := w.end("release", third.Lease, map[string]any{"delay": "1h"}); e.Status != "scheduled" && e.Status != "pending" || e.RunAt.Before(time.Now().Add(59*time.Minute)) {
			t.Errorf("putting it off is answered with %+v", e)
		}
		gone := h.submit(`{"type":"thumb"}`).ID
		l = w.next("thumb")
		if e := w.end("fail", l.Lease, map[string]any{"error": "no such customer", "permanent": true}); e.Status != "failed" {
			t.Errorf("a failure for good is answered with %+v", e)
		}
		if j := h.job(gone); j.Status != "failed" || j.Error != "no such customer" {
			t.Errorf("the job is %+v", j)
		}
		later := h.submit(`{"type":"thumb"}`).ID
		l = w.next("thumb")
		if e := w.end("fail", l.Lease, map[string]any{"error": "busy", "retry_after": "1h"}); e.Status != "retrying" || e.RunAt.Before(time.Now().Add(59*time.Minute)) {
			t.Errorf("a failure with a wait is answered with %+v", e)
		}
		h.await(later, "retrying")
	})
}

// TestContractLeaseRefusals has the errors that a worker can meet.
func TestContractLeaseRefusals(t *testing.T) {
	bothDoors(t, setup{change: remotely(30*time.Second, "thumb", "render")}, func(t *testing.T, h *house, work func(string) *worker) {
		w := work("w-1")
		for _, name := range []string{"email", "nope"} {
			p := w.refused(http.StatusUnprocessableEntity, "next", "", map[string]any{"types": []string{"thumb", name}})
			if p.Code != "unknown_type" || len(p.Errors) != 1 || p.Errors[0].Pointer != "/types/1" || !strings.Contains(p.Errors[0].Detail, "render, thumb") {
				t.Errorf("%s is refused with %+v", name, p)
			}
		}
		for _, token := range []string{"nonsense", strings.Repeat("A", 64)} {
			if p := w.refused(http.StatusNotFound, "done", token, nil); p.Code != "not_found" {
				t.Errorf("the lease %s is refused with %+v", token, p)
			}
			if b := w.beat(token); len(b.Lost) != 1 {
				t.Errorf("its beat is answered with %+v", b)
			}
		}
		id := h.submit(`{"type":"thumb"}`).ID
		l := w.next("thumb")
		forged := l.Lease[:len(l.Lease)-1] + string('A'+('B'-l.Lease[len(l.Lease)-1])&1)
		if forged != l.Lease {
			w.refused(http.StatusNotFound, "done", forged, nil)
		}
		if p := w.refused(http.StatusUnprocessableEntity, "done", l.Lease, map[string]any{"outcome": 1}); p.Code != "invalid_request" {
			t.Errorf("an unknown field is refused with %+v", p)
		}
		w.end("done", l.Lease, nil)
		if r := h.do(http.MethodDelete, "/jobs/"+id, ""); r.code != http.StatusNoContent {
			t.Fatalf("%d %s", r.code, r.body)
		}
		w.refused(http.StatusNotFound, "done", l.Lease, nil)
		for _, token := range []string{l.Lease, "nonsense"} {
			if strings.Contains(h.log.String(), token) {
				t.Error("a lease stands in the log")
			}
		}
	})
}

// TestContractLeaseMany ends several jobs by one request; some of them cannot.
func TestContractLeaseMany(t *testing.T) {
	bothDoors(t, setup{change: remotely(30*time.Second, "thumb")}, func(t *testing.T, h *house, work func(string) *worker) {
		w := work("w-1")
		for range 3 {
			h.submit(`{"type":"thumb"}`)
		}
		var leases []*leaseOf
		waitUntil(t, func() bool { // those that are not there yet are not waited for
			var a struct{ Leases []*leaseOf }
			w.ask(&a, "next", "", map[string]any{"types": "thumb", "max": 10})
			leases = append(leases, a.Leases...)
			return len(leases) == 3
		})
		var done []any
		for i, l := range leases {
			done = append(done, map[string]any{"lease": l.Lease, "result": i})
		}
		done = append(done, map[string]any{"lease": "nonsense"})
		var e struct {
			Done []struct {
				end
				Lease   string
				Problem problem
			}
		}
		w.ask(&e, "done_many", "", map[string]any{"done": done})
		if len(e.Done) != 4 || e.Done[0].Status != "completed" || e.Done[2].Lease != leases[2].Lease || e.Done[3].Problem.Code != "not_found" {
			t.Errorf("the answer is %+v", e)
		}
		for i, l := range leases {
			if j := h.job(l.Job.ID); j.Status != "completed" || string(j.Result) != fmt.Sprint(i) {
				t.Errorf("job %d is %+v", i, j)
			}
		}
	})
}

// TestContractLeaseCancel cancels a job at work. The worker hears of it by its next beat,
// and over NATS at once.
func TestContractLeaseCancel(t *testing.T) {
	bothDoors(t, setup{change: remotely(30*time.Second, "thumb")}, func(t *testing.T, h *house, work func(string) *worker) {
		w := work("w-1")
		nc := h.dial()
		heard, err := nc.SubscribeSync("jobstream.worker.cancel.w-1")
		mustDo(t, err)
		mustDo(t, nc.Flush())
		id := h.submit(`{"type":"thumb"}`).ID
		l := w.next("thumb")
		h.cancel(id, `{"reason":"wrong input"}`)
		m, err := heard.NextMsg(patience)
		mustDo(t, err)
		var c struct{ Lease, Reason string }
		mustDo(t, json.Unmarshal(m.Data, &c))
		if c.Lease != l.Lease || !strings.Contains(c.Reason, "wrong input") {
			t.Errorf("the worker hears %s", m.Data)
		}
		if b := w.beat(l.Lease); !strings.Contains(b.Cancel[l.Lease], "wrong input") || len(b.Lost) != 0 {
			t.Errorf("its beat is answered with %+v", b)
		}
		if p := w.refused(http.StatusConflict, "done", l.Lease, nil); p.Code != "lease_lost" || p.Job.Status != "cancelled" {
			t.Errorf("its end is refused with %+v", p)
		}
	})
}

// TestContractWorkers lists who works: the server's own pool and workers elsewhere. A
// waiting job says that nobody asks for it.
func TestContractWorkers(t *testing.T) {
	p := newPuppet()
	s := setup{change: remotely(30*time.Second, "thumb"), handlers: map[string]jobs.Handler{"held": p}}
	bothDoors(t, s, func(t *testing.T, h *house, work func(string) *worker) {
		waiting := h.submit(`{"type":"thumb"}`).ID
		waitUntil(t, func() bool {
			r := h.do(http.MethodGet, "/jobs/"+waiting, "")
			return strings.Contains(string(r.body), `"reason":"no_worker"`)
		})
		w := work("w-1")
		l := w.next("thumb")
		own := h.submit(`{"type":"held"}`).ID
		h.await(own, "processing")
		r := h.do(http.MethodGet, "/workers", "")
		var a struct {
			Workers []struct {
				Worker, Node string
				Local        bool
				Types        []string
				LastSeen     time.Time `json:"last_seen"`
				Leases       []struct {
					Job, Type string
					Since     time.Time
					Progress  int
				}
			}
		}
		mustDo(t, json.Unmarshal(r.body, &a))
		if len(a.Workers) != 2 {
			t.Fatalf("the workers are %s", r.body)
		}
		if local := a.Workers[0]; !local.Local || len(local.Leases) != 1 || local.Leases[0].Job != own || local.Node != local.Worker {
			t.Errorf("the pool is %+v", local)
		}
		if other := a.Workers[1]; other.Local || other.Worker != "w-1" || len(other.Types) != 1 || len(other.Leases) != 1 || other.Leases[0].Job != l.Job.ID ||
			other.Leases[0].Type != "thumb" || time.Since(other.LastSeen) > patience || time.Since(other.Leases[0].Since) > patience {
			t.Errorf("the worker is %+v", other)
		}
		same := h.call(h.dial(), "worker.list", "")
		if !strings.Contains(string(same.Data), `"worker":"w-1"`) {
			t.Errorf("over NATS they are %s", same.Data)
		}
		w.end("done", l.Lease, nil)
		p.next(t).finish()
		h.await(own, "completed")
		if r := h.do(http.MethodGet, "/workers", ""); !strings.Contains(string(r.body), `"worker":"w-1"`) {
			t.Errorf("a worker without a job is forgotten: %s", r.body)
		}
	})
}

// TestContractLeasePaused stops everything: leases, too.
func TestContractLeasePaused(t *testing.T) {
	bothDoors(t, setup{change: remotely(30*time.Second, "thumb")}, func(t *testing.T, h *house, work func(string) *worker) {
		h.do(http.MethodPost, "/workers/pause", "")
		id := h.submit(`{"type":"thumb"}`).ID
		w := work("w-1")
		var a struct{ Leases []*leaseOf }
		w.ask(&a, "next", "", map[string]any{"types": "thumb", "wait": "100ms"})
		if len(a.Leases) != 0 {
			t.Errorf("while all are paused there is %+v", a.Leases[0])
		}
		if r := h.do(http.MethodGet, "/jobs/"+id, ""); !strings.Contains(string(r.body), `"waiting"`) {
			t.Errorf("the job is %s", r.body)
		}
		h.do(http.MethodPost, "/workers/resume", "")
		if l := w.next("thumb"); l.Job.ID != id {
			t.Errorf("the lease is %+v", l)
		}
	})
}

// TestContractLeaseFiles has a worker that reads the input of a job over its lease, and
// leaves files. They belong to the job when it is done.
func TestContractLeaseFiles(t *testing.T) {
	t.Parallel()
	s := setup{change: func(c *config.Config) {
		remotely(30*time.Second, "thumb")(c)
		typ := c.Jobs["thumb"]
		typ.Inputs = []jobs.InputRule{{Name: "image"}}
		c.Jobs["thumb"] = typ
	}}
	h := open(t, t.TempDir(), s)
	var upload struct{ ID string }
	mustDo(t, json.Unmarshal(h.do(http.MethodPost, "/artifacts", "a picture", "Content-Type", "image/png").body, &upload))
	id := h.submit(`{"type":"thumb","inputs":{"image":%q}}`, upload.ID).ID
	w := restWorker(t, h.rest, "w-1")
	l := w.next("thumb")
	if got := l.Inputs["image"]; got.Size != 9 || got.ContentType != "image/png" {
		t.Errorf("the lease has the inputs %+v", l.Inputs)
	}
	path := "/leases/" + l.Lease
	if r := h.do(http.MethodGet, path+"/inputs/image", ""); r.code != http.StatusOK || string(r.body) != "a picture" || r.header.Get("Content-Type") != "image/png" {
		t.Errorf("the input is %d %s", r.code, r.body)
	}
	if r := h.do(http.MethodGet, path+"/inputs/nope", ""); r.code != http.StatusNotFound {
		t.Errorf("an input that there is not is answered with %d %s", r.code, r.body)
	}
	for _, f := range [][2]string{{"out.txt", "first"}, {"more (2).txt", "second"}, {"out.txt", "first"}} { // the last one again
		r := h.do(http.MethodPut, path+"/artifacts/"+url.PathEscape(f[0]), f[1], "Content-Type", "text/plain")
		if r.code != http.StatusOK || !strings.Contains(string(r.body), `"name":"`+f[0]+`"`) {
			t.Errorf("%s is answered with %d %s", f[0], r.code, r.body)
		}
	}
	if r := h.do(http.MethodPut, path+"/artifacts/out.txt", "better", "Content-Type", "text/plain"); r.code != http.StatusConflict {
		t.Errorf("another file of that name is answered with %d %s", r.code, r.body)
	}
	if r := h.do(http.MethodGet, "/jobs/"+id+"/result", ""); r.code != http.StatusNotFound {
		t.Errorf("before the end there is %d %s", r.code, r.body)
	}
	w.end("done", l.Lease, nil)
	for name, want := range map[string]string{"/result": "first", "/artifacts/out.txt": "first", "/artifacts/more%20(2).txt": "second"} {
		if r := h.do(http.MethodGet, "/jobs/"+id+name, ""); string(r.body) != want {
			t.Errorf("%s is %d %s", name, r.code, r.body)
		}
	}
	if r := h.do(http.MethodPut, path+"/artifacts/late.txt", "late"); r.code != http.StatusConflict {
		t.Errorf("a late file is answered with %d %s", r.code, r.body)
	}
	if r := h.do(http.MethodGet, path+"/inputs/image", ""); r.code != http.StatusConflict {
		t.Errorf("a late look at the input is answered with %d %s", r.code, r.body)
	}

	failing := h.submit(`{"type":"thumb","inputs":{"image":%q},"retry_count":0}`, upload.ID).ID
	l = w.next("thumb")
	h.do(http.MethodPut, "/leases/"+l.Lease+"/artifacts/out.txt", "half")
	w.end("fail", l.Lease, map[string]any{"error": "no luck"})
	if r := h.do(http.MethodGet, "/jobs/"+failing+"/result", ""); r.code != http.StatusNotFound {
		t.Errorf("a failed job has left %d %s", r.code, r.body)
	}
}

// TestContractIdleAsks has as many workers wait as may, over NATS. They cost little
// memory, one more is refused, and a job wakes one of them.
func TestContractIdleAsks(t *testing.T) {
	h := open(t, t.TempDir(), setup{change: remotely(30*time.Second, "thumb")})
	nc := h.dial()
	answers := make(chan *nats.Msg, 2*jobs.MaxAsks)
	inbox := nc.NewInbox()
	_, err := nc.ChanSubscribe(inbox+".*", answers)
	mustDo(t, err)
	first, stacks := alive(), stackBytes()
	asks, most := 0, jobs.MaxAsks
	if raced {
		most /= 10 // the first would be over before the last is there
	}
	for asks < most {
		for range 100 { // more at once would be too many that are answered
			mustDo(t, nc.PublishRequest("jobstream.worker.next", fmt.Sprint(inbox, ".", asks), fmt.Appendf(nil, `{"types":["thumb"],"worker":"w-%d","wait":"1m"}`, asks)))
			asks++
		}
		waitUntil(t, func() bool {
			var list struct{ Workers []json.RawMessage } // it is long, and so not compared with its description each time
			get(t, h.rest+"/workers", &list)
			return len(list.Workers) > asks // the pool is one, too
		})
	}
	alive()                                                                          // stacks shrink by half each time
	if grown := alive() - first + stackBytes() - stacks; grown > 120<<20 && !raced { // those of the client in this process included
		t.Errorf("%d asks take %d MiB", asks, grown>>20)
	} else {
		t.Logf("%d asks take %d MiB", asks, grown>>20)
	}
	if raced {
		t.Log("with the race detector nobody is refused, there are too few")
	} else if r := h.do(http.MethodPost, "/leases", `{"types":["thumb"],"wait":"1s"}`); r.code != http.StatusTooManyRequests || r.header.Get("Retry-After") == "" {
		t.Errorf("one more ask is answered with %d %s", r.code, r.body)
	}
	id := h.submit(`{"type":"thumb"}`).ID
	h.await(id, "processing")
	select {
	case m := <-answers:
		if !strings.Contains(string(m.Data), id) {
			t.Errorf("the first answer is %s", m.Data)
		}
	case <-time.After(patience):
		t.Fatal("no ask is answered")
	}
	if len(answers) > 0 {
		t.Errorf("the job has woken %d more", len(answers))
	}
}

// stackBytes is the memory of all goroutines' stacks.
func stackBytes() int {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.StackInuse)
}

package main

import (
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/api"
	handlernats "jobstream/jobs/handlers/nats"
	"jobstream/jobs/jobstest"
)

// openAsking starts a server whose type thumb is done by whoever answers on svc.thumb.
func openAsking(t *testing.T, timeout time.Duration) *house {
	t.Helper()
	return open(t, t.TempDir(), setup{change: func(c *config.Config) {
		c.Jobs["thumb"] = config.JobType{
			Run: "nats", Options: &handlernats.Options{Subject: "svc.thumb"}, RetryCount: 1, Timeout: timeout,
			Backoff: jobs.Backoff{Kind: jobs.Constant, Base: 10 * time.Millisecond},
		}
	}})
}

// respond answers the requests of the type, one after the other, with answers.
func (h *house) respond(answer func(m *nats.Msg)) {
	h.t.Helper()
	nc := h.dial()
	_, err := nc.Subscribe("svc.thumb", answer)
	mustDo(h.t, err)
	mustDo(h.t, nc.Flush())
}

// TestContractRunNATS asks a service over NATS to do the jobs: one that answers, one that
// has errors, and one that hangs.
func TestContractRunNATS(t *testing.T) {
	t.Parallel()
	h := openAsking(t, time.Minute)
	requests := make(chan *nats.Msg, 10)
	h.respond(func(m *nats.Msg) {
		requests <- m
		reply := nats.NewMsg(m.Reply)
		switch string(m.Data) {
		case `"hang"`:
			return
		case `"wrong"`:
			reply.Header.Set("Nats-Service-Error-Code", "422")
			reply.Header.Set("Nats-Service-Error", "no such size")
		case `"broken"`:
			if m.Header.Get("Jobstream-Attempt") == "1" {
				reply.Header.Set("Nats-Service-Error-Code", "500")
				reply.Header.Set("Nats-Service-Error", "out of paper")
			}
			reply.Data = []byte("a text")
		default:
			reply.Data = []byte(`{"width":100}`)
		}
		_ = m.RespondMsg(reply)
	})
	next := func() *nats.Msg {
		select {
		case m := <-requests:
			return m
		case <-time.After(patience):
			t.Fatal("nobody was asked")
			return nil
		}
	}

	j := h.submit(`{"type":"thumb","payload":{"size":"100x100"}}`)
	m := next()
	if got := string(m.Data); got != `{"size":"100x100"}` {
		t.Errorf("the request is %s", got)
	}
	for name, want := range map[string]string{
		"ce-id": j.ID + ".1.1", "ce-type": "jobstream.job.run", "Idempotency-Key": j.ID + ".1", "Jobstream-Job-Id": j.ID,
		"Jobstream-Job-Type": "thumb", "Jobstream-Attempt": "1", "Jobstream-Max-Attempts": "2", "Content-Type": "application/json",
	} {
		if got := m.Header[name]; !slices.Equal(got, []string{want}) {
			t.Errorf("the header %s is %q, want %q", name, got, want)
		}
	}
	if until, err := time.Parse(time.RFC3339, m.Header.Get("Jobstream-Deadline")); err != nil || until.Before(time.Now()) {
		t.Errorf("the deadline is %v (%v)", until, err)
	}
	if got := h.await(j.ID, "completed"); string(got.Result) != `{"width":100}` {
		t.Errorf("the result is %s", got.Result)
	}

	failed := h.await(h.submit(`{"type":"thumb","payload":"wrong"}`).ID, "failed")
	if failed.Attempt != 1 || failed.Error != "the answer was the error 422 no such size" {
		t.Errorf("it failed in attempt %d: %s", failed.Attempt, failed.Error)
	}
	again := h.await(h.submit(`{"type":"thumb","payload":"broken"}`).ID, "completed")
	if again.Attempt != 2 || string(again.Result) != `"a text"` || len(again.Errors) != 1 || !strings.Contains(again.Errors[0].Error, "500 out of paper") {
		t.Errorf("in attempt %d it got %s after %v", again.Attempt, again.Result, again.Errors)
	}

	for len(requests) > 0 {
		<-requests
	}
	hangs := h.submit(`{"type":"thumb","payload":"hang"}`).ID
	next()
	h.cancel(hangs, "")
	h.await(hangs, "cancelled")
	h.awaitStats(func(s *api.Stats) bool { return s.ActiveWorkers == 0 }) // nobody waits for the answer
	if r := h.do(http.MethodGet, "/types/thumb", ""); !strings.Contains(string(r.body), `"runs":"a request on svc.thumb"`) {
		t.Errorf("the type is %s", r.body)
	}
}

// TestContractRunNATSTimeout waits for somebody who never answers.
func TestContractRunNATSTimeout(t *testing.T) {
	t.Parallel()
	h := openAsking(t, 50*time.Millisecond)
	h.respond(func(*nats.Msg) {})
	if j := h.await(h.submit(`{"type":"thumb"}`).ID, "failed"); j.Attempt != 2 || j.Error != "timed out after 50ms" {
		t.Errorf("it failed in attempt %d: %s", j.Attempt, j.Error)
	}
}

// TestContractRunNATSNobody has nobody who answers at first. The jobs wait, say so and
// use up no attempt.
func TestContractRunNATSNobody(t *testing.T) {
	t.Parallel()
	h := openAsking(t, time.Minute)
	first, second := h.submit(`{"type":"thumb"}`).ID, h.submit(`{"type":"thumb"}`).ID
	for _, id := range []string{first, second} {
		waitUntil(t, func() bool {
			r := h.do(http.MethodGet, "/jobs/"+id, "")
			return strings.Contains(string(r.body), `"reason":"target_busy"`) && strings.Contains(string(r.body), "nobody answers requests on svc.thumb")
		})
	}
	h.respond(func(m *nats.Msg) { _ = m.Respond(nil) })
	for _, id := range []string{first, second} {
		if j := h.await(id, "completed"); j.Attempt != 1 || j.Error != "" {
			t.Errorf("it needed attempt %d, after %q", j.Attempt, j.Error)
		}
	}
}

// TestContractRunNATSCommand has the nats command answer: a worker in one line.
func TestContractRunNATSCommand(t *testing.T) {
	t.Parallel()
	tool := jobstest.Tool(t, "nats")
	h := openAsking(t, time.Minute)
	worker := exec.CommandContext(t.Context(), tool, "--server", h.nats, "reply", "svc.thumb", "--queue", "w", "--command", "echo done")
	out, err := worker.StdoutPipe()
	mustDo(t, err)
	mustDo(t, worker.Start())
	defer func() {
		mustDo(t, worker.Process.Kill())
		_ = worker.Wait()
	}()
	j := h.submit(`{"type":"thumb","payload":{"a":1}}`)
	if got := h.await(j.ID, "completed"); string(got.Result) != `"done"` {
		b := make([]byte, 4096)
		n, _ := out.Read(b)
		t.Errorf("the result is %s; the worker said %s", got.Result, b[:n])
	}
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
)

// TestContractRunNow has jobs that wait for a moment start at once, over both doors.
func TestContractRunNow(t *testing.T) {
	t.Parallel()
	quick, p := &counted{}, newPuppet()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"quick": quick, "held": p},
		change: func(c *config.Config) {
			typ := c.Jobs["held"]
			typ.Backoff = jobs.Backoff{Kind: jobs.Constant, Base: time.Hour}
			typ.RetryCount = 2
			c.Jobs["held"] = typ
		},
	})
	nc := h.dial()
	for _, key := range []string{"", `"concurrency_key":"k",`} {
		later := h.submit(`{"type":"quick",%s"delay":"1h"}`, key)
		r := h.do(http.MethodPost, "/jobs/"+later.ID+"/run", "")
		if r.code != http.StatusAccepted {
			t.Fatalf("%d %s", r.code, r.body)
		}
		if j := readJob(t, r.body); j.Status == "scheduled" || j.RunAt != nil && j.RunAt.After(time.Now()) {
			t.Errorf("it still waits: %s", r.body)
		}
		if j := h.await(later.ID, "completed"); j.Attempt != 1 {
			t.Errorf("attempt %d", j.Attempt)
		}
		r = h.do(http.MethodPost, "/jobs/"+later.ID+"/run", "")
		r.wantProblem(t, 409, "conflict")

		failed := h.submit(`{"type":"held",%s"payload":{}}`, key)
		run := p.next(t)
		h.await(failed.ID, "processing")
		h.do(http.MethodPost, "/jobs/"+failed.ID+"/run", "").wantProblem(t, 409, "conflict")
		run.end <- errors.New("not yet")
		h.await(failed.ID, "retrying")
		if m := h.call(nc, "run_now", fmt.Sprintf(`{"id":%q}`, failed.ID)); m.Header.Get("Nats-Service-Error-Code") != "" {
			t.Fatalf("jobstream.run_now: %s", m.Data)
		}
		p.next(t).finish()
		if j := h.await(failed.ID, "completed"); j.Attempt != 2 {
			t.Errorf("the retry is attempt %d, not 2", j.Attempt)
		}
	}
	h.do(http.MethodPost, "/types/quick/pause", "")
	waits := h.submit(`{"type":"quick"}`)
	if r := h.do(http.MethodPost, "/jobs/"+waits.ID+"/run", ""); r.code != http.StatusAccepted {
		t.Errorf("a pending job: %d %s", r.code, r.body)
	}
	if n := quick.n.Load(); n != 2 {
		t.Errorf("%d attempts, want 2", n)
	}
	h.do(http.MethodPost, "/jobs/"+waits.ID+"/run", `{"now":true}`).wantPointer(t, "/now")
	h.do(http.MethodPost, "/jobs/99999/run", "").wantProblem(t, 404, "not_found")
	if m := h.call(nc, "run_now", `{}`); m.Header.Get("Nats-Service-Error-Code") != "422" {
		t.Errorf("jobstream.run_now without an id: %s", m.Data)
	}
}

// TestContractRevise changes jobs that wait, and finds the changes after a restart.
func TestContractRevise(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	s := setup{handlers: map[string]jobs.Handler{"held": p}, change: func(c *config.Config) { c.Worker.MaxWorkers = 1; c.Worker.ShutdownGrace = 0 }}
	h := open(t, dir, s)
	patch := func(id, body string) *reply { return h.do(http.MethodPatch, "/jobs/"+id, body) }
	change := func(id, body string) *seen {
		t.Helper()
		r := patch(id, body)
		if r.code != http.StatusOK {
			t.Fatalf("PATCH %s: %d %s", body, r.code, r.body)
		}
		return readJob(t, r.body)
	}
	first := h.submit(`{"type":"held"}`)
	p.next(t)
	patch(first.ID, `{"priority":1}`).wantProblem(t, 409, "conflict")
	a := h.submit(`{"type":"held","tags":["old"],"payload":{"n":1}}`)
	b := h.submit(`{"type":"held","priority":4}`)
	big := strings.Repeat("x", 5000)
	j := change(b.ID, `{"priority":1,"tags":["new","b"],"payload":{"big":"`+big+`"}}`)
	if j.Priority != 1 || fmt.Sprint(j.Tags) != "[new b]" || !strings.Contains(string(j.Payload), big) {
		t.Errorf("changed: %+v", j)
	}
	change(a.ID, `{"tags":[],"payload":null,"priority":null}`)
	for query, want := range map[string]int{"?tag=old": 0, "?tag=new": 1, "?priority=1": 1, "?priority=4": 0} {
		if found, _ := h.list(query); len(found) != want {
			t.Errorf("%s finds %d, want %d", query, len(found), want)
		}
	}
	moment := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	if j := change(a.ID, fmt.Sprintf(`{"run_at":%q}`, moment.Format(time.RFC3339))); j.Status != "scheduled" || !j.RunAt.Equal(moment) {
		t.Errorf("postponed: %+v", j)
	}
	for body, pointer := range map[string]string{
		`{}`: "", `{"priority":6}`: "/priority", `{"tags":"x"}`: "/tags", `{"run_at":"soon"}`: "/run_at", `{"type":"x"}`: "/type", `{"tags":[" "]}`: "/tags",
	} {
		patch(a.ID, body).wantPointer(t, pointer)
	}
	limited := h.submit(`{"type":"held","ttl":"1h"}`)
	patch(limited.ID, fmt.Sprintf(`{"run_at":%q}`, time.Now().Add(2*time.Hour).UTC().Format(time.RFC3339))).wantPointer(t, "/run_at")
	mail := h.submit(`{"type":"email","delay":"1h","payload":{"to":"a@example.com","subject":"s","body":"b"}}`)
	patch(mail.ID, `{"payload":{"subject":"s","body":"b"}}`).wantPointer(t, "/payload/to")
	patch("99999", `{"priority":1}`).wantProblem(t, 404, "not_found")

	_, kinds := h.events(b.ID)
	if !strings.Contains(kinds, "revised") {
		t.Errorf("its history is %s", kinds)
	}
	h.close()
	p = newPuppet()
	s.handlers["held"] = p
	h = open(t, dir, s)
	if j := h.job(a.ID); j.Status != "scheduled" || !j.RunAt.Equal(moment) || len(j.Tags) != 0 {
		t.Errorf("after a restart: %+v", j)
	}
	run := p.next(t)
	if run.id() != b.ID || !strings.Contains(string(run.task.Job.Payload), big) {
		t.Errorf("job %s runs first, want %s with its new payload", run.id(), b.ID)
	}
	run.finish()
	h.await(b.ID, "completed")
	patch(b.ID, `{"priority":1}`).wantProblem(t, 409, "conflict")
	j = change(a.ID, `{"run_at":"2024-01-01","payload":{"n":2}}`)
	if j.Status != "pending" {
		t.Errorf("a moment that has passed: %+v", j)
	}
	for range 3 {
		p.next(t).finish()
	}
	if j = h.await(a.ID, "completed"); !json.Valid(j.Payload) || string(j.Payload) != `{"n":2}` || j.Attempt != 1 {
		t.Errorf("it ran as %+v", j)
	}
}

// wantPointer wants a refusal that names a field; "" = the whole.
func (r *reply) wantPointer(t *testing.T, pointer string) {
	t.Helper()
	r.wantProblem(t, http.StatusUnprocessableEntity, "invalid_request")
	var p struct{ Errors []struct{ Pointer string } }
	if err := json.Unmarshal(r.body, &p); err != nil || len(p.Errors) != 1 || p.Errors[0].Pointer != pointer {
		t.Errorf("it should name %q: %s", pointer, r.body)
	}
}

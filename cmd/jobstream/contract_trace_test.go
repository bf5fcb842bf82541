package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// traced is a header traceparent of a client, whose trace has this number.
func traced(n int) string { return fmt.Sprintf("00-%032x-%016x-01", n, n) }

// traceparent is the place of a job in a trace, as its JSON says.
func traceparent(t *testing.T, body []byte) string {
	t.Helper()
	var j struct{ Traceparent string }
	mustDo(t, json.Unmarshal(body, &j))
	return j.Traceparent
}

// TestContractTraceparent passes a trace on without exporting anything: in at every door,
// out by everything that a job causes, and also by what is stored.
func TestContractTraceparent(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	e := newEndpoint(t, func(_ http.ResponseWriter, c *call) { got <- c.path + " " + strings.Join(c.header["Traceparent"], ",") })
	dir := t.TempDir()
	h := configuredIn(t, dir, fmt.Sprintf(`
  exec: {run: exec, command: [sh, -c, 'printf %%s "$TRACEPARENT"']}
  http: {run: http, url: "%s/do"}
  nats: {run: nats, subject: svc.trace}
  far: {run: remote}
  email: {}
  report: {}
`, e.URL), "callbacks: {allow: [127.0.0.1]}\n")
	nc := h.dial()
	_, err := nc.Subscribe("svc.trace", func(m *nats.Msg) {
		got <- "nats " + strings.Join(m.Header["traceparent"], ",")
		_ = m.Respond(nil)
	})
	mustDo(t, err)
	mustDo(t, nc.Flush())
	post := func(path, body, trace string) []byte {
		t.Helper()
		r := h.do(http.MethodPost, path, body, "traceparent", trace)
		if r.code != http.StatusAccepted {
			t.Fatalf("%s: %d %s", body, r.code, r.body)
		}
		return r.body
	}
	want := func(what, want string) {
		t.Helper()
		select {
		case got := <-got:
			if got != want {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%s: nothing comes", what)
		}
	}

	// out of a job
	j := readJob(t, post("/jobs", `{"type":"exec"}`, traced(1)))
	if j = h.await(j.ID, "completed"); string(j.Result) != `"`+traced(1)+`"` {
		t.Errorf("a program gets %s", j.Result)
	}
	if j = h.await(h.submit(`{"type":"exec"}`).ID, "completed"); string(j.Result) != "null" && string(j.Result) != `""` {
		t.Errorf("without a trace a program gets %s", j.Result)
	}
	post("/jobs", `{"type":"http"}`, traced(2))
	want("an endpoint", "/do "+traced(2))
	post("/jobs", `{"type":"nats"}`, traced(3))
	want("a service", "nats "+traced(3))
	post("/jobs", fmt.Sprintf(`{"type":"email","payload":%s,"callback_url":"%s/end"}`, letter, e.URL), traced(4))
	want("a callback", "/end "+traced(4))
	notices, err := nc.SubscribeSync("job.completed.email.>")
	mustDo(t, err)
	mustDo(t, nc.Flush())
	post("/jobs", `{"type":"email","payload":`+letter+`}`, traced(5))
	m, err := notices.NextMsg(patience)
	mustDo(t, err)
	if h := m.Header.Get("traceparent"); h != traced(5) || traceparent(t, m.Data) != traced(5) {
		t.Errorf("the notification has %q and is %s", h, m.Data)
	}
	for _, w := range []*worker{restWorker(t, h.rest, "rest"), natsWorker(t, h.nats, "nats")} {
		post("/jobs", `{"type":"far"}`, traced(6))
		code, answer, err := w.send("next", "", map[string]any{"types": []string{"far"}, "wait": "60s"})
		mustDo(t, err)
		if code != http.StatusOK || strings.Count(string(answer), `"traceparent":"`+traced(6)+`"`) != 2 { // the lease's and the job's
			t.Errorf("the lease for %s is %d %s", w.name, code, answer)
		}
	}

	// in by other doors; a trace of a job's own wins
	list := post("/jobs/batch", `{"jobs":[{"type":"report"},{"type":"report","traceparent":"`+traced(8)+`"},{"type":"report","traceparent":"nonsense"}]}`, traced(7))
	var batch struct{ Jobs []json.RawMessage }
	mustDo(t, json.Unmarshal(list, &batch))
	for i, want := range []string{traced(7), traced(8), traced(7)} {
		if got := traceparent(t, batch.Jobs[i]); got != want {
			t.Errorf("job %d of the batch has %q, want %q", i, got, want)
		}
	}
	request := nats.NewMsg("jobstream.submit")
	request.Data = []byte(`{"type":"report"}`)
	request.Header.Set("traceparent", traced(9))
	answer, err := nc.RequestMsg(request, patience)
	mustDo(t, err)
	if got := traceparent(t, answer.Data); got != traced(9) {
		t.Errorf("a request over NATS makes %s", answer.Data)
	}
	bare := h.accepted(nc, "jobs.report", "", "traceparent", traced(10))
	h.await(bare, "completed")
	bad := h.accepted(nc, "jobs.report", "no JSON", "traceparent", traced(11))
	h.await(bad, "failed")
	for what, header := range map[string]string{"too short": "00-1-2-00", "of zeros": traced(0), "of version ff": "ff" + traced(1)[2:], "no header": "\t"} {
		if got := traceparent(t, post("/jobs", `{"type":"report"}`, header)); got != "" {
			t.Errorf("one that is %s makes a job in %s", what, got)
		}
		if j := h.await(h.accepted(nc, "jobs.report", "", "traceparent", header), "completed"); traceparent(t, h.do(http.MethodGet, "/jobs/"+j.ID, "").body) != "" {
			t.Errorf("one that is %s makes a job in a trace", what)
		}
	}
	h.close()

	// stored, for those that look and for later runs
	h = configuredIn(t, dir, "  report: {}\n  exec: {run: exec, command: [sh, -c, 'printf %s \"$TRACEPARENT\"']}\n", "")
	for seq, want := range map[uint64]string{1: traced(1), bare: traced(10), bad: traced(11)} {
		if got := traceparent(t, h.do(http.MethodGet, fmt.Sprintf("/jobs/%d", seq), "").body); got != want {
			t.Errorf("after a restart job %d is in %q, want %q", seq, got, want)
		}
	}
	later := readJob(t, post("/jobs", `{"type":"exec","delay":"1h"}`, traced(12)))
	if r := h.do(http.MethodPost, "/jobs/"+later.ID+"/run", ""); r.code != http.StatusAccepted {
		t.Fatalf("%d %s", r.code, r.body)
	}
	if j = h.await(later.ID, "completed"); string(j.Result) != `"`+traced(12)+`"` {
		t.Errorf("run by hand, a program gets %s", j.Result)
	}
}

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
)

// stream reads Server-Sent Events as a browser does.
type stream struct {
	t      *testing.T
	r      *bufio.Reader
	cancel context.CancelFunc
	retry  string // the last one
	last   string // the id to come back with
}

// message is one event of a stream.
type message struct{ id, name, data string }

// stream follows GET /events; header are names and values in turn.
func (h *house) stream(query string, header ...string) *stream {
	h.t.Helper()
	s := h.begin(query, header...)
	if s.last == "" {
		h.t.Fatalf("the stream begins without an id: %+v", s)
	}
	return s
}

// digests follows digests.
func (h *house) digests(period string) *stream {
	h.t.Helper()
	return h.begin("?digest=" + period)
}

// begin reads the beginning of a stream.
func (h *house) begin(query string, header ...string) *stream {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	h.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.rest+"/events"+query, nil)
	mustDo(h.t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	r, err := (&http.Client{Transport: h.client.Transport}).Do(req)
	mustDo(h.t, err)
	h.t.Cleanup(func() { _ = r.Body.Close() })
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/event-stream" || r.Header.Get("Cache-Control") != "no-store" {
		h.t.Fatalf("/events%s answers %d %v", query, r.StatusCode, r.Header)
	}
	s := &stream{t: h.t, r: bufio.NewReader(r.Body), cancel: cancel}
	if s.next(); s.retry == "" {
		h.t.Fatalf("the stream begins without a retry: %+v", s)
	}
	return s
}

// next is the next event; its name is "" at an event that has an id only, and "end" at the
// end of the stream.
func (s *stream) next() (e message) {
	s.t.Helper()
	for begun := false; ; begun = true {
		line, err := s.r.ReadString('\n')
		if err != nil && !begun {
			return message{name: "end"}
		}
		mustDo(s.t, err)
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "id":
			e.id, s.last = value, value
		case "event":
			e.name = value
		case "data":
			e.data = value
		case "retry":
			s.retry = value
		case "":
			if value == "" {
				return e
			}
		default:
			s.t.Fatalf("the stream has the line %q", line)
		}
	}
}

// until reads up to the first event of this name about this job, and returns its job and
// the names of all events about it.
func (s *stream) until(name, id string) (j *seen, names []string) {
	s.t.Helper()
	for {
		e := s.next()
		if e.name == "end" {
			s.t.Fatalf("the stream ends before %s of %s", name, id)
		}
		if !strings.HasPrefix(e.name, "job.") {
			continue
		}
		j := readJob(s.t, []byte(e.data))
		if j.ID != id {
			continue
		}
		if names = append(names, e.name); e.name == name {
			return j, names
		}
	}
}

// TestContractEvents follows jobs through their lives, by all filters.
func TestContractEvents(t *testing.T) {
	t.Parallel()
	thumb := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"thumb": thumb}})
	all := h.stream("")
	failed := h.stream("?type=thumb&status=failed&status=completed")
	j := h.submit(`{"type":"thumb","payload":{"x":"a\nb"},"tags":["t"]}`)
	one := h.stream("?job=" + j.ID)
	running := thumb.next(t)
	if _, names := all.until("job.processing", j.ID); names[0] != "job.pending" {
		t.Errorf("its first events are %v", names)
	}
	running.finish()
	done, _ := all.until("job.completed", j.ID)
	if got := h.await(j.ID, "completed"); got.Attempt != done.Attempt || string(got.Payload) != string(done.Payload) || done.EndedAt == nil {
		t.Errorf("the event has %+v, the job is %+v", done, got)
	}
	if _, names := failed.until("job.completed", j.ID); len(names) != 1 {
		t.Errorf("by status, its events are %v", names)
	}
	one.until("job.completed", j.ID)
	if r := h.do(http.MethodDelete, "/jobs/"+j.ID, ""); r.code != http.StatusNoContent {
		t.Fatal(r.code)
	}
	if gone, names := one.until("job.deleted", j.ID); len(names) != 1 || gone.Status != "completed" {
		t.Errorf("when it is deleted, its events are %v, and it is %+v", names, gone)
	}
	// Whoever comes back with its last id misses nothing of what was kept.
	away := h.submit(`{"type":"thumb","delay":"1h"}`)
	all.until("job.scheduled", away.ID)
	all.cancel()
	h.do(http.MethodPost, "/jobs/"+away.ID+"/cancel", "")
	h.do(http.MethodPost, "/jobs/"+away.ID+"/retry", "")
	running = thumb.next(t)
	again := h.stream("", "Last-Event-ID", all.last)
	if _, names := again.until("job.processing", away.ID); names[0] != "job.cancelled" || len(names) < 2 {
		t.Errorf("behind %s come %v", all.last, names)
	}
	running.finish()
	again.until("job.completed", away.ID)

	for query, pointer := range map[string]string{
		"?status=done": "query/status", "?job=42": "query/job", "?colour=red": "query/colour",
		"?type=": "query/type", "?last_event_id=a&last_event_id=b": "query/last_event_id",
	} {
		if p := h.do(http.MethodGet, "/events"+query, "").wantProblem(t, 422, "invalid_request"); len(p.Errors) != 1 || p.Errors[0].Pointer != pointer {
			t.Errorf("%s is answered with %+v", query, p)
		}
	}
	if r := h.do(http.MethodHead, "/events", ""); r.code != http.StatusOK || r.header.Get("Content-Type") != "text/event-stream" || len(r.body) != 0 {
		t.Errorf("HEAD gives %d %v", r.code, r.header)
	}
	h.do(http.MethodPost, "/events", "").wantProblem(t, http.StatusMethodNotAllowed, "method_not_allowed")
	h.end()
	for e := again.next(); e.name != "closed"; e = again.next() {
		if e.name == "end" {
			t.Fatal("the stream is cut when the server stops")
		}
	}
	if again.retry == all.retry {
		t.Error("all clients come back at the same moment")
	}
	if e := again.next(); e.name != "end" {
		t.Errorf("behind the last event comes %+v", e)
	}
	h.awaitEnd()
}

// TestContractEventsOverRestarts comes back to servers that have been stopped meanwhile.
func TestContractEventsOverRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir, setup{})
	s := h.stream("")
	first := h.await(h.submit(`{"type":"report"}`).ID, "completed")
	s.until("job.completed", first.ID)
	begun := s.last
	s.cancel()
	ended := map[string]bool{}
	for range 150 {
		ended[h.submit(`{"type":"export"}`).ID] = true
	}
	h.close()

	h = open(t, dir, setup{})
	for id := range ended {
		h.await(id, "completed")
	}
	last := h.await(h.submit(`{"type":"report"}`).ID, "completed")
	ended[last.ID] = true
	for _, again := range []*stream{h.stream("?type=export&type=report", "Last-Event-ID", begun), h.stream("?last_event_id=" + begun)} {
		if e := again.next(); e.name != "skipped" || !strings.Contains(e.data, `"reason":"only_ends"`) {
			t.Errorf("the first event is %+v", e)
		}
		left := len(ended)
		for seen := map[string]bool{}; left > 0; {
			e := again.next()
			if e.name == "end" {
				t.Fatalf("%d ends are missing", left)
			}
			if e.name == "" {
				continue
			}
			j := readJob(t, []byte(e.data))
			if e.name == "job.completed" && ended[j.ID] && !seen[j.ID] {
				seen[j.ID] = true
				left--
			}
		}
		// The rest is live.
		now := h.submit(`{"type":"report"}`)
		again.until("job.completed", now.ID)
	}
	for _, id := range []string{"nonsense", "00000000-1-0", begun[:9] + "99999999-0"} {
		again := h.stream("", "Last-Event-ID", id)
		e := again.next()
		var why struct{ Reason, Detail string }
		if e.name != "skipped" || json.Unmarshal([]byte(e.data), &why) != nil || why.Reason != "unknown_id" || why.Detail == "" {
			t.Errorf("behind %s comes %+v", id, e)
		}
		now := h.submit(`{"type":"report"}`)
		again.until("job.completed", now.ID)
	}
}

// TestContractDigest follows digests.
func TestContractDigest(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	slow := h.digests("3s")
	s := h.digests("1s")
	j := h.await(h.submit(`{"type":"report"}`).ID, "completed")
	type digest struct {
		At     time.Time
		Types  map[string]struct{ In, Done int }
		Sample []struct{ ID, Status string }
	}
	read := func(s *stream) (d digest) {
		t.Helper()
		e := s.next()
		if e.name != "digest" || e.id != "" || json.Unmarshal([]byte(e.data), &d) != nil || d.At.IsZero() {
			t.Fatalf("the event is %+v", e)
		}
		if len(e.data) > 8<<10 {
			t.Errorf("a digest has %d bytes", len(e.data))
		}
		return d
	}
	in, done := 0, 0
	var sampled []string
	for last := (time.Time{}); done == 0; {
		d := read(s)
		if !d.At.After(last) {
			t.Fatalf("%v comes behind %v", d.At, last)
		}
		last = d.At
		in, done = in+d.Types["report"].In, done+d.Types["report"].Done
		for _, c := range d.Sample {
			if c.ID == j.ID {
				sampled = append(sampled, c.Status)
			}
		}
	}
	if in != 1 || done != 1 || len(sampled) == 0 || sampled[len(sampled)-1] != "completed" {
		t.Errorf("the digests have %d in and %d done, and of the job %v", in, done, sampled)
	}
	// The first one is the latest, and may be that of a moment ago.
	read(slow)
	if first, second := read(slow), read(slow); second.At.Sub(first.At) < 2*time.Second {
		t.Errorf("every three seconds come those of %v and %v", first.At, second.At)
	}
	for query, pointer := range map[string]string{
		"0s": "query/digest", "61s": "query/digest", "1500ms": "query/digest", "often": "query/digest", "1s&type=export": "query/digest",
	} {
		if p := h.do(http.MethodGet, "/events?digest="+query, "").wantProblem(t, 422, "invalid_request"); len(p.Errors) != 1 || p.Errors[0].Pointer != pointer {
			t.Errorf("digest=%s is answered with %+v", query, p)
		}
	}
	h.end()
	for e := s.next(); e.name != "closed"; e = s.next() {
		if e.name == "end" {
			t.Fatal("the stream is cut when the server stops")
		}
	}
	h.awaitEnd()
}

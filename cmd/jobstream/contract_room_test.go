//go:build linux

package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/jobs"
	"jobstream/jobs/handlers/importer"
)

// leave fills a disk, or makes room, until so many bytes are free.
func leave(t *testing.T, data string, free uint64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(data, "ballast"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	mustDo(t, err)
	defer func() { _ = f.Close() }()
	size, err := f.Seek(0, io.SeekEnd)
	mustDo(t, err)
	now, err := node.Free(data)
	mustDo(t, err)
	if now < free {
		mustDo(t, f.Truncate(size-int64(free-now)))
		return
	}
	_, err = f.Write(make([]byte, now-free))
	mustDo(t, err)
}

// empty makes room again.
func empty(t *testing.T, data string) {
	t.Helper()
	mustDo(t, os.Remove(filepath.Join(data, "ballast")))
}

// readyz waits until /readyz has this status, and returns its body.
func (h *house) readyz(status int) (body string) {
	h.t.Helper()
	waitUntil(h.t, func() bool {
		r := h.do(http.MethodGet, "/readyz", "")
		body = string(r.body)
		return r.code == status
	})
	return body
}

// refusesBare waits until bare messages are refused in their PubAck.
func (h *house) refusesBare(nc *nats.Conn) {
	h.t.Helper()
	var ack *pubAck
	waitUntil(h.t, func() bool { ack = h.bare(nc, "jobs.quick", `{}`); return ack.Error != nil })
	if ack.Error.Code != http.StatusServiceUnavailable || !strings.Contains(ack.Error.Description, "data.min_free") {
		h.t.Errorf("a bare message got %+v", ack.Error)
	}
	if ack := h.bare(nc, "jobs.quick.1", `{}`); ack.Error == nil || ack.Seq != 0 {
		h.t.Errorf("a bare message got %+v", ack)
	}
}

// TestContractMinFree lets the disk get nearly full. Nothing new is taken, by whatever
// way. What is in the queue goes on, and jobs that free space are taken. All is well
// again when there is room, without a restart.
func TestContractMinFree(t *testing.T) {
	t.Parallel()
	_, data := onTmpfs(t, "192m")
	held := newPuppet()
	h := open(t, data, setup{
		handlers: map[string]jobs.Handler{"held": held, "quick": jobs.HandlerFunc(nothing)},
		change: func(c *config.Config) {
			c.Data.MinFree = 64 << 20
			c.Jobs["import"] = config.JobType{Run: "import", Timeout: time.Minute, Inputs: importer.Inputs()}
		},
	})
	nc := h.dial()
	ended, err := nc.SubscribeSync("job.completed.held.>")
	mustDo(t, err)
	mustDo(t, nc.Flush())
	h.readyz(http.StatusOK)
	running := h.submit(`{"type":"held"}`)
	first := held.next(t)
	file := readJob(t, h.do(http.MethodPost, "/artifacts", "n\n1\n2\n").body)
	dead := h.cancel(h.submit(`{"type":"quick","delay":"1h"}`).ID, "")
	once := h.do(http.MethodPost, "/jobs", `{"type":"quick"}`, "Idempotency-Key", "once")
	h.addSchedule(`{"name":"often","every":"1s","type":"quick","paused":true}`)
	h.addSchedule(`{"name":"sweep","every":"300d","type":"cleanup","payload":{"older_than":"1d"}}`)
	h.do(http.MethodPost, "/types/import/pause", "")
	imported := h.submit(`{"type":"import","payload":{"type":"quick","format":"csv","payload":{"n":"{{.row.n}}"}},"inputs":{"file":"%s"}}`, file.ID)

	// An upload ends before the disk is full, although there is room for its beginning.
	big := h.do(http.MethodPost, "/artifacts", strings.Repeat("x", 160<<20))
	short := []string{"data.min_free", data, "bytes", "MiB"}
	says := func(text string) {
		t.Helper()
		for _, word := range short {
			if !strings.Contains(text, word) {
				t.Errorf("%q is missing in: %s", word, text)
			}
		}
	}
	says(big.wantProblem(t, http.StatusServiceUnavailable, "unavailable").Detail)

	leave(t, data, 48<<20)
	says(h.readyz(http.StatusServiceUnavailable))
	for _, r := range []struct{ path, body string }{
		{"/jobs", `{"type":"quick"}`},
		{"/jobs", `{"type":"quick","delay":"1h"}`},
		{"/jobs", `{"type":"import","payload":{"type":"quick"},"inputs":{"file":"` + file.ID + `"}}`},
		{"/jobs/batch", `{"jobs":[{"type":"quick"},{"type":"quick"}]}`},
		{"/jobs/" + dead.ID + "/retry", ""},
		{"/jobs/bulk", `{"action":"retry","all":true}`},
		{"/schedules/often/run", ""},
		{"/artifacts", "a file"},
	} {
		answer := h.do(http.MethodPost, r.path, r.body)
		says(answer.wantProblem(t, http.StatusServiceUnavailable, "unavailable").Detail)
		if after := answer.header.Get("Retry-After"); after != "10" {
			t.Errorf("%s: Retry-After is %q", r.path, after)
		}
	}
	for _, r := range []struct{ endpoint, body string }{
		{"submit", `{"type":"quick"}`},
		{"run", `{"type":"quick"}`},
		{"batch", `{"jobs":[{"type":"quick"}]}`},
		{"retry", `{"id":"` + dead.ID + `"}`},
	} {
		says(wantProblem(t, h.call(nc, r.endpoint, r.body).Data, http.StatusServiceUnavailable, "unavailable").Detail)
	}
	h.refusesBare(nc)
	if again := h.do(http.MethodPost, "/jobs", `{"type":"quick"}`, "Idempotency-Key", "once"); again.code != http.StatusAccepted || readJob(t, again.body).ID != readJob(t, once.body).ID {
		t.Errorf("a repeated request got %d: %s", again.code, again.body)
	}

	// What is there goes on, to its end and its notification.
	first.finish()
	h.await(running.ID, "completed")
	m, err := ended.NextMsg(patience)
	mustDo(t, err)
	if got := readJob(t, m.Data).ID; got != running.ID {
		t.Errorf("notified of %s", got)
	}
	h.do(http.MethodPost, "/types/import/resume", "")
	waitUntil(t, func() bool {
		return strings.Contains(string(h.do(http.MethodGet, "/jobs/"+imported.ID, "").body), "data.min_free")
	})
	h.do(http.MethodPut, "/schedules/often", `{"every":"1s","type":"quick"}`)

	// What frees space is taken.
	h.await(h.submit(`{"type":"cleanup","payload":{"older_than":"30d"}}`).ID, "completed")
	h.await(readJob(t, h.do(http.MethodPost, "/schedules/sweep/run", "").body).ID, "completed")
	h.await(readJob(t, h.do(http.MethodPost, "/jobs/bulk", `{"action":"delete","filter":{"status":"cancelled"}}`).body).ID, "completed")
	if r := h.do(http.MethodGet, "/jobs/"+dead.ID, ""); r.code != http.StatusNotFound {
		t.Errorf("it was not deleted: %d", r.code)
	}
	if n := strings.Count(h.log.String(), "the disk is nearly full"); n < 1 || n > 2 { // the upload's end may have been one
		t.Errorf("it was logged %d times that the disk is nearly full:\n%s", n, h.log)
	}
	if fires := h.fires("often"); len(fires) > 0 {
		t.Errorf("a schedule made %d jobs", len(fires))
	}

	empty(t, data)
	h.readyz(http.StatusOK)
	h.await(h.submit(`{"type":"quick"}`).ID, "completed")
	h.await(imported.ID, "completed")
	waitUntil(t, func() bool { return h.bare(nc, "jobs.quick", `{}`).Error == nil })
	h.awaitFires("often", 1)
	if !strings.Contains(h.log.String(), "the disk has room again") {
		t.Errorf("nothing was logged when there was room again:\n%s", h.log)
	}
}

// TestContractMinFreeEdge has a disk between the two bounds: what is refused stays
// refused until there is an eighth more, and what is taken stays taken.
func TestContractMinFreeEdge(t *testing.T) {
	t.Parallel()
	_, data := onTmpfs(t, "192m")
	h := open(t, data, setup{
		handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(nothing)},
		change:   func(c *config.Config) { c.Data.MinFree = 64 << 20 },
	})
	leave(t, data, 68<<20)
	h.submit(`{"type":"quick"}`)
	leave(t, data, 58<<20)
	h.readyz(http.StatusServiceUnavailable)
	leave(t, data, 68<<20)
	waitUntil(t, func() bool { return strings.Contains(string(h.do(http.MethodGet, "/readyz", "").body), " bytes (6") })
	h.do(http.MethodPost, "/jobs", `{"type":"quick"}`).wantProblem(t, http.StatusServiceUnavailable, "unavailable")
	leave(t, data, 76<<20)
	h.readyz(http.StatusOK)
	h.submit(`{"type":"quick"}`)
}

// TestContractMinFreeOff has a disk that is nearly full, and no bound.
func TestContractMinFreeOff(t *testing.T) {
	t.Parallel()
	_, data := onTmpfs(t, "192m")
	leave(t, data, 64<<20)
	h := open(t, data, setup{
		handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(nothing)},
		change:   func(c *config.Config) { c.Data.MinFree = 0 },
	})
	if body := h.readyz(http.StatusOK); strings.Contains(body, "disk") {
		t.Errorf("readyz speaks of the disk: %s", body)
	}
	h.submit(`{"type":"quick"}`)
	h.close()

	// A start on it with a bound works, and says why it takes nothing.
	h = open(t, data, setup{
		handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(nothing)},
		change:   func(c *config.Config) { c.Data.MinFree = 100 << 20 },
	})
	h.readyz(http.StatusServiceUnavailable)
	h.do(http.MethodPost, "/jobs", `{"type":"quick"}`).wantProblem(t, http.StatusServiceUnavailable, "unavailable")
	nc := h.dial() // its account did not exist yet
	h.refusesBare(nc)
	empty(t, data)
	h.readyz(http.StatusOK)
	waitUntil(t, func() bool { return h.bare(nc, "jobs.quick", `{}`).Error == nil })
}

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/handlers"
)

// hurry lets nodes follow each other quickly.
func hurry(t *testing.T) {
	t.Helper()
	before := firstPause
	firstPause = time.Millisecond
	t.Cleanup(func() { firstPause = before })
}

// hurt takes a stream away, which nothing but another start of the broker makes good,
// and waits until that has happened so many times.
func (h *house) hurt(stream string, times int) {
	h.t.Helper()
	nc, err := nats.Connect(h.nats, nats.NoReconnect())
	mustDo(h.t, err)
	js, err := jetstream.New(nc)
	mustDo(h.t, err)
	mustDo(h.t, js.DeleteStream(h.t.Context(), stream))
	nc.Close()
	select {
	case <-h.log.has(fmt.Sprintf("healed: jobs are taken and run again\" times=%d ", times)):
	case why := <-h.ended:
		h.t.Fatalf("the server ended: %s", why)
	case <-time.After(patience):
		h.t.Fatal("the server does not heal")
	}
}

// TestHeal breaks the broker while jobs wait, sleep and run. The process goes on at the
// same ports with all that it had; what ran is run again, and it used up nothing.
func TestHeal(t *testing.T) {
	hurry(t)
	held := newPuppet()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"held": held, "quick": jobs.HandlerFunc(nothing)},
		change: func(c *config.Config) {
			c.Worker.MaxWorkers, c.Worker.MaxLost = 3, 1 // one that were counted would be the end of a job
		},
	})
	h.do(http.MethodPut, "/workers", `{"max_workers":1}`)
	running := h.submit(`{"type":"held"}`)
	first := held.next(t)
	waiting := h.submit(`{"type":"held"}`)
	asleep := h.submit(`{"type":"quick","delay":"1h"}`)
	h.do(http.MethodPost, "/types/quick/pause", "")
	paused := h.submit(`{"type":"quick"}`)
	for i, stream := range []string{"JOBS", "STATUS", "NOTIFICATIONS"} {
		h.hurt(stream, i+1)
		select {
		case <-first.ctx.Done():
		case <-time.After(patience):
			t.Fatal("the handler was not told")
		}
		again := held.next(t)
		if again.id() != running.ID || again.task.Attempt != 1 || again.task.Job.Lost != 0 {
			t.Errorf("after a new start attempt %d of %s runs, with %d workers lost; want the first of %s", again.task.Attempt, again.id(), again.task.Job.Lost, running.ID)
		}
		first = again
		if max := h.stats().MaxWorkers; max != 1 {
			t.Errorf("there are %d workers, want the 1 that was set", max)
		}
	}
	first.finish()
	held.next(t).finish()
	h.await(running.ID, "completed")
	h.await(waiting.ID, "completed")
	h.accepted(h.dial(), "jobs.quick", `{}`) // at the port that it had
	h.do(http.MethodPost, "/types/quick/resume", "")
	h.await(paused.ID, "completed")
	if s := h.job(asleep.ID); s.Status != "scheduled" {
		t.Errorf("the job that waited for its time is %s", s.Status)
	}
	h.close()
}

// TestHealLeavesNothing heals often: goroutines, open files and memory stay as they were.
func TestHealLeavesNothing(t *testing.T) {
	hurry(t)
	const times = 10
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(nothing)}, allLines: true})
	round := func(n int) {
		h.hurt([]string{"JOBS", "STATUS", "NOTIFICATIONS"}[n%3], n)
		h.await(h.submit(`{"type":"quick"}`).ID, "completed")
	}
	round(1)
	goroutines, files, memory := runtime.NumGoroutine(), openFiles(t), alive()
	for n := range times {
		round(n + 2)
	}
	const few = times / 2 // one left by each would be too many
	waitUntil(t, func() bool {
		return runtime.NumGoroutine() <= goroutines+few && openFiles(t) <= files+few && alive() <= memory+few<<20
	})
	t.Logf("%d goroutines, %d files and %d KiB, then %d, %d and %d", goroutines, files, memory>>10, runtime.NumGoroutine(), openFiles(t), alive()>>10)
	h.close()
}

// TestHealBeginsNothing has the data folder go while there is no node: a new one must not
// begin with an empty folder.
func TestHealBeginsNothing(t *testing.T) {
	cfg := config.Default(handlers.Kinds())
	cfg.Data.Dir, cfg.Server.Port, cfg.Broker.Port = filepath.Join(t.TempDir(), "data"), 0, -1
	s := &server{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	mustDo(t, s.start(t.Context()))
	s.down(errors.New("as if it were stuck"))
	away := cfg.Data.Dir + ".away"
	mustDo(t, os.Rename(cfg.Data.Dir, away))
	if err := s.up(t.Context()); err == nil || !strings.Contains(err.Error(), "put the data folder back") {
		t.Fatalf("without a folder: %v", err)
	}
	if _, err := os.Stat(cfg.Data.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a folder was made: %v", err)
	}
	mustDo(t, os.Rename(away, cfg.Data.Dir))
	mustDo(t, s.up(t.Context()))
	mustDo(t, s.stop(t.Context(), nil))
}

// TestHealStopped stops a server that has no node because none can be started: it refuses
// everything with a reason until then, and ends at once.
func TestHealStopped(t *testing.T) {
	hurry(t)
	cfg := config.Default(handlers.Kinds())
	cfg.Data.Dir, cfg.Server.Port, cfg.Broker.Port = filepath.Join(t.TempDir(), "data"), 0, -1
	signals := make(chan os.Signal, 2)
	h := newHouse(t, func() { signals <- os.Interrupt })
	s := &server{cfg: cfg, log: newLogger(cfg.Log, h.log), signals: signals}
	go func() {
		if err := s.serve(t.Context()); err != nil {
			h.ended <- err.Error()
		}
		close(h.ended)
	}()
	h.awaitReady()
	away := cfg.Data.Dir + ".away"
	mustDo(t, os.Rename(cfg.Data.Dir, away))
	s.node.Mend <- errors.New("as if it were stuck")
	select {
	case <-h.log.has("could not be started anew"):
	case <-time.After(patience):
		t.Fatal("nothing is tried")
	}
	for path, want := range map[string]int{"/jobs": 503, "/readyz": 503, "/workers/stats": 503, "/livez": 200} {
		r := h.do(http.MethodGet, path, "")
		if r.code != want || path == "/jobs" && (r.header.Get("Retry-After") == "" || !strings.Contains(string(r.body), `"unavailable"`)) {
			t.Errorf("%s: %d %v %s", path, r.code, r.header, r.body)
		}
	}
	h.gone = true
	h.end()
	select {
	case why := <-h.ended:
		if !strings.Contains(why, errCutOff.Error()) {
			t.Errorf("it ended with %q", why)
		}
	case <-time.After(patience):
		t.Fatal("it does not stop")
	}
	mustDo(t, os.Rename(away, cfg.Data.Dir))
	open(t, cfg.Data.Dir, setup{}).close()
}

// alive is the memory in use, in bytes.
func alive() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// openFiles counts the files that this process has open, 0 where that is not known.
func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return len(all)
}

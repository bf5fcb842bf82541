package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/jobs"
	"jobstream/jobs/handlers"
	"jobstream/status"
)

// TestStopNotifiesTheLast has bare messages that cannot be jobs arrive all through a
// stop. They end as soon as they are committed, without any worker. Every end that the
// tracker has stored must be notified before the next start, since that start finds a
// clean stop and publishes nothing again.
func TestStopNotifiesTheLast(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir, setup{})
	nc := h.dial()
	var sent atomic.Int64
	over := make(chan struct{})
	go func() {
		defer close(over)
		// Flushed one by one: a slow machine must not be left far behind.
		for nc.Publish("jobs.nobody-knows", []byte(`{}`)) == nil && nc.FlushTimeout(patience) == nil {
			sent.Add(1)
		}
	}()
	waitUntil(t, func() bool { return sent.Load() > 1000 })
	h.close()
	<-over

	h = open(t, dir, setup{})
	js, err := jetstream.New(h.dial())
	mustDo(t, err)
	stream, err := js.Stream(t.Context(), "NOTIFICATIONS")
	mustDo(t, err)
	// Messages from after the tracker's stop are read now; no more come.
	var failed, told int
	state, err := js.Stream(t.Context(), "JOBS")
	mustDo(t, err)
	deadline := time.Now().Add(patience / 2)
	waitUntil(t, func() bool {
		failed = int(h.stats().FailedJobs)
		waiting, err := state.Info(t.Context())
		mustDo(t, err)
		info, err := stream.Info(t.Context())
		mustDo(t, err)
		told = int(info.State.Msgs)
		return waiting.State.Msgs == 0 && told == failed || time.Now().After(deadline)
	})
	if told != failed {
		t.Errorf("%d jobs have failed, %d of them have a notification", failed, told)
	}
	t.Logf("%d messages were sent, %d of them became jobs that failed", sent.Load(), failed)
}

// TestQueuedAgainOnce starts on a vanished broker folder: every unfinished job
// is published again once. The tail of JOBS, which looks for messages that others have
// removed, must not join in.
func TestQueuedAgainOnce(t *testing.T) {
	t.Parallel()
	const ended, waiting = 3000, 1500
	dir := t.TempDir()
	held := newPuppet()
	s := setup{
		handlers: map[string]jobs.Handler{"held": held},
		change:   func(c *config.Config) { c.Worker.QueueSize, c.Worker.MaxWorkers, c.Worker.ShutdownGrace = 2000, 1, 0 },
	}
	h := open(t, dir, s)
	nc := h.dial()
	for range ended {
		h.accepted(nc, "jobs.nobody-knows", `{}`)
	}
	for range waiting {
		h.accepted(nc, "jobs.held", `{}`)
	}
	held.next(t)
	h.close()
	mustDo(t, os.RemoveAll(filepath.Join(dir, "broker")))

	h = open(t, dir, s)
	js, err := jetstream.New(h.dial())
	mustDo(t, err)
	stream, err := js.Stream(t.Context(), "JOBS")
	mustDo(t, err)
	if st := stream.CachedInfo().State; st.Msgs != waiting || st.LastSeq != ended+2*waiting {
		t.Errorf("JOBS has %d messages and ends at %d, want %d and %d", st.Msgs, st.LastSeq, waiting, ended+2*waiting)
	}
}

// TestSecondSignalWhileStarting holds up a start, here by the lock on the
// tracker: the second signal ends it at once even then.
func TestSecondSignalWhileStarting(t *testing.T) {
	cfg := config.Default(handlers.Kinds())
	knowAdmin(cfg)
	cfg.Data.Dir, cfg.Server.Port, cfg.Broker.Port = t.TempDir(), 0, -1
	other, err := status.Open(status.Options{Path: node.FoldersIn(cfg.Data.Dir).Tracker})
	mustDo(t, err)
	defer func() { mustDo(t, other.Close()) }()
	signals := make(chan os.Signal)
	s := &server{cfg: cfg, log: slog.New(slog.DiscardHandler), signals: signals}
	ended := make(chan error, 1)
	go func() { ended <- s.serve(t.Context()) }()
	signals <- os.Interrupt
	select {
	case signals <- os.Interrupt:
	case <-time.After(patience):
		t.Fatal("nobody hears a second signal")
	}
	if err := <-ended; !errors.Is(err, errSecondSignal) {
		t.Errorf("it ended with %v", err)
	}
	waitUntil(t, func() bool { // what was started is still on the folder that the test removes
		stacks := make([]byte, 1<<20)
		return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("node.Open("))
	})
}

// TestNoteOfACleanStop has a server stopped and killed. Only the stop leaves the note
// that saves the next start a walk over the whole tracker. The note is gone as soon as
// that start is ready.
func TestNoteOfACleanStop(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: notes of clean stops on this system")
	}
	dir := t.TempDir()
	note := filepath.Join(dir, "data", "status.db-intact")
	expect := func(when string, want bool) {
		t.Helper()
		if _, err := os.Stat(note); err != nil && !errors.Is(err, os.ErrNotExist) || err == nil != want {
			t.Errorf("%s: there is a note: %v (%v), want %v", when, err == nil, err, want)
		}
	}
	for range 2 {
		c := startChild(t, dir)
		expect("a server that is ready", false)
		mustDo(t, c.cmd.Process.Signal(syscall.SIGTERM))
		if err := <-c.done; err != nil {
			t.Fatalf("the stop was not clean: %v\n%s", err, c.logged())
		}
		expect("after a clean stop", true)
	}
	c := startChild(t, dir)
	c.kill()
	expect("after kill -9", false)
}

//go:build unix

package status

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"

	"jobstream/jobs"
	"jobstream/status/record"
)

// logged passes on the messages of a log.
type logged chan string

func (l logged) Enabled(context.Context, slog.Level) bool      { return true }
func (l logged) Handle(_ context.Context, r slog.Record) error { l <- r.Message; return nil }
func (l logged) WithAttrs([]slog.Attr) slog.Handler            { return l }
func (l logged) WithGroup(string) slog.Handler                 { return l }
func (l logged) await(t *testing.T, ctx context.Context, m string) { //nolint:revive // testing.T first, as everywhere here
	t.Helper()
	for {
		select {
		case got := <-l:
			if strings.Contains(got, m) {
				return
			}
		case <-ctx.Done():
			t.Fatalf("was not logged: %s", m)
		}
	}
}

// limitFileSize makes every write of this process beyond so many bytes of a
// file fail, as a full disk would, until the returned function is called.
func limitFileSize(t *testing.T, size int64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ) // which would end the process
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Skipf("NOT TESTED, a full disk: %v", err)
	}
	now := was
	now.Cur = uint64(size)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &now); err != nil {
		t.Skipf("NOT TESTED, a full disk: %v", err)
	}
	lifted := false
	lift = func() {
		if lifted {
			return
		}
		lifted = true
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
			t.Fatalf("lift the limit again: %v", err)
		}
	}
	t.Cleanup(lift)
	return lift
}

func (tr *tracker) size() int64 {
	tr.t.Helper()
	info, err := os.Stat(tr.o.Path)
	if err != nil {
		tr.t.Fatalf("%v", err)
	}
	return info.Size()
}

// aloneEnv names the test that this process was started for.
const aloneEnv = "STATUS_TEST_ALONE"

// alone runs a test in a process of its own, and says whether this is it. A
// bound on the size of files holds for the whole process, also for the log that
// go test itself keeps.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(aloneEnv) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), aloneEnv+"="+t.Name())
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("in a process of its own: %v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skipf("%s", out)
	case !bytes.Contains(out, []byte("--- PASS: "+t.Name())):
		t.Errorf("it did not run:\n%s", out)
	}
	return false
}

// While the disk is full nothing is published and nothing has changed; once there is
// room the same batch is committed and published.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	log := make(logged, 16)
	tr := startSynced(t, Options{Logger: slog.New(log)})
	ctx, cancel := within(t)
	defer cancel()
	running := message(1)
	tr.submit(running)
	tr.Happened(1, []jobs.Event{event(jobs.KindStarted, running, 1)})
	tr.wait(1, 1)
	tr.until("the first", func(cs []jobs.Commit) bool { return len(cs) > 0 && cs[len(cs)-1].Positions.Jobs == 1 })

	lift := limitFileSize(t, tr.size())
	// More than fits into what the file has room for, even if part of it gets through.
	const n = 4000
	for seq := uint64(2); seq <= n; seq++ {
		m := message(seq)
		m.Payload = []byte(`"` + strings.Repeat("x", record.InlinePayload-100) + `"`)
		m.Tags = []string{"red"}
		tr.submit(m)
	}
	tr.Happened(2, []jobs.Event{event(jobs.KindCompleted, running, 1)})
	log.await(t, ctx, "cannot commit")
	if err := tr.Health(); err == nil || !strings.Contains(err.Error(), tr.o.Path) {
		t.Fatalf("Health = %v", err)
	}
	pos := tr.Positions()
	if pos.Jobs == n {
		t.Fatal("all was committed; the limit did not bite")
	}
	if pos.Status != 1 {
		t.Errorf("positions %+v", pos)
	}
	tr.none(pos.Jobs + 1)
	tr.none(n)
	if j := tr.find(1); j.Status != jobs.Processing {
		t.Errorf("%+v", j)
	}
	tr.verify()
	tr.until("what is committed", func(cs []jobs.Commit) bool { return cs[len(cs)-1].Positions.Jobs == pos.Jobs })
	// Small things cannot be written either; who asks for them is refused or waits.
	short, stop := context.WithCancel(ctx)
	stop()
	if _, _, err := tr.Delete(short, []uint64{1}); err == nil {
		t.Error("Delete on a full disk")
	}

	lift()
	log.await(t, ctx, "can write again")
	tr.wait(n, 2)
	if err := tr.Health(); err != nil {
		t.Errorf("Health = %v", err)
	}
	cs := tr.until("the rest", func(cs []jobs.Commit) bool {
		return cs[len(cs)-1].Positions.Jobs == n && slices.ContainsFunc(cs, func(c jobs.Commit) bool { return len(slices.Collect(c.Ended())) > 0 })
	})
	submitted, ended, at := 0, 0, uint64(0)
	for _, c := range cs {
		submitted += len(slices.Collect(c.Submitted()))
		ended += len(slices.Collect(c.Ended()))
		if c.Positions.Jobs < at {
			t.Errorf("position %d published after %d", c.Positions.Jobs, at)
		}
		at = c.Positions.Jobs
	}
	if submitted != n || ended != 1 {
		t.Errorf("published %d submissions and %d ends", submitted, ended)
	}
	if got := tr.count(jobs.Filter{Tags: []string{"red"}}); got != n-1 {
		t.Errorf("%d red ones", got)
	}
	tr.verify()
	tr.reopen()
	tr.run(idle{})
	tr.verify()
}

// A stop while the disk is full says that not everything could be written, and
// what could not is read again next time.
func TestStopOnFullDisk(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	log := make(logged, 16)
	tr := startSynced(t, Options{Logger: slog.New(log)})
	ctx, cancel := within(t)
	defer cancel()
	tr.submit(message(1))
	tr.wait(1, 0)
	lift := limitFileSize(t, tr.size())
	const n = 4000
	for seq := uint64(2); seq <= n; seq++ {
		m := message(seq)
		m.Payload = []byte(`"` + strings.Repeat("x", record.InlinePayload-100) + `"`)
		tr.submit(m)
	}
	log.await(t, ctx, "cannot commit")
	if err := tr.halt(); err == nil {
		t.Error("Run = nil, though a batch could not be written")
	}
	pos := tr.Positions()
	lift()
	tr.reopen()
	if got := tr.Positions(); got != pos || got.Jobs == n {
		t.Errorf("positions %+v, before the restart %+v", got, pos)
	}
	tr.run(idle{})
	for seq := pos.Jobs + 1; seq <= n; seq++ {
		tr.submit(message(seq))
	}
	tr.wait(n, 0)
	if got := tr.count(jobs.Filter{}); got != n {
		t.Errorf("%d jobs", got)
	}
	tr.verify()
}

// A deletion that cannot be written has not happened, and leaves nothing behind
// in what is kept in memory.
func TestDeleteOnFullDisk(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	tr := startSynced(t, Options{})
	ctx, cancel := within(t)
	defer cancel()
	var keys []uint64
	for seq := uint64(1); seq <= 20; seq++ {
		m := message(seq)
		m.Tags = []string{"red"}
		tr.submit(m)
		tr.Happened(seq, []jobs.Event{event(jobs.KindCompleted, m, 1)})
		keys = append(keys, seq)
	}
	tr.wait(20, 20)
	lift := limitFileSize(t, 2*int64(os.Getpagesize())) // no page but the first two
	if n, _, err := tr.Delete(ctx, keys[:10]); n != 0 || err == nil {
		t.Fatalf("deleted %d, %v", n, err)
	}
	tr.verify()
	lift()
	// The next commit writes the same bitmaps.
	tr.submit(message(21))
	tr.wait(21, 20)
	if got := tr.count(jobs.Filter{Types: []string{"email"}}); got != 21 {
		t.Errorf("%d jobs", got)
	}
	tr.verify()
	if n, _, err := tr.Delete(ctx, keys); n != 20 || err != nil {
		t.Fatalf("deleted %d, %v", n, err)
	}
	tr.verify()
}

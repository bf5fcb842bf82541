//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs/api"
)

// onTmpfs gives a folder whose data folder is a small disk in memory.
func onTmpfs(t *testing.T, size string) (dir, data string) {
	t.Helper()
	dir = t.TempDir()
	data = filepath.Join(dir, "data")
	mustDo(t, os.Mkdir(data, 0o750))
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("NOT TESTED, %s: cannot mount a tmpfs (are you root?): %v", t.Name(), err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(data, syscall.MNT_DETACH) })
	return dir, data
}

// fill writes a file until there is no room left.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	mustDo(t, err)
	defer func() { _ = f.Close() }()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else {
			mustDo(t, err)
		}
	}
}

// answer is what a request got.
type answer struct {
	code int
	body string
	took time.Duration
}

func ask(t *testing.T, method, url, body string) (a answer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	mustDo(t, err)
	begun := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	mustDo(t, err)
	return answer{resp.StatusCode, string(bytes.TrimSpace(b)), time.Since(begun)}
}

// wait asks until an answer is as it should be.
func wait(t *testing.T, what string, a func() answer, ok func(answer) bool) {
	t.Helper()
	var last answer
	for end := time.Now().Add(patience); ; {
		if last = a(); ok(last) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v; the last answer was %d %s", what, patience, last.code, last.body)
		}
		select {
		case <-time.After(20 * time.Millisecond): // what is awaited is in another process
		case <-t.Context().Done():
		}
	}
}

// unready waits until a server reports that it is not ready, with these words. It
// checks that submissions are refused in time and with a reason.
func unready(t *testing.T, c *child, words ...string) {
	t.Helper()
	ready := func() answer { return ask(t, http.MethodGet, c.rest+"/readyz", "") }
	submit := func() answer { return ask(t, http.MethodPost, c.rest+"/jobs", `{"type":"quick"}`) }
	wait(t, "it is not ready any more", func() answer {
		if a := submit(); a.code != http.StatusAccepted {
			refused(t, a)
		}
		return ready()
	}, func(a answer) bool { return a.code == http.StatusServiceUnavailable })
	for range 5 {
		refused(t, submit())
	}
	wait(t, "it says why", ready, func(a answer) bool {
		for _, w := range words {
			if !strings.Contains(a.body, w) {
				return false
			}
		}
		return true
	})
	if a := ask(t, http.MethodGet, c.rest+"/livez", ""); a.code != http.StatusOK {
		t.Errorf("livez: %d %s", a.code, a.body)
	}
}

// refused checks that an answer is the 503 of something that is broken for now. The
// server gives a submission five seconds; the rest is for a machine that has much to do.
func refused(t *testing.T, a answer) {
	t.Helper()
	if a.code != http.StatusServiceUnavailable || !strings.Contains(a.body, `"code":"unavailable"`) || a.took > 20*time.Second {
		t.Errorf("a submission got %d after %v: %s", a.code, a.took, a.body)
	}
}

// calmLoad is load that does not pile up a queue while nothing is worked off:
// what a stream acknowledges goes on without the tracker.
func calmLoad(ctx context.Context, c *child, seed uint64, promised *acked) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 8 * time.Second}
	defer client.CloseIdleConnections()
	nc, err := nats.Connect(c.nats, nats.NoReconnect())
	if err != nil {
		return
	}
	defer nc.Close()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			pace := time.NewTicker(5 * time.Millisecond)
			defer pace.Stop()
			for ctx.Err() == nil {
				kind := "quick"
				if rng.IntN(10) == 0 {
					kind = [...]string{"flaky", "doomed", "slow"}[rng.IntN(3)]
				}
				short, cancel := context.WithTimeout(ctx, 8*time.Second)
				ref, bare, ok := submitSomehow(short, client, nc, c.rest, kind, 1+rng.IntN(5), rng)
				cancel()
				if ok {
					promised.add(promise{id: ref, kind: kind, bare: bare})
				}
				<-pace.C
			}
		})
	}
	wg.Wait()
}

// under runs f under load.
func under(t *testing.T, c *child, seed uint64, promised *acked, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	loaded := make(chan struct{})
	go func() { calmLoad(ctx, c, seed, promised); close(loaded) }()
	after := promised.count.Load() + 300
	waitUntil(t, func() bool { return promised.count.Load() >= after })
	f()
	cancel()
	<-loaded
}

// finish waits until all is done, for as long as something gets done, and
// compares every promise.
func finish(t *testing.T, c *child, dir string, promised *acked) {
	t.Helper()
	var before api.Stats
	for since := time.Now(); ; {
		var s api.Stats
		get(t, c.rest+"/workers/stats", &s)
		if s.QueuedJobs+s.RetryingJobs+s.ActiveWorkers == 0 {
			break
		}
		if s.CompletedJobs != before.CompletedJobs || s.FailedJobs != before.FailedJobs || s.RetryingJobs != before.RetryingJobs {
			before, since = s, time.Now()
		}
		if time.Since(since) > patience {
			t.Fatalf("for %v nothing was done: %+v\n%s", patience, s, c.logged())
		}
		select {
		case <-time.After(20 * time.Millisecond): // what is awaited is in another process
		case <-t.Context().Done():
		}
	}
	verifyAll(t, c, dir, promised)
}

// terminate stops a server that cannot write with SIGTERM: it must end, and not
// take for ever. Whether it can do so cleanly is not its choice.
func terminate(t *testing.T, c *child) {
	t.Helper()
	begun := time.Now()
	mustDo(t, c.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-c.done:
		t.Logf("stopped after %v: %v", time.Since(begun).Round(time.Millisecond), err)
	case <-time.After(patience):
		t.Fatalf("did not stop within %v of a SIGTERM\n%s", patience, c.logged())
	}
	if said := c.logged(); strings.Contains(said, "\npanic:") || strings.Contains(said, "\ngoroutine ") {
		t.Errorf("it crashed:\n%s", said)
	}
}

// healed waits until a server that could not write goes on by itself, and checks that
// nothing is missing, what its streams had acknowledged included.
func healed(t *testing.T, c *child, promised *acked) {
	t.Helper()
	defer func() {
		if t.Failed() { // it says where each of its goroutines is
			_ = c.cmd.Process.Signal(syscall.SIGQUIT)
			<-c.done
			t.Log(c.logged())
		}
	}()
	wait(t, "it is ready again", func() answer { return ask(t, http.MethodGet, c.rest+"/readyz", "") },
		func(a answer) bool { return a.code == http.StatusOK })
	missing(t, c, promised, false, 0)
}

// TestCrashDiskFull fills the disk under load. Acknowledged jobs are there when there
// is room again, with and without a restart. A start without room fails with a reason.
//
// It runs alone: under load nats-server 2.15.2 may lock itself up when a purge meets the
// full disk (see the known weaknesses in DESIGN.md).
func TestCrashDiskFull(t *testing.T) {
	inCI(t)
	rng := seeded(t)
	dir, data := onTmpfs(t, "96m")
	ballast := filepath.Join(data, "ballast")
	promised := &acked{}
	full := func(c *child) {
		under(t, c, rng.Uint64(), promised, func() {
			fill(t, ballast)
			unready(t, c, "no space left", "free disk space")
		})
		missingAccepted(t, c, promised) // what is on disk can be read
	}
	c := startChild(t, dir)
	full(c)
	terminate(t, c)
	c, code, said := attempt(t, dir)
	if c != nil {
		t.Logf("it starts on a full disk")
		c.kill()
	} else {
		says(t, code, said)
	}
	mustDo(t, os.Remove(ballast))
	c = startChild(t, dir)
	missing(t, c, promised, false, 0)
	for range 2 {
		full(c)
		mustDo(t, os.Remove(ballast))
		healed(t, c, promised)
	}
	under(t, c, rng.Uint64(), promised, func() {})
	finish(t, c, dir, promised)
	terminate(t, c)
}

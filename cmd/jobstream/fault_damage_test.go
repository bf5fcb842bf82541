package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// attempt starts a server that may not get ready. It returns the child if it
// does, else its exit code and what it said.
func attempt(t *testing.T, dir string) (c *child, code int, said string) {
	t.Helper()
	cmd := exec.Command(os.Args[0]) //nolint:noctx // it is killed by hand
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StderrPipe()
	mustDo(t, err)
	mustDo(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	deadline := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer deadline.Stop()
	var log strings.Builder
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		log.WriteString(line)
		if strings.Contains(line, "msg=ready") {
			c = &child{cmd: cmd, rest: attribute(line, "rest="), nats: attribute(line, "nats="), done: make(chan error, 1)}
			go func() {
				_, _ = io.Copy(io.Discard, lines)
				c.done <- cmd.Wait()
			}()
			return c, 0, log.String()
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, exit.ExitCode(), log.String()
	}
	mustDo(t, err)
	return nil, 0, log.String()
}

// refuses checks that a server does not start, and says why in one last line.
func refuses(t *testing.T, dir string, words ...string) {
	t.Helper()
	c, code, said := attempt(t, dir)
	if c != nil {
		c.kill()
		t.Errorf("the server started:\n%s", said)
		return
	}
	says(t, code, said, words...)
}

func says(t *testing.T, code int, said string, words ...string) {
	t.Helper()
	if code != exitBroken {
		t.Errorf("exit code %d, want %d:\n%s", code, exitBroken, said)
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	last := lines[len(lines)-1]
	for _, word := range words {
		if !strings.Contains(last, word) {
			t.Errorf("the last line does not say %q: %s", word, last)
		}
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "goroutine ") || strings.HasPrefix(line, "fatal error:") {
			t.Errorf("it crashed:\n%s", said)
			return
		}
	}
}

// loaded gives a folder in which a server has worked and was stopped cleanly.
func loaded(t *testing.T, seed uint64, atLeast int64) (dir string, promised *acked) {
	t.Helper()
	dir, promised = t.TempDir(), &acked{}
	c := startChild(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { load(ctx, c, seed, promised); close(done) }()
	waitUntil(t, func() bool { return promised.count.Load() >= atLeast })
	cancel()
	<-done
	mustDo(t, c.cmd.Process.Signal(syscall.SIGTERM))
	if err := <-c.done; err != nil {
		t.Fatalf("the stop was not clean: %v\n%s", err, c.logged())
	}
	return dir, promised
}

const dbPage = 4096

// fileDamages are what can happen to the tracker's file.
var fileDamages = []struct {
	name string
	do   func(b []byte, rng *rand.Rand) []byte
}{
	{"no meta page", func(b []byte, _ *rand.Rand) []byte { clear(b[:2*dbPage]); return b }},
	{"cut in half", func(b []byte, _ *rand.Rand) []byte { return b[:len(b)/2/dbPage*dbPage] }},
	{"cut to two pages", func(b []byte, _ *rand.Rand) []byte { return b[:2*dbPage] }},
	{"not a tracker", func([]byte, *rand.Rand) []byte { return []byte("hello, world") }},
	{"text", func(b []byte, _ *rand.Rand) []byte { return []byte(strings.Repeat("hello, world\n", len(b)/13)) }},
	{"pages of zeros", func(b []byte, rng *rand.Rand) []byte { return eachPage(b, rng, func(p []byte) { clear(p) }) }},
	{"pages of noise", func(b []byte, rng *rand.Rand) []byte {
		return eachPage(b, rng, func(p []byte) {
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
		})
	}},
	{"flipped bits in page heads", func(b []byte, rng *rand.Rand) []byte {
		return eachPage(b, rng, func(p []byte) { p[rng.IntN(48)] ^= 1 << rng.IntN(8) })
	}},
	{"flipped bits", func(b []byte, rng *rand.Rand) []byte {
		return eachPage(b, rng, func(p []byte) { p[rng.IntN(len(p))] ^= 1 << rng.IntN(8) })
	}},
	{"pages in wrong places", func(b []byte, rng *rand.Rand) []byte {
		first := append([]byte(nil), b[5*dbPage:6*dbPage]...)
		return eachPage(b, rng, func(p []byte) { copy(p, first) })
	}},
}

// eachPage damages a third of the pages behind the meta pages.
func eachPage(b []byte, rng *rand.Rand, damage func(p []byte)) []byte {
	for at := 2 * dbPage; at+dbPage <= len(b); at += dbPage {
		if rng.IntN(3) == 0 {
			damage(b[at : at+dbPage])
		}
	}
	return b
}

// TestCrashDamagedTracker starts on a damaged tracker file. The server must name the
// file and the remedy, and must not crash. It cannot see all damage, since a record's
// bytes have no checksum. It must not crash when it meets that later, either.
func TestCrashDamagedTracker(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	dir, promised := loaded(t, rng.Uint64(), 300)
	file := filepath.Join(dir, "data", "status.db")
	good, err := os.ReadFile(file)
	mustDo(t, err)
	refused := 0
	for _, d := range fileDamages {
		mustDo(t, os.WriteFile(file, d.do(append([]byte(nil), good...), rng), 0o600))
		c, code, said := attempt(t, dir)
		if c == nil {
			refused++
			t.Logf("%s: %s", d.name, said[strings.LastIndexByte(strings.TrimSpace(said), '\n')+1:])
			says(t, code, said, file, "backup")
			continue
		}
		answers := make(map[int]int)
		for _, p := range promised.jobs {
			resp, err := http.Get(c.rest + "/jobs/" + p.id) //nolint:noctx // it may be dead
			if err != nil {
				t.Fatalf("%s: the server died of it: %v", d.name, err)
			}
			answers[resp.StatusCode]++
			mustDo(t, resp.Body.Close())
		}
		t.Logf("%s: not seen at the start; answers by code: %v", d.name, answers)
		c.kill()
	}
	if refused < 6 {
		t.Errorf("only %d damages were seen", refused)
	}
	// The backup is put back: everything is as it was.
	mustDo(t, os.WriteFile(file, good, 0o600))
	c := startChild(t, dir)
	missing(t, c, promised, false, 0)
	verifyAll(t, c, dir, promised)
	c.kill()
}

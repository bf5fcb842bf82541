package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jobstream/cmd/node/archive"
	"jobstream/jobs"
)

// TestCrashBackup backs up servers under load. Clients, servers and restores are killed at
// random moments. Whatever has come to its end has every job that was promised before,
// and none that has ended runs again.
func TestCrashBackup(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 77))
	bin, err := built()
	mustDo(t, err)
	for round := range max(1, rounds(t, 1)/4) { // each is a backup and a restore of a whole server
		dir := t.TempDir()
		b := &backupCrash{t: t, rng: rng, bin: bin, dir: dir}
		c := startChild(t, dir)
		promised := &acked{}
		ctx, cancel := context.WithCancel(t.Context())
		loaded, loads := make(chan struct{}), rng.Uint64()
		go func() { load(ctx, c, loads, promised); close(loaded) }()
		waitUntil(t, func() bool { return promised.count.Load() >= int64(100+rng.IntN(500)) })

		online, killed := filepath.Join(dir, "online.tar"), filepath.Join(dir, "killed.tar")
		b.killedClient(c, online)
		before, ended := b.known(c, promised)
		b.mustRun("backup", online, "--url", c.rest, "--token", adminToken)
		b.killedServer(c, online)
		cancel()
		<-loaded
		// The streams of a server that was killed have acknowledged what its tracker lacks.
		all, over := &acked{}, make(map[string]bool)
		all.jobs = append(all.jobs, promised.jobs...)
		b.mustRun("backup", killed, "--data", filepath.Join(dir, "data"))
		t.Logf("round %d: %d promised before the backup, %d ended, %d in the end", round, len(before.jobs), len(ended), len(all.jobs))
		b.verify(online, before, ended)
		b.verify(killed, all, over)
	}
}

// backupCrash is one round.
type backupCrash struct {
	t        *testing.T
	rng      *rand.Rand
	bin, dir string
}

// start starts the program.
func (b *backupCrash) start(args ...string) (*exec.Cmd, *bytes.Buffer) {
	b.t.Helper()
	cmd := exec.Command(b.bin, args...) //nolint:noctx // it is killed by hand
	cmd.Env, cmd.Dir = cleanEnviron(), b.dir
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	mustDo(b.t, cmd.Start())
	b.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, out
}

func (b *backupCrash) mustRun(args ...string) {
	b.t.Helper()
	cmd, out := b.start(args...)
	if err := cmd.Wait(); err != nil {
		b.t.Fatalf("%q: %v\n%s", args, err, out)
	}
}

// later kills a process after a while, if it still runs.
func (b *backupCrash) later(cmd *exec.Cmd, most time.Duration) {
	timer := time.AfterFunc(time.Duration(b.rng.Int64N(int64(most))), func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait() // it was killed, or was faster
}

// killedClient kills a client while it is sent a backup. The server goes on.
func (b *backupCrash) killedClient(c *child, file string) {
	b.t.Helper()
	cmd, _ := b.start("backup", file, "--url", c.rest, "--token", adminToken, "--rate", "64KiB")
	b.later(cmd, 300*time.Millisecond)
	if _, err := os.Stat(file); err == nil && cmd.ProcessState.ExitCode() != 0 {
		b.t.Errorf("a client that was killed has left a backup")
	}
	_ = os.Remove(file)
	// The server notices that nobody reads, and can make another one.
	waitUntil(b.t, func() bool {
		r, err := http.NewRequestWithContext(b.t.Context(), http.MethodHead, c.rest+"/backup", nil)
		mustDo(b.t, err)
		r.Header.Set("Authorization", "Bearer "+adminToken)
		answer, err := http.DefaultClient.Do(r)
		mustDo(b.t, err)
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

// killedServer kills the server while it sends a backup. The older one stays as it was.
func (b *backupCrash) killedServer(c *child, file string) {
	b.t.Helper()
	was, err := os.ReadFile(file)
	mustDo(b.t, err)
	cmd, out := b.start("backup", file, "--url", c.rest, "--token", adminToken, "--rate", "64KiB")
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Duration(b.rng.Int64N(int64(400 * time.Millisecond)))):
	}
	c.kill()
	<-done
	is, err := os.ReadFile(file)
	mustDo(b.t, err)
	if code := cmd.ProcessState.ExitCode(); code != 0 && (!bytes.Equal(was, is) || out.Len() == 0) {
		b.t.Errorf("exit code %d, %s; the backup that was there has %d bytes, had %d", code, out, len(is), len(was))
	}
	mustDo(b.t, os.WriteFile(file, was, 0o600))
}

// known are the jobs that were promised by now, and those that have ended.
func (b *backupCrash) known(c *child, promised *acked) (before *acked, ended map[string]bool) {
	b.t.Helper()
	before, ended = &acked{}, make(map[string]bool)
	promised.mu.Lock()
	before.jobs = append(before.jobs, promised.jobs...)
	promised.mu.Unlock()
	for cursor := ""; ; {
		var page struct {
			Jobs []struct{ ID string }
			Next string `json:"next_cursor"`
		}
		if code := get(b.t, c.rest+"/jobs?limit=500&order=asc&status=completed&status=failed"+cursor, &page); code != http.StatusOK {
			b.t.Fatalf("the list of ended jobs: %d", code)
		}
		for _, j := range page.Jobs {
			ended[j.ID] = true
		}
		if page.Next == "" {
			return before, ended
		}
		cursor = "&cursor=" + page.Next
	}
}

// restore restores a backup. Some tries are killed before one is not.
func (b *backupCrash) restore(file, data string) {
	b.t.Helper()
	for range 6 {
		cmd, _ := b.start("restore", file, "--data", data)
		b.later(cmd, 150*time.Millisecond)
		if cmd.ProcessState.ExitCode() == 0 {
			return
		}
		// Either nothing is there, or no server starts on it, or it is whole.
		_, err := os.Stat(filepath.Join(data, "restoring"))
		left, _ := os.ReadDir(data)
		switch {
		case err == nil:
			cmd, out := b.start("--data", data, "--port=0", "--nats-port=-1")
			if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "has not come to its end") {
				b.t.Fatalf("a server starts on a restore that was killed: %v\n%s", err, out)
			}
		case !errors.Is(err, fs.ErrNotExist):
			b.t.Fatal(err)
		case len(left) > 0:
			return // it was killed in its last moment
		}
		mustDo(b.t, os.RemoveAll(data))
	}
	b.mustRun("restore", file, "--data", data)
}

// verify starts a server on a backup. All jobs are there and end, and those that had ended
// do not run.
func (b *backupCrash) verify(file string, promised *acked, ended map[string]bool) {
	t := b.t
	t.Helper()
	f, err := os.Open(file)
	mustDo(t, err)
	_, err = archive.Read(f, nil, pass)
	mustDo(t, errors.Join(err, f.Close()))
	dir := t.TempDir()
	b.restore(file, filepath.Join(dir, "data"))
	c := startChild(t, dir)
	missing(t, c, promised, false, 0)
	waitFinished(t, c)
	wants := map[string]string{"quick": "completed", "slow": "completed", "flaky": "completed", "doomed": "failed"}
	for _, p := range promised.jobs {
		var j jobs.Job
		if code := get(t, c.rest+"/jobs/"+p.id, &j); code != http.StatusOK || j.Status.String() != wants[p.kind] {
			t.Errorf("%s job %s answers %d and is %s: %s", p.kind, p.id, code, j.Status, j.Error)
		}
	}
	starts := filepath.Join(dir, "starts")
	checkStarts(t, starts)
	text, err := os.ReadFile(starts)
	mustDo(t, err)
	for line := range strings.Lines(string(text)) {
		if id, _, _ := strings.Cut(line, " "); ended[id] {
			t.Errorf("a job that had ended before the backup was started again: %s", line)
		}
	}
	c.kill()
	if t.Failed() {
		t.Log(c.logged())
	}
}

//go:build unix

package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"jobstream/jobs"
)

// TestClusterBackup backs up a cluster under load, by the doors of nodes that do not lead.
// The leader is killed while it sends one. What has come to its end is restored to a server
// that is alone, and to the first node of another cluster: every job that was promised
// before is there, and none that had ended runs again.
func TestClusterBackup(t *testing.T) {
	b := newCluster(t)
	b.start(b.nodes...)
	b.serving()
	bin, err := built()
	mustDo(t, err)
	k := &backupCrash{t: t, rng: b.rng, bin: bin, dir: t.TempDir()}
	promised := &acked{}
	leader, others := b.leader()
	for range 20 { // so that a backup is more than fits into the buffers on its way
		body := `{"type":"quick","payload":"` + strings.Repeat("x", 700<<10) + `"}`
		mustPost(t, leader.c, "/jobs", body, http.StatusAccepted)
	}
	for range clusterRounds(t, 1) {
		file := filepath.Join(k.dir, "broken.tar")
		stop := b.submitting(promised, 200)
		k.mustRun("backup", file, "--url", others[0].rest, "--token", adminToken, "--rate", "0")
		was, err := os.ReadFile(file)
		mustDo(t, err)
		begun := strings.Count(leader.logged(), "a backup has begun")
		cmd, out := k.start("backup", file, "--url", others[1].rest, "--token", adminToken, "--rate", "1MiB")
		waitUntil(t, func() bool { return strings.Count(leader.logged(), "a backup has begun") > begun })
		b.pass(b.upTo(300 * time.Millisecond))
		leader.kill()
		_ = cmd.Wait() // its exit code says it
		is, err := os.ReadFile(file)
		mustDo(t, err)
		if code := cmd.ProcessState.ExitCode(); code != 1 || out.Len() == 0 || !bytes.Equal(was, is) {
			t.Errorf("a backup whose node was killed: exit code %d, %s; it has %d bytes, and the one before %d", code, out, len(is), len(was))
		}
		t.Logf("the backup of a node that is killed: %s", out)
		stop()
		b.serving()
		b.start(leader)
		leader, others = b.leader()
	}

	file := filepath.Join(k.dir, "cluster.tar")
	stop := b.submitting(promised, 200)
	door := others[b.rng.IntN(len(others))]
	before, ended := k.known(door.c, promised)
	k.mustRun("backup", file, "--url", door.rest, "--token", adminToken, "--rate", "0")
	stop()
	t.Logf("%d jobs were promised before the backup, %d of them had ended", len(before.jobs), len(ended))
	for _, m := range b.nodes {
		m.kill()
	}
	k.verify(file, before, ended)
	restoredCluster(t, k, file, before, ended)
}

// submitting submits jobs at all doors, each as long as its node lives, until its result
// is called. It waits until some more are promised.
func (b *bed) submitting(promised *acked, more int64) (stop func()) {
	b.t.Helper()
	want := promised.count.Load() + more
	ctx, cancel := context.WithCancel(b.t.Context())
	var all sync.WaitGroup
	for _, m := range b.nodes {
		life, seed := m.c, b.rng.Uint64()
		living, end := context.WithCancel(ctx)
		all.Go(func() {
			defer end()
			load(living, life, seed, promised)
		})
		go func() {
			select {
			case err := <-life.done:
				life.done <- err
				end()
			case <-living.Done():
			}
		}()
	}
	waitUntil(b.t, func() bool { return promised.count.Load() >= want })
	return func() {
		cancel()
		all.Wait()
	}
}

// logged is the log of the node's present life.
func (m *member) logged() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.c == nil {
		return ""
	}
	return m.c.logged()
}

// restoredCluster begins a cluster with a backup. Every node has all jobs then.
func restoredCluster(t *testing.T, k *backupCrash, file string, promised *acked, ended map[string]bool) {
	t.Helper()
	b := bedOfThree(t)
	first := b.nodes[0]
	k.mustRun("restore", file, "--data", first.data())
	first.env = append(first.env, childBootstrap+"=yes")
	b.start(b.nodes...)
	b.serving()
	waitFinished(t, first.c)
	wants := map[string]string{"quick": "completed", "slow": "completed", "flaky": "completed", "doomed": "failed"}
	for i, p := range promised.jobs {
		var j jobs.Job
		m := b.nodes[i%len(b.nodes)]
		if code := get(t, m.rest+"/jobs/"+p.id, &j); code != http.StatusOK || j.Status.String() != wants[p.kind] {
			t.Errorf("%s job %s answers %d at %s, and is %s: %s", p.kind, p.id, code, m.name, j.Status, j.Error)
		}
	}
	for _, m := range b.nodes {
		for _, r := range runsOf(t, m.name, m.dir) {
			if ended[r.Job] {
				t.Errorf("job %s had ended before the backup, and runs at %s", r.Job, m.name)
			}
		}
	}
	b.awaitEqual()
	for _, m := range b.nodes {
		m.kill()
	}
	b.compare()
}

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/jobs/replica"
	"jobstream/status"
)

// aloneOptions are those of a server that is alone, and whose folder is dir.
func aloneOptions(t *testing.T, dir string) Options {
	t.Helper()
	return Options{Dir: dir, HTTP: ":0", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Broker: Broker{SyncAlways: true}}
}

// leaveJobs has a server that is alone complete some jobs, and leave some that wait.
func leaveJobs(t *testing.T, dir string) (done, waiting []jobs.ID) {
	t.Helper()
	n, err := Open(t.Context(), aloneOptions(t, dir), jobs.NewRegistry(typesOf(jobs.HandlerFunc(echo), "echo")...))
	mustDo(t, err)
	for i := range 10 {
		s := &jobs.Submission{Type: "echo", Priority: 1, RetryCount: -1, Payload: fmt.Appendf(nil, "%d", i)}
		if i%2 == 1 {
			s.Terms = &jobs.Terms{RunAt: jobs.Now().Add(time.Hour)}
		}
		j, err := n.Submit(t.Context(), s)
		mustDo(t, err)
		if i%2 == 1 {
			waiting = append(waiting, j.ID)
			continue
		}
		_, err = n.Wait(t.Context(), j.ID)
		mustDo(t, err)
		done = append(done, j.ID)
	}
	mustDo(t, n.Close())
	return done, waiting
}

// leaveRunning has a server that is alone stop while jobs run and wait for a worker.
func leaveRunning(t *testing.T, dir string) (unfinished []jobs.ID) {
	t.Helper()
	o := aloneOptions(t, dir)
	o.Workers = Workers{Max: 2, Grace: time.Millisecond}
	started := make(chan struct{}, 10)
	n, err := Open(t.Context(), o, jobs.NewRegistry(typesOf(jobs.HandlerFunc(func(ctx context.Context, _ *jobs.Task) (jobs.Result, error) {
		started <- struct{}{}
		<-ctx.Done()
		return jobs.Result{}, ctx.Err()
	}), "echo")...))
	mustDo(t, err)
	for range 6 {
		j, err := n.Submit(t.Context(), &jobs.Submission{Type: "echo", Priority: 1, RetryCount: -1, Payload: []byte("1")})
		mustDo(t, err)
		unfinished = append(unfinished, j.ID)
	}
	<-started
	<-started
	if err := n.Close(); err != nil {
		t.Logf("as the jobs did not end: %v", err)
	}
	return unfinished
}

// TestBootstrap begins a cluster with the folder of a server that was alone, whatever point
// an earlier try has come to. Every member has every job then, and that goes on.
func TestBootstrap(t *testing.T) {
	t.Parallel()
	for _, interrupted := range []string{"not at all", "before the streams are set aside", "after that", "and used alone again"} {
		t.Run(interrupted, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			done, waiting := leaveJobs(t, dir)
			running := leaveRunning(t, dir)
			f := FoldersIn(dir)
			if interrupted != "not at all" {
				s, err := status.Open(status.Options{Path: f.Tracker, Registry: jobs.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
				mustDo(t, err)
				_, _, _, err = s.RemoveClean("")
				mustDo(t, err)
				mustDo(t, s.Replica().Apply(nil, replica.Base(replica.Position{})))
				mustDo(t, s.Close())
			}
			if interrupted == "after that" || interrupted == "and used alone again" {
				mustDo(t, os.Rename(f.Broker, filepath.Join(dir, aside+"1")))
			}
			if interrupted == "and used alone again" {
				more, later := leaveJobs(t, dir)
				done, waiting = append(done, more...), append(waiting, later...)
			}
			m := bootstrapped(t, dir)
			leader := m.leader()
			for i := range m.nodes {
				for _, id := range slices.Concat(done, running) {
					m.has(i, id)
				}
				for _, id := range waiting {
					m.wait("a job that waits", func() bool {
						j, err := m.nodes[i].member.store.Job(t.Context(), id)
						return err == nil && j != nil && j.Status == jobs.Scheduled
					})
				}
			}
			m.submit(leader)
			m.stop(0)
			m.leader()
			m.start(0) // with the same options: nothing is begun anew
			id := m.submit(m.leader())
			m.has(0, id)
			if old, err := filepath.Glob(filepath.Join(dir, aside+"*")); err != nil || len(old) == 0 {
				t.Errorf("the old streams are not there any more: %v, %v", old, err)
			}
		})
	}
}

// bootstrapped starts a cluster of which the first member has the folder of a server that
// was alone.
func bootstrapped(t *testing.T, dir string) *members {
	t.Helper()
	return startMembersWith(t, 3, func(o []Options) { o[0].Dir, o[0].Broker.Bootstrap = dir, true })
}

// TestBootstrapRefused: what makes no sense has an error, and changes nothing.
func TestBootstrapRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	leaveJobs(t, dir)
	o := aloneOptions(t, dir)
	at := freeAddress(t)
	o.Name, o.Broker.Cluster = "n1", &broker.Cluster{Name: "test", Listen: at, Routes: []string{at, freeAddress(t), freeAddress(t)}, Replicas: 3}
	try := func(o Options, want string) {
		t.Helper()
		n, err := Open(context.Background(), o, jobs.NewRegistry())
		if err == nil {
			err = errors.Join(errors.New("it starts"), n.Close())
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	try(o, "set broker.cluster.bootstrap if a new cluster shall begin with it")
	empty := o
	empty.Dir, empty.Broker.Bootstrap = t.TempDir(), true
	try(empty, "there is nothing in "+empty.Dir)
	o.Broker.Bootstrap = true
	alone, err := Open(t.Context(), aloneOptions(t, dir), jobs.NewRegistry())
	mustDo(t, err)
	try(o, "in use")
	if _, err := os.Stat(FoldersIn(dir).Broker); err != nil {
		t.Errorf("the streams of a server that runs are away: %v", err)
	}
	mustDo(t, alone.Close())
}

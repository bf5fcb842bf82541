package main

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/jobstream/internal/history"
	"jobstream/jobs"
)

// The test bed: one node or several in processes of their own, which are killed, frozen,
// cut off and stopped under load. Everything that clients and handlers see goes into a
// history, which is judged at the end.

const (
	childNode  = "TEST_CHILD_NODE"  // its name; it writes down when its handlers run
	childPorts = "TEST_CHILD_PORTS" // of its doors, REST and NATS
)

// bedSettings are those of a server that is a part of a test bed.
func bedSettings(cfg *config.Config) {
	if ports := os.Getenv(childPorts); ports != "" {
		_, _ = fmt.Sscan(ports, &cfg.Server.Port, &cfg.Broker.Port)
	}
	clusterSettings(cfg)
}

// watchedRuns has handlers write down when they begin and end.
func watchedRuns(dir string, some, more map[string]jobs.Handler) (map[string]jobs.Handler, error) {
	maps.Copy(some, more)
	if os.Getenv(childNode) == "" {
		return some, nil
	}
	f, err := os.OpenFile(filepath.Join(dir, "runs"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	for name, h := range some {
		some[name] = &watchedRun{h, f}
	}
	return some, nil
}

type watchedRun struct {
	jobs.Handler
	to *os.File
}

func (w *watchedRun) Handle(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	note := func(what string) {
		key := "-"
		if t.Job.Keyed() {
			key = t.Job.Type + "/" + t.Job.ConcurrencyKey()
		} else if t.Job.Type == cappedType {
			key = cappedType
		}
		_, _ = fmt.Fprintf(w.to, "%s %d %s %d %d %d %s\n", what, history.Now(), t.Job.ID, t.Job.Run, t.Attempt, os.Getpid(), key)
	}
	note("begin")
	defer note("end")
	return w.Handler.Handle(ctx, t)
}

// runsOf reads what the handlers of a node have written.
func runsOf(t *testing.T, node, dir string) (all []history.Run) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "runs"))
	if os.IsNotExist(err) {
		return nil // it never ran
	}
	mustDo(t, err)
	defer func() { _ = f.Close() }()
	open := make(map[string]int)
	for sc := bufio.NewScanner(f); sc.Scan(); {
		words := strings.Fields(sc.Text())
		if len(words) != 7 {
			t.Fatalf("node %s wrote the line %q", node, sc.Text())
		}
		n := make([]int64, 7)
		for _, i := range []int{1, 3, 4} {
			if n[i], err = strconv.ParseInt(words[i], 10, 64); err != nil {
				t.Fatalf("node %s wrote the line %q", node, sc.Text())
			}
		}
		name := strings.Join(words[2:6], " ")
		if words[0] == "end" {
			all[open[name]].End = history.Moment(n[1])
			continue
		}
		open[name] = len(all)
		all = append(all, history.Run{
			Job: words[2], Run: int(n[3]), Attempt: int(n[4]), Node: node, Life: words[5],
			Key: strings.TrimPrefix(words[6], "-"), Begin: history.Moment(n[1]), End: history.Never,
		})
	}
	return all
}

// bed is some nodes, and what is seen of them.
type bed struct {
	t     *testing.T
	rng   *rand.Rand
	nodes []*member
	seen  *history.History
	begun history.Moment
	names atomic.Int64 // submissions so far
	steps atomic.Int64 // requests about the paused type so far
	ears  []*ear
}

// member is a node of a bed, over all its lives.
type member struct {
	bed        *bed
	name, dir  string
	env        []string
	rest, nats string
	listen     string  // for routes, in a cluster
	routes     []*line // to it from the others, by their places

	mu     sync.Mutex
	c      *child         // nil while it is down
	lives  []*child       // all of them
	down   *history.Fault // what ended it, if it is down
	frozen *history.Fault
}

// newBed makes a bed of some nodes, a, b, c and so on, which do not run yet.
func newBed(t *testing.T, n int, env ...string) *bed {
	t.Helper()
	b := &bed{t: t, rng: seeded(t), begun: history.Now()}
	b.seen = &history.History{AtOnce: map[string]int{cappedType: perType}}
	for i := range n {
		name := string(rune('a' + i))
		m := &member{bed: b, name: name, dir: filepath.Join(t.TempDir(), name)}
		mustDo(t, os.MkdirAll(m.dir, 0o750))
		rest, nats := freePort(t, b.rng), freePort(t, b.rng)
		m.rest, m.nats = fmt.Sprintf("http://127.0.0.1:%d", rest), fmt.Sprintf("nats://127.0.0.1:%d", nats)
		m.env = append([]string{childNode + "=" + name, fmt.Sprintf("%s=%d %d", childPorts, rest, nats)}, env...)
		b.nodes = append(b.nodes, m)
	}
	t.Cleanup(func() {
		if t.Failed() || os.Getenv(clusterRoundsEnv) != "" {
			b.keepLogs()
		}
	})
	return b
}

// freePort finds a port that nobody has, below those that the kernel gives by itself.
func freePort(t *testing.T, rng *rand.Rand) int {
	t.Helper()
	for range 1000 {
		port := 20_000 + rng.IntN(12_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)) //nolint:noctx // on the loopback
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// keepLogs leaves the logs of all lives where they can be read after the test.
func (b *bed) keepLogs() {
	dir, err := os.MkdirTemp("", "bed")
	if err != nil {
		return
	}
	for _, m := range b.nodes {
		for i, c := range m.lives {
			_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s%d.log", m.name, i)), []byte(c.logged()), 0o600)
		}
	}
	b.t.Logf("the logs of all nodes are in %s", dir)
}

// start starts nodes together, and waits until all are ready.
func (b *bed) start(all ...*member) {
	b.t.Helper()
	for _, m := range all {
		m.launch()
	}
	for _, m := range all {
		m.awaitReady()
	}
}

func (m *member) launch() {
	m.bed.t.Helper()
	c := launch(m.bed.t, exec.Command(os.Args[0]), m.dir, m.env...) //nolint:noctx // it is killed by hand
	m.bed.t.Cleanup(func() { m.tells(c) })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.c, m.lives = c, append(m.lives, c)
}

// tells has a process that still runs after a failed test write into its log what all of
// its goroutines do.
func (m *member) tells(c *child) {
	if !m.bed.t.Failed() || m.c != c {
		return
	}
	_ = c.cmd.Process.Signal(syscall.SIGCONT)
	if c.cmd.Process.Signal(syscall.SIGQUIT) != nil {
		return
	}
	select {
	case <-c.done:
	case <-time.After(patient):
	}
}

func (m *member) awaitReady() {
	m.bed.t.Helper()
	m.c.awaitReady(m.bed.t)
	if len(m.bed.nodes) > 1 {
		m.awaitCurrent() // else two of three would be behind after the next fault
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.down; f != nil {
		f.To, m.down = history.Now(), nil
		m.bed.seen.Broken(*f)
		m.bed.t.Logf("%s is ready again, %s after its %s", m.name, f.To.Sub(f.From).Round(time.Millisecond), f.What)
	}
}

// ends notes that the node is down from a moment on.
func (m *member) ends(f history.Fault) {
	f.Node, f.Dead = m.name, true
	m.mu.Lock()
	defer m.mu.Unlock()
	m.c, m.down = nil, &f
	if m.frozen != nil {
		m.frozen.To = f.From
		m.bed.seen.Broken(*m.frozen)
		m.frozen = nil
	}
}

// kill ends the node with SIGKILL.
func (m *member) kill() {
	from := history.Now()
	m.c.kill()
	m.ends(history.Fault{What: "kill", From: from})
}

// stop ends the node with SIGTERM, and waits for its end.
func (m *member) stop() {
	m.bed.t.Helper()
	from := history.Now()
	mustDo(m.bed.t, m.c.cmd.Process.Signal(syscall.SIGTERM))
	if err := <-m.c.done; err != nil {
		m.bed.t.Errorf("the stop of %s was not clean: %v\n%s", m.name, err, m.c.logged())
	}
	m.ends(history.Fault{What: "stop", Gentle: true, From: from})
}

// freeze stops the process of the node in the middle of what it does.
func (m *member) freeze() {
	m.bed.t.Helper()
	m.mu.Lock()
	m.frozen = &history.Fault{Node: m.name, What: "freeze", From: history.Now()}
	m.mu.Unlock()
	mustDo(m.bed.t, m.c.cmd.Process.Signal(syscall.SIGSTOP))
}

// thaw lets it go on.
func (m *member) thaw() {
	m.bed.t.Helper()
	mustDo(m.bed.t, m.c.cmd.Process.Signal(syscall.SIGCONT))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen.To = history.Now()
	m.bed.seen.Broken(*m.frozen)
	m.frozen = nil
}

// pass lets time pass in which the load goes on. Time itself is what is tested.
func (b *bed) pass(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.t.Context().Done():
	}
}

// upTo is a random time.
func (b *bed) upTo(most time.Duration) time.Duration {
	return time.Duration(b.rng.Int64N(int64(most)))
}

// living are the nodes whose processes run.
func (b *bed) living() (all []*member) {
	for _, m := range b.nodes {
		m.mu.Lock()
		if m.c != nil {
			all = append(all, m)
		}
		m.mu.Unlock()
	}
	return all
}

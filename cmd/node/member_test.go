package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
	"jobstream/jobs"
)

// members are the nodes of a cluster in this process.
type members struct {
	t       *testing.T
	nodes   []*Node // nil: it is stopped
	options []Options
	types   func(i int) []*jobs.Type // of a node; nil: echo
}

// freeAddress is one on loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	mustDo(t, err)
	defer func() { mustDo(t, l.Close()) }()
	return l.Addr().String()
}

func startMembers(t *testing.T, count int) *members {
	t.Helper()
	return startMembersWith(t, count, func([]Options) {})
}

// startMembersWith has the options changed before the start.
func startMembersWith(t *testing.T, count int, change func([]Options)) *members {
	t.Helper()
	m := &members{t: t}
	m.begin(count, change)
	return m
}

// begin starts the nodes. It has their options changed before.
func (m *members) begin(count int, change func([]Options)) {
	t := m.t
	t.Helper()
	m.nodes = make([]*Node, count)
	var routes []string
	for range count {
		routes = append(routes, freeAddress(t))
	}
	for i := range count {
		m.options = append(m.options, Options{
			Dir: t.TempDir(), Name: fmt.Sprintf("n%d", i+1), HTTP: ":0", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Broker: Broker{SyncAlways: true, Cluster: &broker.Cluster{Name: "test", Listen: routes[i], Routes: routes, Replicas: count}},
		})
	}
	change(m.options)
	t.Cleanup(func() {
		var group sync.WaitGroup
		for i := range m.nodes {
			group.Go(func() { m.stop(i) })
		}
		group.Wait()
	})
	for i := range count {
		m.start(i)
	}
}

func (m *members) start(i int) {
	m.t.Helper()
	types := typesOf(jobs.HandlerFunc(echo), "echo")
	if m.types != nil {
		types = m.types(i)
	}
	n, err := Open(context.Background(), m.options[i], jobs.NewRegistry(types...))
	mustDo(m.t, err)
	m.nodes[i] = n
}

func (m *members) stop(i int) {
	m.t.Helper()
	if n := m.nodes[i]; n != nil {
		m.nodes[i] = nil
		if err := n.Close(); err != nil {
			m.t.Logf("node %d: %v", i+1, err)
		}
	}
}

// wait waits until f is true.
func (m *members) wait(what string, f func() bool) {
	m.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(2 * time.Minute); !f(); {
		select {
		case <-tick.C:
		case <-late:
			for _, n := range m.nodes {
				if n != nil {
					m.t.Logf("%+v", n.member.Nodes())
				}
			}
			m.t.Fatalf("%s: not after two minutes", what)
		}
	}
}

// leader waits until a node serves.
func (m *members) leader() (leader int) {
	m.t.Helper()
	m.wait("a node that serves", func() bool {
		for i, n := range m.nodes {
			if n != nil {
				if _, err := n.present(); err == nil {
					leader = i
					return true
				}
			}
		}
		return false
	})
	return leader
}

func (m *members) submit(i int) jobs.ID {
	m.t.Helper()
	j, err := m.nodes[i].Submit(m.t.Context(), &jobs.Submission{Type: "echo", Priority: 1, RetryCount: -1, Payload: []byte(`"hello"`)})
	mustDo(m.t, err)
	j, err = m.nodes[i].Wait(m.t.Context(), j.ID)
	if err != nil || j.Status != jobs.Completed {
		m.t.Fatalf("the job is %v, %v", j, err)
	}
	return j.ID
}

// has waits until the tracker of a node has a job, completed.
func (m *members) has(i int, id jobs.ID) {
	m.t.Helper()
	m.wait(fmt.Sprintf("job %v on node %d", id, i+1), func() bool {
		j, err := m.nodes[i].member.store.Job(m.t.Context(), id)
		return err == nil && j != nil && j.Status == jobs.Completed
	})
}

func (m *members) get(i int, path string) *httptest.ResponseRecorder {
	m.t.Helper()
	return m.do(i, http.MethodGet, path, "")
}

// do sends a request to a node. Pairs of a name and a value are its headers.
func (m *members) do(i int, method, path, body string, header ...string) *httptest.ResponseRecorder {
	m.t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(m.t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	for k := 0; k < len(header); k += 2 {
		r.Header.Set(header[k], header[k+1])
	}
	m.nodes[i].Handler().ServeHTTP(w, r)
	return w
}

// TestMembers: one node of three leads, and all of them answer. After its stop another one
// leads at once, and has everything. A node whose folder was lost gets all of it back.
func TestMembers(t *testing.T) {
	t.Parallel()
	m := startMembers(t, 3)
	first := m.leader()
	other, third := (first+1)%3, (first+2)%3
	a := m.submit(first)
	m.has(other, a)
	m.has(third, a)

	for i := range 3 {
		m.wait("all know who leads", func() bool { return m.get(i, "/readyz").Code == http.StatusOK })
	}
	if w := m.get(first, "/readyz"); w.Code != http.StatusOK {
		t.Errorf("the leader is not ready: %s", w.Body)
	}
	for i := range 3 {
		leaders := 0
		for _, n := range m.nodes[i].member.Nodes() {
			if n.Leader {
				leaders++
			}
		}
		if w := m.get(i, "/nodes"); w.Code != http.StatusOK || leaders != 1 || strings.Count(w.Body.String(), `"name"`) != 3 {
			t.Errorf("node %d lists %d leaders: %d %s", i+1, leaders, w.Code, w.Body)
		}
	}

	m.stop(first)
	second := m.leader()
	m.has(second, a)
	b := m.submit(second)

	// The log does not have its beginning any more, so the node needs a copy.
	nc, err := nats.Connect("", nats.InProcessServer(m.nodes[second].member.broker))
	mustDo(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	mustDo(t, err)
	log, err := js.Stream(t.Context(), broker.TrackerStream)
	mustDo(t, err)
	mustDo(t, log.Purge(t.Context(), jetstream.WithPurgeKeep(2)))
	mustDo(t, os.RemoveAll(m.options[first].Dir))
	mustDo(t, os.Mkdir(m.options[first].Dir, 0o700))
	m.start(first)
	m.has(first, a)
	m.has(first, b)
}

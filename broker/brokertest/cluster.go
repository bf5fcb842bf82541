package brokertest

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"jobstream/broker"
)

// Members is a cluster of brokers in this process. Its methods are for the test's
// goroutine.
type Members struct {
	Brokers []*broker.Broker // nil: it is stopped

	t       testing.TB
	options []broker.Options
	links   [][]*link // from a member that connects to one that listens
}

// joinTime is how long a cluster may take to form, or to form again.
const joinTime = time.Minute

// Cluster starts n brokers that are one cluster, each in a temporary folder, and closes
// them when the test ends. The first one leads. Their routes are on loopback, through
// proxies that [Members.Isolate] cuts. opts may change the options of each.
func Cluster(t testing.TB, n int, opts ...func(*broker.Options)) *Members {
	t.Helper()
	m := &Members{t: t, Brokers: make([]*broker.Broker, n)}
	m.links = make([][]*link, n)
	for i := range n {
		m.links[i] = make([]*link, n)
		for k := range n {
			if i != k {
				m.links[i][k] = newLink(t)
			}
		}
	}
	for i := range n {
		o := broker.Options{Dir: t.TempDir(), Node: "test", Logger: Logger(t)}
		if i > 0 {
			o.Node = fmt.Sprintf("test-%d", i+1)
		}
		o.Cluster = &broker.Cluster{
			Name: "test", Listen: "127.0.0.1:-1", Replicas: n,
			Advertise: "127.0.0.1:1", // nobody is there, so that no route passes a link by
		}
		for k := range n {
			if i != k {
				o.Cluster.Routes = append(o.Cluster.Routes, m.links[i][k].listener.Addr().String())
			}
		}
		for _, f := range opts {
			f(&o)
		}
		m.options = append(m.options, o)
	}
	t.Cleanup(m.close)
	for i := range n {
		m.open(i)
	}
	m.Join()
	m.Lead(0)
	return m
}

func (m *Members) open(i int) {
	m.t.Helper()
	b, err := broker.Open(m.t.Context(), m.options[i])
	if err != nil {
		m.t.Fatal(err)
	}
	m.Brokers[i] = b
	_, port, _ := net.SplitHostPort(b.RouteAddr().String())
	to := net.JoinHostPort("127.0.0.1", port)
	for k := range m.links {
		if k != i {
			m.links[k][i].to.Store(&to)
		}
	}
}

// Join waits until all members that run have joined.
func (m *Members) Join() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), joinTime)
	defer cancel()
	errs := make([]error, len(m.Brokers))
	var group sync.WaitGroup
	for i, b := range m.Brokers {
		if b != nil {
			group.Go(func() { errs[i] = b.Join(ctx) })
		}
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			m.t.Fatalf("member %d: %v", i+1, err)
		}
	}
}

// Lead has member i lead.
func (m *Members) Lead(i int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), joinTime)
	defer cancel()
	if err := m.Brokers[i].Lead(ctx, []byte("a secret of the test")); err != nil {
		m.t.Fatal(err)
	}
}

// Stop stops member i.
func (m *Members) Stop(i int) {
	m.Brokers[i].Close()
	m.Brokers[i] = nil
}

// Start starts a member that was stopped. It has not joined yet, see [broker.Broker.Join].
func (m *Members) Start(i int) *broker.Broker {
	m.t.Helper()
	m.open(i)
	return m.Brokers[i]
}

// Isolate cuts member i off from all others, or connects it again.
func (m *Members) Isolate(i int, cut bool) {
	for k := range m.links {
		if k != i {
			m.links[i][k].setCut(cut)
			m.links[k][i].setCut(cut)
		}
	}
}

// close closes all, at the same time: the last one alone would wait for the others.
func (m *Members) close() {
	var group sync.WaitGroup
	for _, b := range m.Brokers {
		if b != nil {
			group.Go(b.Close)
		}
	}
	group.Wait()
}

// Wait waits until f is true, and fails the test if that takes a minute.
func (m *Members) Wait(what string, f func() bool) {
	m.t.Helper()
	deadline := time.Now().Add(joinTime)
	for !f() {
		if time.Now().After(deadline) {
			m.t.Fatalf("%s did not come", strings.TrimSpace(what))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

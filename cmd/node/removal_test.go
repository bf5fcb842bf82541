package node

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/jobs"
)

// add adds a node that knows only some of the others, and starts it.
func (m *members) add(name string, among ...int) (i int) {
	m.t.Helper()
	o := m.options[0]
	c := *o.Broker.Cluster
	c.Listen, c.Routes = freeAddress(m.t), nil
	for _, k := range among {
		c.Routes = append(c.Routes, m.options[k].Broker.Cluster.Listen)
	}
	c.Routes = append(c.Routes, c.Listen)
	o.Dir, o.Name, o.Broker.Cluster = m.t.TempDir(), name, &c
	m.options, m.nodes = append(m.options, o), append(m.nodes, nil)
	m.start(len(m.nodes) - 1)
	return len(m.nodes) - 1
}

// remove asks a node to remove another one, and wants this answer.
func (m *members) remove(at int, name string, code int, want string) {
	m.t.Helper()
	if w := m.do(at, http.MethodDelete, "/nodes/"+name, ""); w.Code != code || !strings.Contains(w.Body.String(), want) {
		m.t.Errorf("the removal of %s at %s is answered with %d %s, want %d and %q", name, m.options[at].Name, w.Code, w.Body, code, want)
	}
}

// ready waits until nodes are ready.
func (m *members) ready(all ...int) {
	m.t.Helper()
	for _, i := range all {
		m.wait(m.options[i].Name+" is ready", func() bool { return m.get(i, "/readyz").Code == http.StatusOK })
	}
}

// copies are the names of the servers that have copies of the streams, as one says.
func (m *members) copies(at int) (names []string) {
	m.t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(m.nodes[at].member.broker))
	mustDo(m.t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	mustDo(m.t, err)
	list := js.ListStreams(m.t.Context())
	for s := range list.Info() {
		names = append(names, s.Cluster.Leader)
		for _, r := range s.Cluster.Replicas {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// submitSoon submits a job as soon as a node that leads takes it.
func (m *members) submitSoon() (id jobs.ID) {
	m.t.Helper()
	m.wait("a job is taken", func() bool {
		j, err := m.nodes[m.leader()].Submit(m.t.Context(), &jobs.Submission{Type: "echo", Priority: 1, RetryCount: -1, Payload: []byte(`"hello"`)})
		if err == nil {
			id = j.ID
		}
		return err == nil
	})
	return id
}

// refused wants a node to end because it was removed.
func (m *members) refused(i int) {
	m.t.Helper()
	select {
	case err := <-m.nodes[i].Broken():
		if !strings.Contains(err.Error(), "was removed") {
			m.t.Errorf("a node that was removed ends with %v", err)
		}
	case <-time.After(2 * time.Minute):
		m.t.Errorf("a node that was removed goes on: %+v", m.nodes[i].member.Nodes())
	}
	m.stop(i)
}

// TestReplaceNode replaces a node whose machine is gone: first there is a new one with a new
// name, then the old one is removed. The new one has its copies then, so another one can
// fail. The old name does not come back, with its old folder or with an empty one.
func TestReplaceNode(t *testing.T) {
	t.Parallel()
	m := startMembersWith(t, 3, func(o []Options) {
		for i := range o {
			o[i].Keyring = anybody()
		}
	})
	leader := m.leader()
	other, old := (leader+1)%3, (leader+2)%3
	name := m.options[old].Name
	m.ready(0, 1, 2)
	a := m.submitSoon()
	m.remove(other, "n9", http.StatusNotFound, `no node \"n9\"`)
	m.remove(other, m.options[leader].Name, http.StatusConflict, "leads")
	m.remove(other, name, http.StatusConflict, "runs; stop it first")

	m.stop(old)
	m.wait("it is known to be stopped", func() bool {
		return !strings.Contains(m.do(other, http.MethodDelete, "/nodes/"+name, "").Body.String(), "runs; stop it first")
	})
	m.remove(other, name, http.StatusConflict, "2 nodes would be left")
	added := m.add("n4", leader, other)
	m.has(added, a)
	m.ready(added)
	m.wait("it can be removed", func() bool { // the cluster has heard of the new one by then
		w := m.do(added, http.MethodDelete, "/nodes/"+name, "")
		return w.Code == http.StatusNoContent
	})
	m.remove(added, name, http.StatusNoContent, "")
	want := []string{m.options[leader].Name, m.options[other].Name, "n4"}
	slices.Sort(want)
	if got := m.copies(other); !slices.Equal(got, want) {
		t.Errorf("after the removal %v have the copies, want %v", got, want)
	}
	m.ready(leader, other, added)
	for _, i := range []int{leader, other, added} {
		if all := m.nodes[i].member.Nodes(); len(all) != 3 {
			t.Errorf("%s knows %+v", m.options[i].Name, all)
		}
	}

	m.stop(other)
	b := m.submitSoon()
	m.has(added, b)
	m.start(other)
	m.has(other, b)

	m.start(old)
	m.refused(old)
	if n, err := Open(t.Context(), m.options[old], nil); err == nil || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("the next start ends with %v", err)
		if n != nil {
			_ = n.Close()
		}
	}
	mustDo(t, os.RemoveAll(m.options[old].Dir))
	mustDo(t, os.Mkdir(m.options[old].Dir, 0o700))
	m.start(old)
	m.refused(old)
	m.ready(leader, other, added)
	m.submitSoon()
}

// TestAddNodes makes a cluster of three one of five, of which two may be lost then.
func TestAddNodes(t *testing.T) {
	t.Parallel()
	m := startMembers(t, 3)
	m.ready(0, 1, 2)
	a := m.submitSoon()
	for i := range 3 {
		m.options[i].Broker.Cluster.Replicas = 3
	}
	for k := range 2 {
		i := m.add(fmt.Sprintf("n%d", k+4), 0, 1, 2)
		m.has(i, a)
	}
	all := []int{0, 1, 2, 3, 4}
	var routes []string
	for _, i := range all {
		routes = append(routes, m.options[i].Broker.Cluster.Listen)
	}
	for _, i := range all { // one restart at a time
		m.stop(i)
		c := *m.options[i].Broker.Cluster
		c.Routes, c.Replicas = routes, 5
		m.options[i].Broker.Cluster = &c
		m.start(i)
		m.ready(all...)
	}
	m.stop(m.leader()) // whoever leads then gives the streams five copies, if none has yet
	for i := range all {
		if m.nodes[i] == nil {
			m.start(i)
		}
	}
	m.wait("five copies", func() bool { return len(m.copies(m.leader())) == 5 })
	m.ready(all...)
	m.stop(m.leader())
	m.ready(m.leader())
	m.stop(m.leader())
	b := m.submitSoon()
	for i := range all {
		if m.nodes[i] != nil {
			m.has(i, a)
			m.has(i, b)
		}
	}
}

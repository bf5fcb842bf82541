package node

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/replica"
)

// written is the format of the members' last transactions, as each of them has stored it.
func (m *members) written(i int) replica.Format {
	return m.nodes[i].member.tracker.Written()
}

// TestRollingUpgrade replaces the version of one member after the other, and one of them goes
// back meanwhile. The later format is written when the last member reads it. An older
// version says then that it cannot go on, with the folder as it was, and without one.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	const later = 7 << 32
	version := func(o *Options, version string, f replica.Format) { o.Version, o.Recovery.format = version, f }
	m := startMembersWith(t, 3, func(all []Options) {
		for i := range all {
			version(&all[i], "v1.0.0", 0)
		}
	})
	first := m.nodes[0].member.tracker.Format()
	var made []jobs.ID
	submit := func() {
		t.Helper()
		id := m.submit(m.leader())
		made = append(made, id)
		for i, n := range m.nodes {
			if n != nil {
				m.has(i, id)
			}
		}
	}
	for _, step := range []struct {
		node  int
		later bool
	}{{0, true}, {1, true}, {1, false}, {1, true}} {
		submit()
		m.stop(step.node)
		submit() // as one of an unknown version is not there, nothing may change
		version(&m.options[step.node], "v1.0.0", 0)
		if step.later {
			version(&m.options[step.node], "v2.0.0", later)
		}
		m.start(step.node)
		m.wait("the node is back", func() bool { return m.nodes[step.node].member.why() == "" })
		submit()
		for i := range m.nodes {
			if f := m.written(i); f > first {
				t.Fatalf("node %d has written format %v, and node 3 reads %v", i+1, f, first)
			}
		}
	}
	m.stop(2)
	version(&m.options[2], "v2.0.0", later)
	m.start(2)
	m.wait("the later format is written everywhere", func() bool {
		submit()
		return m.written(0) == later && m.written(1) == later && m.written(2) == later
	})

	m.stop(0)
	version(&m.options[0], "v1.0.0", 0)
	n, err := Open(t.Context(), m.options[0], jobs.NewRegistry(typesOf(jobs.HandlerFunc(echo), "echo")...))
	if err == nil {
		mustDo(t, n.Close())
	}
	if want := fmt.Sprintf("written by jobstream v2.0.0 (format %v); this is jobstream v1.0.0", replica.Format(later)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the earlier version opens the folder, with the error %v", err)
	}
	mustDo(t, os.Rename(m.options[0].Dir, m.options[0].Dir+"-kept"))
	mustDo(t, os.Mkdir(m.options[0].Dir, 0o700))
	m.start(0)
	m.wait("the earlier version says what it needs", func() bool {
		return strings.Contains(m.nodes[0].member.why(), "reads up to format")
	})
	if w := m.get(0, "/readyz"); !strings.Contains(w.Body.String(), "this is jobstream v1.0.0") {
		t.Errorf("/readyz is %d %s", w.Code, w.Body)
	}
	id := m.submit(m.leader())
	made = append(made, id)
	m.has(1, id)
	m.has(2, id)
	m.stop(0)
	mustDo(t, os.RemoveAll(m.options[0].Dir))
	mustDo(t, os.Rename(m.options[0].Dir+"-kept", m.options[0].Dir))
	version(&m.options[0], "v2.0.0", later)
	m.start(0)
	for i := range m.nodes {
		for _, id := range made {
			m.has(i, id)
		}
	}
}

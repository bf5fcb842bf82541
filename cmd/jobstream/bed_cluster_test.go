package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.etcd.io/bbolt"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/jobstream/internal/history"
	"jobstream/jobs"
	"jobstream/jobs/replica"
	"jobstream/status"
)

// What a test bed has more if its nodes are a cluster: the lines between them, which are
// cut and slowed down, and their disks, which are wiped and rolled back.

// childRoutes makes a server a member of a cluster: "LISTEN ROUTE ROUTE…".
const childRoutes = "TEST_CHILD_ROUTES"

// childBootstrap has a cluster begin with the data folder of that member.
const childBootstrap = "TEST_CHILD_BOOTSTRAP"

// newCluster makes a bed of three nodes that are a cluster. They do not run yet.
func newCluster(t *testing.T, env ...string) *bed {
	t.Helper()
	inCI(t)
	t.Parallel()
	return bedOfThree(t, env...)
}

// bedOfThree is newCluster for a test that has one already.
func bedOfThree(t *testing.T, env ...string) *bed {
	t.Helper()
	const n = 3
	b := newBed(t, n, append([]string{childLease + "=" + clusterLease.String()}, env...)...)
	b.seen.Unstored = election
	for i, m := range b.nodes {
		m.routes = make([]*line, n)
		m.listen = fmt.Sprintf("127.0.0.1:%d", freePort(t, b.rng))
		for k := range n {
			if k != i {
				m.routes[k] = newLine(t) // from node k
				m.routes[k].connect("nats://" + m.listen)
			}
		}
	}
	for i, m := range b.nodes {
		routes := childRoutes + "=" + m.listen
		for k, o := range b.nodes {
			if k != i {
				routes += " " + o.routes[i].l.Addr().String()
			}
		}
		m.env = append(m.env, routes)
	}
	return b
}

// clusterLease is that of the jobs, so that those of a dead node are soon back.
const clusterLease = 3 * time.Second

// election is how long the streams may take nothing, after a member has gone that led one of
// them. Ends of jobs are not stored meanwhile.
const election = 15 * time.Second

// lines are all those of a node, in either direction.
func (m *member) lines() (all []*line) {
	for i, o := range m.bed.nodes {
		if o == m {
			for _, l := range m.routes {
				if l != nil {
					all = append(all, l)
				}
			}
			for _, o := range m.bed.nodes {
				if o != m {
					all = append(all, o.routes[i])
				}
			}
		}
	}
	return all
}

// cutOff cuts a node off from the others; half, and its lines look well but lose
// everything that goes to their listener.
func (m *member) cutOff(half bool) (heal func()) {
	f := history.Fault{Node: m.name, What: "cut", From: history.Now()}
	for _, l := range m.lines() {
		if half {
			l.deafUp.Store(true)
			continue
		}
		l.closed.Store(true)
		l.cut()
	}
	return func() {
		for _, l := range m.lines() {
			l.mend()
		}
		f.To = history.Now()
		m.bed.seen.Broken(f)
	}
}

// slowDown makes all that goes to and from a node late.
func (m *member) slowDown(d time.Duration) {
	for _, l := range m.lines() {
		l.delay.Store(int64(d))
	}
}

func (m *member) data() string { return filepath.Join(m.dir, "data") }

// wipe empties the disk of a node that is down.
func (m *member) wipe() {
	m.bed.t.Helper()
	mustDo(m.bed.t, os.RemoveAll(m.data()))
}

// earlier keeps a copy of the streams' folder, and returns what puts it back. The node is
// frozen meanwhile: a disk that loses what was written last has the rest as it was at one
// moment.
func (m *member) earlier() (rollBack func()) {
	t := m.bed.t
	t.Helper()
	broker, kept := filepath.Join(m.data(), "broker"), filepath.Join(m.dir, "earlier")
	mustDo(t, os.RemoveAll(kept))
	m.freeze()
	mustDo(t, os.CopyFS(kept, os.DirFS(broker)))
	m.thaw()
	return func() {
		t.Helper()
		t.Logf("the streams of %s go back", m.name)
		mustDo(t, os.RemoveAll(broker))
		mustDo(t, os.CopyFS(broker, os.DirFS(kept)))
	}
}

// leader is the node that leads, when there is one; others are the rest.
func (b *bed) leader() (leader *member, others []*member) {
	b.t.Helper()
	waitUntil(b.t, func() bool {
		leader, others = nil, nil
		for _, m := range b.nodes {
			if m.leads() {
				leader = m
			} else {
				others = append(others, m)
			}
		}
		return leader != nil
	})
	return leader, others
}

// leads says whether a node says that it leads.
func (m *member) leads() bool {
	for _, n := range m.nodes() {
		if n.Leader && n.Name == m.name {
			return true
		}
	}
	return false
}

// nodeSeen is a node as another one, or itself, sees it.
type nodeSeen struct {
	Name     string
	Leader   bool
	Position uint64
	Lag      uint64
	Ready    bool
}

// nodes are those that a node sees; nil if it does not answer.
func (m *member) nodes() []nodeSeen {
	m.mu.Lock()
	down := m.c == nil || m.frozen != nil
	m.mu.Unlock()
	if down {
		return nil
	}
	client := http.Client{Timeout: patient}
	resp, err := client.Get(m.rest + "/nodes") //nolint:noctx // it has a timeout
	if err != nil {
		return nil
	}
	defer func() { _ = resp.Body.Close() }()
	var said struct{ Nodes []nodeSeen }
	if json.NewDecoder(resp.Body).Decode(&said) != nil {
		return nil
	}
	return said.Nodes
}

// awaitEqual waits until all nodes have the same entries.
func (b *bed) awaitEqual() {
	b.t.Helper()
	waitUntil(b.t, func() bool {
		m, _ := b.leader()
		all := m.nodes()
		for _, n := range all {
			if n.Lag > 0 || !n.Ready {
				return false
			}
		}
		return len(all) == len(b.nodes)
	})
}

// awaitCurrent waits until a node that has been apart says that it has all that the others
// have.
func (m *member) awaitCurrent() {
	m.bed.t.Helper()
	waitUntil(m.bed.t, func() bool {
		resp, err := http.Get(m.rest + "/readyz") //nolint:noctx // it is frozen by nobody now
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// clusterSettings make a server a member of a cluster.
func clusterSettings(cfg *config.Config) {
	words := strings.Fields(os.Getenv(childRoutes))
	if len(words) == 0 {
		return
	}
	cfg.Node.Name = os.Getenv(childNode)
	cfg.Broker.Sync = config.SyncAlways // the default in a cluster
	c := &cfg.Broker.Cluster
	c.Name, c.Listen, c.Routes, c.Replicas = "bed", words[0], words[1:], len(words)
	c.Advertise = "127.0.0.1:1" // nobody is there, so that no route passes a line by
	c.Bootstrap = os.Getenv(childBootstrap) != ""
}

// end ends the load, waits until nothing is left to do, and judges what was seen. most
// is the longest time without an accepted submission; 0 = any. If the log went back behind
// the trackers, it has breaks.
func (b *bed) end(c *crowd, most time.Duration, wentBack bool) {
	b.t.Helper()
	c.stop()
	if most > 0 {
		b.gap(b.begun, most)
	}
	b.finish()
	if m, _ := b.leader(); !wentBack {
		chained(b.t, m.nats)
	}
	b.awaitEqual()
	for _, m := range b.nodes {
		m.kill() // a stop would leave the last one with more entries
	}
	b.compare()
}

// chained checks that each entry of the log was made behind the one before it, that they
// are numbered without a gap, and that each epoch has one leader.
func chained(t *testing.T, url string) {
	t.Helper()
	_, js := adminStreams(t, url)
	stream, err := js.Stream(t.Context(), "TRACKER")
	mustDo(t, err)
	info, err := stream.Info(t.Context())
	mustDo(t, err)
	var before replica.Entry
	var hash replica.Hash
	leaders := make(map[uint64]string)
	kinds := make(map[string]int)
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		var m *jetstream.RawStreamMsg
		waitUntil(t, func() bool { // any replica may answer, also one that is late
			m, err = stream.GetMsg(t.Context(), seq)
			return !errors.Is(err, jetstream.ErrMsgNotFound)
		})
		mustDo(t, err)
		e, err := replica.Decode(m.Data)
		mustDo(t, err)
		number := before.Number
		if !before.More {
			number++
		}
		switch leader := leaders[e.Epoch]; {
		case seq > info.State.FirstSeq && (e.Number != number || e.Epoch < before.Epoch || e.Previous != hash):
			t.Errorf("message %d of the log, a %v of %s with number %d and epoch %d, does not go on from the one before, a %v of %s with %d and %d; the hash fits: %v",
				seq, e.Kind, e.Node, e.Number, e.Epoch, before.Kind, before.Node, before.Number, before.Epoch, e.Previous == hash)
		case leader != "" && leader != e.Node, e.Kind == replica.Lead && leader != "":
			t.Errorf("the epoch %d of %s has another entry, a %v, of %s", e.Epoch, leader, e.Kind, e.Node)
		}
		leaders[e.Epoch] = e.Node
		kinds[e.Kind.String()]++
		before, hash = e, replica.HashOf(m.Data)
	}
	t.Logf("the log has %d messages: %v", info.State.Msgs, kinds)
}

// contents are what is in a tracker: the values by bucket and key.
type contents map[string]map[string]string

// compare wants the trackers of all nodes, which are down, to be equal and intact.
func (b *bed) compare() {
	b.t.Helper()
	var first contents
	for _, m := range b.nodes {
		all := m.tracker()
		if first == nil {
			first = all
			continue
		}
		differ := 0
		for bucket := range merged(first, all) {
			for key := range merged(first[bucket], all[bucket]) {
				if bucket == "meta" && ownKeys[key] {
					continue
				}
				if v, w := first[bucket][key], all[bucket][key]; v != w {
					if differ++; differ <= 3 {
						b.t.Errorf("bucket %s has at %q the value %q at %s, and %q at %s", bucket, key, cut(v), b.nodes[0].name, cut(w), m.name)
					}
				}
			}
		}
		if differ > 3 {
			b.t.Errorf("the trackers of %s and %s differ in %d values", b.nodes[0].name, m.name, differ)
		}
	}
	b.t.Logf("%d buckets are equal", len(first))
}

// ownKeys of the bucket meta belong to the node. The place is stored now and then only.
var ownKeys = map[string]bool{"writer": true, "clean": true, "node": true, "boot": true, "place": true, "format": true, "layout": true}

func merged[V any](a, b map[string]V) map[string]V {
	all := maps.Clone(a)
	if all == nil {
		all = make(map[string]V)
	}
	maps.Copy(all, b)
	return all
}

func cut(s string) string { return s[:min(len(s), 200)] }

// tracker checks that the tracker of a node, which is down, is intact, and reads it.
func (m *member) tracker() contents {
	t := m.bed.t
	t.Helper()
	path := filepath.Join(m.data(), "status.db")
	s, err := status.OpenStopped(path, slog.New(slog.DiscardHandler)) // what is in the journal gets into the file
	mustDo(t, err)
	found, err := s.Inspect(t.Context(), false, func(*jobs.Job) {})
	mustDo(t, err)
	for _, f := range found {
		t.Errorf("the tracker of %s is wrong: %+v", m.name, f)
	}
	mustDo(t, s.Close())
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	mustDo(t, err)
	defer func() { _ = db.Close() }()
	all := make(contents)
	mustDo(t, db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			all[string(name)] = map[string]string{"(sequence)": fmt.Sprint(b.Sequence())}
			return b.ForEach(func(k, v []byte) error {
				all[string(name)][string(k)] = string(v)
				return nil
			})
		})
	}))
	return all
}

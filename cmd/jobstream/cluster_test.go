//go:build unix

package main

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/history"
)

// Clusters of three nodes under load, and what may happen to any of them. In each test
// all that clients and handlers have seen is judged at the end: see package history. The
// trackers of all nodes must be equal then, and their log without a break.

// crashGap is the longest time without an accepted submission after a crash. As a rule
// it is under ten seconds: nats-server's elections take up to nine.
const crashGap = 20 * time.Second

// TestClusterFaults makes one fault after the other under one load: the leader is killed, the
// next one is frozen and wakes up, another node is killed, and all are stopped in turns.
func TestClusterFaults(t *testing.T) {
	underLoad(t, 1, func(b *bed, c *crowd, _ int) {
		c.more(300)
		victim, _ := b.leader()
		victim.kill()
		c.more(200) // another one leads
		b.start(victim)
		c.more(100)
		victim, others := b.leader()
		victim.freeze()
		b.pass(20 * time.Second)
		c.more(100)
		victim.thaw()
		c.more(200)
		victim.awaitCurrent() // else two of three would be behind after the next fault
		victim = others[b.rng.IntN(len(others))]
		victim.kill()
		c.more(200)
		b.start(victim)
		c.more(100)
		from := history.Now()
		for _, k := range b.rng.Perm(len(b.nodes)) {
			b.nodes[k].stop()
			c.more(100)
			b.start(b.nodes[k])
			c.more(100)
		}
		b.gap(from, stopGap)
	})
}

// TestClusterKilled kills the leader and the others in turns.
func TestClusterKilled(t *testing.T) {
	b := newCluster(t)
	b.start(b.nodes...)
	c := b.load(true)
	for i := range clusterRounds(t, 3) {
		c.more(100 + b.rng.Int64N(200))
		victim, others := b.leader()
		if i%3 == 1 {
			victim = others[b.rng.IntN(len(others))]
		}
		b.t.Logf("round %d: %s is killed, leader: %v", i, victim.name, victim.leads())
		victim.kill()
		if b.rng.IntN(2) == 0 {
			c.more(100) // the others go on without it
		}
		b.start(victim)
	}
	c.more(100)
	b.end(c, crashGap, false)
}

// TestClusterFrozen freezes the leader for so long that another one leads, and wakes it
// up: it changes nothing any more.
func TestClusterFrozen(t *testing.T) {
	underLoad(t, 1, func(b *bed, c *crowd, _ int) {
		c.more(200)
		victim, _ := b.leader()
		victim.freeze()
		b.pass(20 * time.Second)
		c.more(100) // another one leads
		victim.thaw()
		c.more(200)
		victim.awaitCurrent()
	})
}

// underLoad makes faults in a cluster, one after the other, and judges all that was seen.
func underLoad(t *testing.T, short int, fault func(b *bed, c *crowd, i int)) {
	t.Helper()
	b := newCluster(t)
	b.start(b.nodes...)
	c := b.load(true)
	for i := range clusterRounds(t, short) {
		fault(b, c, i)
	}
	b.end(c, crashGap, false)
}

// TestClusterCut cuts the leader off, and another node, in one direction or in both. In the
// former case the lines of a third node are slow as well.
func TestClusterCut(t *testing.T) {
	underLoad(t, 2, func(b *bed, c *crowd, i int) {
		c.more(200)
		victim, others := b.leader()
		if i%4 == 3 {
			victim = others[0]
		}
		half := i%2 == 1
		if half {
			others[1].slowDown(10 * time.Millisecond)
		}
		heal := victim.cutOff(half)
		t.Logf("round %d: %s is cut off; in one direction: %v", i, victim.name, half)
		b.pass(6*time.Second + b.upTo(6*time.Second))
		c.more(100) // the others go on without it
		heal()
		others[1].slowDown(0)
		victim.awaitCurrent() // else two of three would be behind after the next fault
		c.more(200)
	})
}

// TestClusterWiped loses the disk of a node, which comes back empty: of one that follows
// first, of the leader then.
func TestClusterWiped(t *testing.T) {
	underLoad(t, 2, func(b *bed, c *crowd, i int) {
		c.more(200)
		victim, others := b.leader()
		if i%2 == 0 {
			victim = others[b.rng.IntN(len(others))]
		}
		victim.kill()
		victim.wipe()
		c.more(100)
		b.start(victim)
		c.more(100)
	})
}

// TestClusterManyJobs has many jobs, and a node that has lost its disk gets them all.
func TestClusterManyJobs(t *testing.T) {
	b := newCluster(t)
	b.start(b.nodes...)
	b.listen()
	for range clusterRounds(t, 5) {
		var batch strings.Builder
		for i := range 1000 {
			if i > 0 {
				batch.WriteByte(',')
			}
			fmt.Fprintf(&batch, `{"type":"quick","payload":{"n":"n%d"}}`, b.names.Add(1))
		}
		mustPost(t, b.serving().c, "/jobs/batch", `{"jobs":[`+batch.String()+`]}`, http.StatusAccepted)
	}
	waitFinished(t, b.serving().c)
	_, others := b.leader()
	victim := others[b.rng.IntN(len(others))]
	victim.kill()
	victim.wipe()
	from := history.Now()
	b.start(victim)
	took := history.Now().Sub(from)
	t.Logf("with %d jobs, a node with an empty disk was ready after %s", b.names.Load(), took.Round(time.Millisecond))
	if took > 30*time.Second {
		t.Error("half a minute is the most")
	}
	if all := jobsOf(t, victim.rest); int64(len(all)) != b.names.Load() {
		t.Errorf("it has %d jobs of %d", len(all), b.names.Load())
	}
	c := b.load(true)
	b.pass(3 * time.Second) // the schedule fires each second
	c.more(100)
	b.end(c, 0, false)
}

// TestClusterPowerLost kills all nodes at once, and one of them has lost its disk. In every
// other round, the streams of a majority come back as they were a while before instead:
// nothing is lost then either, but nats-server's copies of them may differ.
func TestClusterPowerLost(t *testing.T) {
	b := newCluster(t)
	b.start(b.nodes...)
	n := clusterRounds(t, 1)
	for i := range n {
		c := b.load(false)
		c.more(200)
		var rollBack []func()
		if i%2 == 1 {
			for _, k := range b.rng.Perm(len(b.nodes))[:2] {
				rollBack = append(rollBack, b.nodes[k].earlier())
			}
		}
		c.more(100 + b.rng.Int64N(100))
		for _, m := range b.nodes {
			m.kill()
		}
		c.stop()
		for _, f := range rollBack {
			f()
		}
		if i%2 == 0 {
			b.nodes[b.rng.IntN(len(b.nodes))].wipe()
		}
		b.start(b.nodes...)
		for _, m := range b.nodes {
			m.awaitCurrent() // nobody has to do anything for that
		}
	}
	c := b.load(false)
	c.more(200)
	b.end(c, 0, n > 1)
}

// TestClusterWithoutMajority kills two of three. The last one refuses, and nothing is
// lost; once a second one is back, they go on.
func TestClusterWithoutMajority(t *testing.T) {
	b := newCluster(t)
	b.start(b.nodes...)
	c := b.load(true)
	for range clusterRounds(t, 1) {
		c.more(200)
		perm := b.rng.Perm(len(b.nodes))
		last := b.nodes[perm[0]]
		for _, k := range perm[1:] {
			b.nodes[k].kill()
		}
		waitUntil(t, func() bool { return refuses503(last) })
		asked := history.Now()
		if !refuses503(last) {
			t.Errorf("%s took a submission without the others", last.name)
		}
		if d := history.Now().Sub(asked); d > 5*time.Second+patient {
			t.Errorf("%s refused after %s, five seconds are the most", last.name, d)
		}
		b.start(b.nodes[perm[1]])
		back := history.Now()
		c.more(1)
		took := history.Now().Sub(back)
		t.Logf("submissions are accepted %s after a second node is ready", took.Round(time.Millisecond))
		if took > 5*time.Second+patient { // a client may wait in vain
			t.Error("five seconds are the most")
		}
		c.more(100)
		b.start(b.nodes[perm[2]])
		c.more(100)
	}
	b.end(c, 0, false)
}

// refuses503 says whether a node refuses a submission, and says when to come again.
func refuses503(m *member) bool {
	client := http.Client{Timeout: time.Minute}                       // it first waits for a node that leads
	resp, err := client.Post(m.rest+"/jobs", "application/json", nil) //nolint:noctx // it has a timeout
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != ""
}

// TestClusterStopped stops and starts one node after the other, as an upgrade does.
func TestClusterStopped(t *testing.T) {
	b := newCluster(t)
	b.start(b.nodes...)
	c := b.load(true)
	c.more(200)
	from := history.Now()
	for range clusterRounds(t, 1) {
		for _, m := range slices.Clone(b.nodes) {
			m.stop()
			c.more(50)
			b.start(m)
			c.more(50)
		}
	}
	b.gap(from, stopGap)
	b.end(c, crashGap, false)
}

// clusterRounds is how many faults a test makes.
func clusterRounds(t *testing.T, short int) int {
	t.Helper()
	if s := os.Getenv(clusterRoundsEnv); s != "" {
		n, err := strconv.Atoi(s)
		mustDo(t, err)
		return n
	}
	return short
}

const clusterRoundsEnv = "JOBSTREAM_CLUSTER_ROUNDS"

// stopGap is the longest time without an accepted submission when nodes are stopped one
// after the other. One second is promised; but all of this shares one small machine, and
// nats-server elects anew if a leader's hand-over comes too late.
const stopGap = 10 * time.Second

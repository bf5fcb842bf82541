package node

import (
	"context"
	"fmt"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/replica"
)

// The members look at each other: whether their trackers are equal where they must be, and
// whether their clocks agree.

// clockMost is how much the clocks of two members may differ. Delays, schedules and ages are
// those of the leader's clock, so they jump by as much when another node leads.
const clockMost = 500 * time.Millisecond

// lookEvery is how often a member looks at what the others tell.
const lookEvery = time.Second

// differing are the names of the members whose trackers are others than those of most at
// the same place. Where as many say so as not, the leader is right.
func differing(members []replica.Hello, leader string) map[string]bool {
	type place struct {
		sealed uint64
		hash   string
	}
	votes, best := make(map[place]int), make(map[uint64]place)
	for i := range members {
		m := infoOf(&members[i]).Mark
		if m.Sealed == 0 {
			continue
		}
		at := place{m.Sealed, m.Hash}
		votes[at] += 2
		if members[i].Name == leader {
			votes[at]++
		}
		if votes[at] > votes[best[m.Sealed]] {
			best[m.Sealed] = at
		}
	}
	found := make(map[string]bool)
	for i := range members {
		m := infoOf(&members[i]).Mark
		if m.Sealed == 0 {
			continue
		}
		at := place{m.Sealed, m.Hash}
		alone := votes[at] < 4 && votes[best[m.Sealed]] == votes[at]
		if at != best[m.Sealed] || alone && m.Differs() && members[i].Name != leader {
			found[members[i].Name] = true
		}
	}
	return found
}

const (
	whyDiffers = "its tracker is another one than those of most nodes"
	doDiffers  = "stop that node, move its data folder away, and start it again: it takes a copy of the others; then look at its disk and its memory"
	doClock    = "let NTP set the clocks of all nodes"
)

// watch logs what is wrong with the members, once for each time that it begins.
func (m *member) watch(ctx context.Context) {
	known := make(map[string]bool)
	for sleep(ctx, lookEvery) {
		now := make(map[string]bool)
		for _, f := range nodeFindings(m.Nodes(), 0) {
			if f.Check != "node.differs" && f.Check != "node.clock" {
				continue // the machine says the rest itself
			}
			now[f.Text] = true
			if !known[f.Text] {
				m.n.log.Warn(f.Text, "check", f.Check, "do", f.Do)
			}
		}
		known = now
	}
}

// lastsFor is how long something must be wrong with the nodes to be a finding. A member that
// hears nothing for a moment, as at its start, is well.
const lastsFor = 5 * time.Second

// lasting are the findings about the nodes that do not pass by themselves soon.
func (m *member) lasting(ctx context.Context) []jobs.Finding {
	for end := time.Now().Add(lastsFor); ; {
		found := nodeFindings(m.Nodes(), m.members())
		if len(found) == 0 || time.Now().After(end) || !sleep(ctx, goneEvery) {
			return found
		}
	}
}

// lagMost is how many entries a member that is well may be behind.
const lagMost = 10_000

// nodeFindings are what is wrong with the nodes of a cluster of so many members.
func nodeFindings(nodes []api.NodeInfo, members int) (found []jobs.Finding) {
	add := func(check string, s jobs.Severity, do, format string, values ...any) {
		found = append(found, jobs.Finding{Check: check, Severity: s, Text: fmt.Sprintf(format, values...), Do: do})
	}
	full, led := 0, false
	for i := range nodes {
		n := &nodes[i]
		led = led || n.Leader
		if n.Role == roleFull {
			full++
		}
		switch {
		case n.Differs:
			add("node.differs", jobs.Broken, doDiffers, "node %s: %s (%s at transaction %d)", n.Name, whyDiffers, n.Hash, n.HashAt)
		case !n.Ready:
			add("node.ready", jobs.Broken, "start the node, or see its log; the cluster needs a majority of its members", "node %s is not ready: %s", n.Name, n.Why)
		case n.Lag > lagMost:
			add("node.lag", jobs.Warning, "see whether its disk or its network is slow", "node %s is %d entries behind the leader", n.Name, n.Lag)
		}
		if ahead := time.Duration(n.ClockMS) * time.Millisecond; ahead.Abs() > clockMost {
			add("node.clock", jobs.Warning, doClock, "the clock of node %s differs by %v from that of the node that was asked", n.Name, ahead.Round(100*time.Millisecond))
		}
	}
	if full < members {
		add("node.missing", jobs.Broken, "start the nodes that are missing", "only %d of the %d members of the cluster have been heard of", full, members)
	}
	if members > 0 && !led {
		add("node.leader", jobs.Broken, "start the other members: a majority of them chooses a leader", "no node leads, so nothing new is taken")
	}
	return found
}

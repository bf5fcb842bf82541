package replica

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// The members greet each other, so that each knows how far the others are. A node leads
// only if it has heard of a majority lately.
const (
	greetEvery = 300 * time.Millisecond
	heardFor   = 3 * time.Second // a greeting counts
)

// peers are the members that have greeted.
type peers struct {
	mu    sync.Mutex
	known map[string]Hello
	ahead map[string][]time.Duration // of the last greetings of each, see Hello.Ahead
}

// aheadOf is how many greetings are compared. Some may wait while a machine is busy.
const aheadOf = 10

// note keeps a greeting.
func (p *peers) note(h *Hello) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !h.Sent.IsZero() {
		last := append(p.ahead[h.Name], h.Sent.Round(0).Sub(h.Heard.Round(0)))
		last = last[max(0, len(last)-aheadOf):]
		if p.ahead == nil {
			p.ahead = make(map[string][]time.Duration)
		}
		p.ahead[h.Name], h.Ahead = last, slices.Max(last)
	}
	p.known[h.Name] = *h
}

// all are the members that have ever greeted, by name.
func (p *peers) all() []Hello {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Values(p.known), func(a, b Hello) int { return strings.Compare(a.Name, b.Name) })
}

// lately are those that have greeted not long ago.
func (p *peers) lately(now time.Time) []Hello {
	return slices.DeleteFunc(p.all(), func(h Hello) bool { return now.Sub(h.Heard) >= heardFor })
}

// source is the member to ask for a copy of the tracker: one that follows, or else the
// leader. A member of an earlier epoch may be as far off as the one that asks, which is
// at own.
func (p *peers) source(now time.Time, own *Position) (name string, ok bool) {
	some := p.lately(now)
	epoch := own.Epoch
	for _, h := range some {
		epoch = max(epoch, h.Epoch)
	}
	for _, h := range some {
		switch {
		case h.Epoch < epoch || !h.after(own):
		case h.Role == Following:
			return h.Name, true
		case h.Leads:
			name, ok = h.Name, true
		}
	}
	return name, ok
}

// after says whether the member is further than a position.
func (h *Hello) after(own *Position) bool {
	return (&Position{Epoch: h.Epoch, Number: h.Number}).After(own)
}

// greet tells the others about this node, and hears them, until ctx ends.
func (m *Member) greet(ctx context.Context) {
	tick := time.NewTicker(greetEvery)
	defer tick.Stop()
	m.tell()
	for {
		select {
		case b := <-m.o.Peers.Heard():
			h := Hello{Heard: time.Now()}
			if json.Unmarshal(b, &h) == nil && h.Name != "" && h.Name != m.o.Name {
				m.peers.note(&h)
			}
		case <-tick.C:
			m.tell()
		case <-ctx.Done():
			return
		}
	}
}

func (m *Member) tell() {
	h := m.Self()
	h.Sent = h.Heard
	b, err := json.Marshal(&h)
	if err == nil {
		err = m.o.Peers.Tell(b)
	}
	if err != nil {
		m.o.Logger.Debug("the other nodes could not be told about this one", "error", err)
	}
}

// Self is what this member tells about itself.
func (m *Member) Self() Hello {
	s := m.State()
	h := Hello{Name: m.o.Name, Format: m.o.Tracker.Format(), Epoch: s.Position.Epoch, Number: s.Position.Number, Role: s.Role, Leads: m.Leads(), Why: s.Why, Heard: time.Now()}
	if m.o.Info != nil {
		h.Info = m.o.Info()
	}
	return h
}

// raise lets the tracker write the latest format that all members read. While one of them
// is not there, that may be one which reads less.
func (m *Member) raise() {
	others := m.peers.lately(time.Now())
	if 1+len(others) < m.o.Members() {
		return
	}
	lowest := m.o.Tracker.Format()
	for _, h := range others {
		lowest = min(lowest, h.Format) // 0: of a release that had only the first one
	}
	m.o.Tracker.Raise(lowest)
}

// Known are the other members that have ever greeted, by name.
func (m *Member) Known() []Hello { return m.peers.all() }

// Leader is the node that leads as far as this one knows, which may be this one itself.
func (m *Member) Leader() (leader Hello, ok bool) {
	if h := m.Self(); h.Leads {
		return h, true
	}
	for _, h := range m.peers.lately(time.Now()) {
		if h.Leads && (!ok || h.Epoch > leader.Epoch) {
			leader, ok = h, true
		}
	}
	return leader, ok
}

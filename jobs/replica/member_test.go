package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// All of this package's tests with a world run in the fake time of synctest: a Sleep there
// lasts no time, and ends when nothing else can happen.

// step is one thing that happens to a node, and how long the world goes on after it.
type step struct {
	What  string
	Node  int
	After time.Duration
}

var anyStep = rapid.Custom(func(t *rapid.T) step {
	return step{
		What:  rapid.SampledFrom([]string{"kill", "stop", "freeze", "cut", "wipe", "start", "start", "mend", "mend", "nothing"}).Draw(t, "what"),
		Node:  rapid.IntRange(0, 2).Draw(t, "node"),
		After: time.Duration(rapid.IntRange(0, 2500).Draw(t, "after")) * time.Millisecond,
	}
})

// do lets a step happen.
func (w *world) do(s step) {
	n := w.nodes[s.Node%len(w.nodes)]
	switch l := n.life; {
	case l == nil && s.What == "wipe":
		others := 0
		for _, o := range w.nodes {
			if o != n && o.life != nil {
				others++
			}
		}
		if others == len(w.nodes)-1 { // at most one disk is lost at a time
			n.disk = &testDisk{}
		}
		n.start()
	case l == nil && (s.What == "start" || s.What == "mend"):
		n.start()
	case l == nil:
	case s.What == "kill" || s.What == "wipe":
		n.end(false)
	case s.What == "stop":
		n.end(true)
	case s.What == "freeze":
		l.freeze(true)
	case s.What == "cut":
		l.setCut(true)
	case s.What == "mend":
		l.freeze(false)
		l.setCut(false)
	}
}

// count is how much was acknowledged.
func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// settle mends everything, and waits until all trackers are equal to the log.
func (w *world) settle(t *testing.T) error {
	for i := range w.nodes {
		w.do(step{What: "mend", Node: i})
	}
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		before := w.count()
		time.Sleep(4 * time.Second)
		if w.count() > before {
			break
		}
		if time.Now().After(deadline) {
			for _, n := range w.nodes {
				t.Logf("%s: %+v", n.name, n.life.member.State())
			}
			return errors.New("nobody leads though everything is well")
		}
	}
	for _, n := range w.nodes {
		if n.life.member.Leads() {
			n.end(true)
			time.Sleep(500 * time.Millisecond)
			n.start()
		}
	}
	time.Sleep(4 * time.Second)
	for _, n := range w.nodes {
		n.end(true)
	}
	return nil
}

// check compares what is left with what must be.
func (w *world) check(wholeLog bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) > 0 {
		return fmt.Errorf("%s", w.faults[0])
	}
	leaders := make(map[uint64]string)
	var c chain
	var inLog []string
	for _, m := range w.messages {
		if !wholeLog {
			break
		}
		e, whole, err := c.next(m)
		if err != nil {
			return fmt.Errorf("message %d: %w", m.Seq, err)
		}
		if was, ok := leaders[e.Epoch]; ok && was != e.Node {
			return fmt.Errorf("%s and %s have both appended in epoch %d", was, e.Node, e.Epoch)
		}
		leaders[e.Epoch] = e.Node
		if whole && e.Kind == Commit {
			inLog = append(inLog, string(e.Body))
		}
	}
	longest := w.nodes[0].disk
	for _, n := range w.nodes {
		if len(n.disk.Bodies) > len(longest.Bodies) {
			longest = n.disk
		}
	}
	for _, n := range w.nodes {
		have := n.disk.Bodies
		if !slices.Equal(have, longest.Bodies[:len(have)]) {
			return fmt.Errorf("the tracker of %s is not a beginning of the longest one", n.name)
		}
		if len(longest.Bodies)-len(have) > 100 {
			return fmt.Errorf("the tracker of %s has %d of %d commits", n.name, len(have), len(longest.Bodies))
		}
		if wholeLog && !slices.Equal(have, inLog[:len(have)]) {
			return fmt.Errorf("the tracker of %s is not a beginning of the log", n.name)
		}
	}
	known := make(map[string]int)
	for _, b := range longest.Bodies {
		if known[b]++; known[b] > 1 {
			return fmt.Errorf("%.40s was committed twice", b)
		}
	}
	for _, b := range w.acked {
		if known[b] == 0 {
			return fmt.Errorf("%.40s was acknowledged and is lost", b)
		}
	}
	return nil
}

// in runs a test in a bubble of its own, whose time passes at once.
func in(t *testing.T, seed uint64, run func(*world) error) (err error) {
	synctest.Test(t, func(*testing.T) {
		w := newWorld(seed, 3)
		ctx, cancel := context.WithCancel(context.Background())
		watched := make(chan struct{})
		go func() { defer close(watched); w.watch(ctx) }()
		err = run(w)
		cancel()
		<-watched
		for _, n := range w.nodes {
			if n.life != nil {
				n.end(false)
			}
		}
		time.Sleep(time.Minute) // for appends that come late
	})
	return err
}

// TestNothingIsLost kills, stops, freezes, wipes and cuts off nodes, while answers of
// the log are lost, late or old. Whatever was acknowledged must be in all trackers, once
// and in the same order; one node appends in an epoch; and no two nodes lead at once.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		steps := rapid.SliceOfN(anyStep, 0, 16).Draw(rt, "steps")
		err := in(t, seed, func(w *world) error {
			for i := range w.nodes {
				w.nodes[i].start()
			}
			time.Sleep(3 * time.Second)
			for _, s := range steps {
				w.do(s)
				time.Sleep(s.After)
			}
			if err := w.settle(t); err != nil {
				return err
			}
			return w.check(true)
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// TestLogGoesBack is a loss of power: all nodes die, and the log comes back without its
// last messages. The trackers have what was acknowledged, and the cluster goes on from
// the one that has most. One node's replica of the log may not have gone back: it keeps
// what it has, and never gets anything new.
func TestLogGoesBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		lost := rapid.IntRange(0, 60).Draw(rt, "lost")
		order := rapid.Permutation([]int{0, 1, 2}).Draw(rt, "order")
		stays := rapid.IntRange(0, 3).Draw(rt, "stays") // 3 = no replica does
		err := in(t, seed, func(w *world) error {
			for i := range w.nodes {
				w.nodes[i].start()
			}
			time.Sleep(5 * time.Second)
			for _, n := range w.nodes {
				n.end(false)
			}
			time.Sleep(5 * time.Second)
			w.mu.Lock()
			if stays < len(w.nodes) {
				w.nodes[stays].kept = slices.Clone(w.messages)
			}
			w.messages = w.messages[:max(len(w.messages)-lost, 0)]
			w.mu.Unlock()
			// The disk with most comes back among the first two.
			most := slices.MaxFunc(w.nodes, func(a, b *testNode) int { return len(a.disk.Bodies) - len(b.disk.Bodies) })
			most.start()
			for _, i := range order {
				if w.nodes[i] != most {
					w.nodes[i].start()
					time.Sleep(2 * time.Second)
				}
			}
			if err := w.settle(t); err != nil {
				return err
			}
			if most := 3 * len(w.nodes); w.copies > most {
				return fmt.Errorf("%d copies of trackers were made", w.copies)
			}
			return w.check(lost == 0)
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// TestPlannedStop hands over at once: the next leader commits long before the silence
// would have been noticed.
func TestPlannedStop(t *testing.T) {
	t.Parallel()
	err := in(t, 1, func(w *world) error {
		w.calm = true
		for i := range w.nodes {
			w.nodes[i].start()
		}
		time.Sleep(5 * time.Second)
		for _, n := range w.nodes {
			if n.life.member.Leads() {
				n.end(true)
				break
			}
		}
		time.Sleep(300 * time.Millisecond)
		for _, n := range w.nodes {
			if n.life != nil && n.life.member.Leads() {
				return nil
			}
		}
		return errors.New("nobody leads 0.3 s after the leader has resigned")
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMinority: one node of three never leads, and says why.
func TestMinority(t *testing.T) {
	t.Parallel()
	err := in(t, 1, func(w *world) error {
		w.calm = true
		w.nodes[0].start()
		time.Sleep(10 * time.Second)
		s := w.nodes[0].life.member.State()
		if s.Role == Leading || s.Why != "nobody leads, and 1 of 3 nodes are there: it takes 2 to choose a leader" {
			return fmt.Errorf("the node says %+v", s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestUpgrade replaces the program of one node after the other. The later format is written
// when the last one reads it, and not before, also while that one is dead.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		err := in(t, seed, func(w *world) error {
			w.calm = true
			latest := func() Format {
				w.mu.Lock()
				defer w.mu.Unlock()
				return formatOf(w.acked[len(w.acked)-1])
			}
			for _, n := range w.nodes {
				n.start()
			}
			time.Sleep(5 * time.Second) // by the clock of the simulated world
			for i := range w.nodes {
				n := w.nodes[(i+int(seed))%len(w.nodes)]
				n.end(seed%2 == 0)
				n.reads = newFormat
				before := w.count()
				time.Sleep(10 * time.Second)
				if w.count() == before || latest() != oldFormat {
					return fmt.Errorf("%d were upgraded, and the last one is down: %d and %d entries, format %v", i, before, w.count(), latest())
				}
				n.start()
				time.Sleep(5 * time.Second)
			}
			if latest() != newFormat {
				return fmt.Errorf("all were upgraded, and format %v is written", latest())
			}
			return w.settle(t)
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

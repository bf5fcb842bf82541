package replica

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestBase begins a log with the tracker of a node, which every other one gets a copy of.
// Nothing of it is lost through the death of any node.
func TestBase(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		err := in(t, seed, func(w *world) error {
			first := w.nodes[0]
			first.disk.Bodies, first.disk.At = []string{"old"}, Base(Position{})
			first.start()
			time.Sleep(time.Second) // it is alone, and waits
			w.nodes[1].start()
			time.Sleep(5 * time.Second)
			w.nodes[seed%2].end(false)
			w.nodes[2].start()
			time.Sleep(5 * time.Second)
			if err := w.settle(t); err != nil {
				return err
			}
			for _, n := range w.nodes {
				if n.disk.Bodies[0] != "old" {
					return fmt.Errorf("%s has lost what the log began with", n.name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestBaseTooLate: a node whose tracker cannot begin the log any more stops, and keeps what it has.
func TestBaseTooLate(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		err := in(t, seed, func(w *world) error {
			late := w.nodes[0]
			late.disk.Bodies, late.disk.At = []string{"old"}, Base(Position{})
			w.nodes[1].start()
			w.nodes[2].start()
			time.Sleep(5 * time.Second)
			late.start()
			l := late.life
			time.Sleep(30 * time.Second)
			select {
			case <-l.ended:
			default:
				return fmt.Errorf("it goes on: %+v", l.member.State())
			}
			if !errors.Is(l.err, ErrBegun) || !slices.Equal(late.disk.Bodies, []string{"old"}) {
				return fmt.Errorf("it ends with %w, and has %q", l.err, late.disk.Bodies)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

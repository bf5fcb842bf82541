package broker_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
)

// TestHeldAcks: each ack is sent once, or its message is trimmed; and none is held back
// for more than two turns.
func TestHeldAcks(t *testing.T) {
	var saved, late, more, fewer int
	rapid.Check(t, func(t *rapid.T) {
		type ack struct {
			seq   uint64
			turns int
		}
		var h broker.HeldAcks
		var next uint64
		var since, dropped int
		most := broker.FirstHeldAcks
		trimmed, closed := false, false
		held := make(map[string]*ack)
		sent := func(refs []string, want func(a *ack) bool) {
			t.Helper()
			for _, ref := range refs {
				if a := held[ref]; a == nil || !want(a) {
					t.Fatalf("%s was sent", ref)
				}
				delete(held, ref)
			}
			for ref, a := range held {
				if want(a) {
					t.Fatalf("%s was not sent: %+v", ref, a)
				}
			}
		}
		few := []int{1, 10, broker.PromptAcks - 1, broker.PromptAcks + 1}
		t.Repeat(map[string]func(*rapid.T){
			"ack": func(t *rapid.T) {
				for range rapid.SampledFrom(append(few, 10, 10, 10, 1000, 1000, broker.FirstHeldAcks)).Draw(t, "n") {
					next++
					ref := fmt.Sprint(next)
					since++
					was := h.Hold(&jobs.Delivery{Seq: next, Ref: ref})
					if want := !closed && since > broker.PromptAcks && len(held) < most; was != want {
						t.Fatalf("ack %d since the last turn: held is %v, not %v", since, was, want)
					}
					if was {
						held[ref] = &ack{seq: next}
					}
				}
			},
			"trim": func(t *rapid.T) {
				upTo := next - min(next, uint64(rapid.SampledFrom(append(few, 0, 1000, 2*broker.FirstHeldAcks)).Draw(t, "behind")))
				h.Trim(upTo)
				trimmed = true
				for ref, a := range held {
					if a.seq <= upTo {
						delete(held, ref)
						dropped++
						saved++
					}
				}
			},
			"turn": func(t *rapid.T) {
				refs := h.Turn()
				sent(refs, func(a *ack) bool { return !trimmed || a.turns == 1 })
				for _, a := range held {
					a.turns++
				}
				switch {
				case dropped > len(refs):
					most = min(4*most, broker.MostHeldAcks)
					more++
				case len(refs) > broker.LeastHeldAcks/2:
					most = max(most/16, broker.LeastHeldAcks)
					fewer++
				}
				late += len(refs)
				since, dropped, trimmed = 0, 0, false
			},
			"close or open": func(t *rapid.T) {
				closed = rapid.Bool().Draw(t, "closed")
				sent(h.Close(closed), func(*ack) bool { return true })
			},
			"": func(*rapid.T) {},
		})
	})
	if saved == 0 || late == 0 || more == 0 || fewer == 0 {
		t.Errorf("%d acks were saved, %d sent late; more were to be held %d times, fewer %d times: not much was tried", saved, late, more, fewer)
	}
}

// TestAcksOfTrimmedMessages: the server forgets the deliveries of what is trimmed, and
// what is not is acknowledged at the next turn but one.
func TestAcksOfTrimmedMessages(t *testing.T) {
	const all = 300
	b := brokertest.New(t, withPort)
	shows, deliveries := fetch(t, b, all)
	open := func(when string, want int, floor uint64) {
		t.Helper()
		shows(when, want, &floor)
	}
	slices.Reverse(deliveries[1:]) // the first one is acknowledged first, then the last one …
	for _, d := range deliveries[:all-1] {
		if err := b.Ack(d); err != nil {
			t.Fatal(err)
		}
	}
	open("at first", all-broker.PromptAcks, 1)
	if err := b.Trim(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	const prompt = broker.PromptAcks - 1 // of those behind the trim
	open("trimmed", all-100-prompt, 100)
	turn := func() {
		t.Helper()
		if err := b.SendAcks(); err != nil {
			t.Fatal(err)
		}
	}
	turn()
	if err := b.Trim(t.Context(), 200); err != nil {
		t.Fatal(err)
	}
	open("trimmed again", all-200-prompt, 200)
	turn()
	open("a turn later", 0, all)
}

// TestAcksAreSentAfterAll if nothing trims, if the lanes are closed, and at once with a
// short lease.
func TestAcksAreSentAfterAll(t *testing.T) {
	const all = 200
	for name, tt := range map[string]struct {
		lease time.Duration
		held  int
		then  func(b *broker.Broker) error
	}{
		"no trim":     {time.Minute, all - broker.PromptAcks, (*broker.Broker).SendAcks},
		"closed":      {time.Minute, all - broker.PromptAcks, func(b *broker.Broker) error { b.CloseLanes(); return nil }},
		"short lease": {5 * time.Second, 0, func(*broker.Broker) error { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			b := brokertest.New(t, withPort, func(o *broker.Options) { o.Lease = tt.lease })
			shows, deliveries := fetch(t, b, all)
			for _, d := range deliveries {
				if err := b.Ack(d); err != nil {
					t.Fatal(err)
				}
			}
			shows("acked", tt.held, nil)
			if err := tt.then(b); err != nil {
				t.Fatal(err)
			}
			shows("then", 0, nil)
		})
	}
}

// fetch has n messages delivered. shows waits until so many of them have no ack, and the
// floor, if one is given, is there.
func fetch(t *testing.T, b *broker.Broker, n int) (shows func(when string, open int, floor *uint64), deliveries []jobs.Delivery) {
	t.Helper()
	_, js := connect(t, b)
	lane := jobs.Lane{Type: "email", Priority: 3}
	in := brokertest.NewInspector(n)
	if err := b.OpenLanes(t.Context(), []jobs.Lane{lane}, in); err != nil {
		t.Fatal(err)
	}
	for range n {
		submit(t, b, message("email", 3))
	}
	settled(t, b, uint64(n))
	if err := b.Pull(lane, n); err != nil {
		t.Fatal(err)
	}
	for range n {
		deliveries = append(deliveries, in.Next(t))
	}
	return func(when string, open int, floor *uint64) {
		t.Helper()
		for late := time.Now().Add(patience); ; {
			c, err := js.Consumer(t.Context(), broker.JobsStream, lane.String())
			if err != nil {
				t.Fatal(err)
			}
			info := c.CachedInfo()
			if info.NumAckPending == open && (floor == nil || info.AckFloor.Stream == *floor) {
				return
			}
			if time.Now().After(late) {
				t.Fatalf("%s: %d have no ack and the floor is at %d, want %d", when, info.NumAckPending, info.AckFloor.Stream, open)
			}
		}
	}, deliveries
}

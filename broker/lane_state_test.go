package broker_test

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
)

// stateStore makes consumers whose own memory is not used.
type stateStore struct{ server.StreamStore }

func (stateStore) ConsumerStore(string, time.Time, *server.ConsumerConfig) (server.ConsumerStore, error) {
	return configStore{}, nil
}

type configStore struct{ server.ConsumerStore }

func (configStore) UpdateConfig(*server.ConsumerConfig) error { return nil }

// TestLaneState: in whatever order a lane's deliveries are settled, it shows how far
// all before are.
func TestLaneState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, err := broker.LaneStates(stateStore{}).ConsumerStore("a-1", time.Now(), &server.ConsumerConfig{
			Durable: "a-1", FilterSubject: "jobs.a.1", MemoryStorage: true, AckPolicy: server.AckExplicit, MaxDeliver: -1, HeadersOnly: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		var delivered, floor server.SequencePair
		open := make(map[uint64]uint64) // delivery by sequence
		acked := make(map[uint64]bool)
		settle := func(seq uint64) {
			acked[seq] = true
			delete(open, seq)
			floorThen, first := delivered, true
			for other, delivery := range open {
				first = first && seq < other
				if other-1 < floorThen.Stream {
					floorThen = server.SequencePair{Consumer: delivery - 1, Stream: other - 1}
				}
			}
			if first {
				floor = floorThen
			}
		}
		check := func(t *rapid.T) {
			state, err := s.State()
			if err != nil {
				t.Fatal(err)
			}
			if state.Delivered != delivered || state.AckFloor != floor {
				t.Fatalf("it shows %+v and %+v, want %+v and %+v", state.Delivered, state.AckFloor, delivered, floor)
			}
			if s.HasState() != (delivered != server.SequencePair{}) {
				t.Fatal("it does not know whether it has any state")
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": check,
			"deliver": func(t *rapid.T) {
				for range rapid.SampledFrom([]int{1, 3, 300}).Draw(t, "messages") {
					delivered.Consumer++
					delivered.Stream += rapid.Uint64Range(1, 3).Draw(t, "step")
					open[delivered.Stream] = delivered.Consumer
					if err := s.UpdateDelivered(delivered.Consumer, delivered.Stream, 1, 0); err != nil {
						t.Fatal(err)
					}
				}
			},
			"again": func(t *rapid.T) {
				for seq := range open {
					delivered.Consumer++
					_ = s.UpdateDelivered(delivered.Consumer, seq, 2, 0)
					return
				}
			},
			"give up": func(t *rapid.T) {
				for seq := range open {
					if err := s.UpdateConfig(&server.ConsumerConfig{MaxDeliver: 3}); err != nil {
						t.Fatal(err)
					}
					if err := s.UpdateDelivered(open[seq], seq, 4, 0); err != nil {
						t.Fatal(err)
					}
					settle(seq)
					return
				}
			},
			"ack": func(t *rapid.T) {
				some := rapid.Uint64Range(1, 5).Draw(t, "one in")
				for seq, delivery := range open {
					if seq%some != 0 {
						continue
					}
					if err := s.UpdateAcks(delivery, seq); err != nil {
						t.Fatalf("ack of message %d: %v", seq, err)
					}
					settle(seq)
				}
			},
			"ack again": func(t *rapid.T) {
				for seq := range acked {
					if err := s.UpdateAcks(1, seq); !errors.Is(err, server.ErrStoreMsgNotFound) {
						t.Fatalf("the second ack of message %d: %v", seq, err)
					}
					return
				}
			},
			"purge": func(t *rapid.T) {
				upTo := rapid.Uint64Range(0, delivered.Stream+3).Draw(t, "up to")
				delivered.Stream = max(delivered.Stream, upTo)
				state := server.ConsumerState{Delivered: delivered, AckFloor: server.SequencePair{Stream: upTo}}
				for _, seq := range slices.Sorted(maps.Keys(open)) {
					if seq <= upTo {
						settle(seq)
					}
				}
				if upTo > floor.Stream {
					floor = state.AckFloor
				}
				if err := s.Update(&state); err != nil {
					t.Fatal(err)
				}
			},
			"reset": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "rarely") > 0 {
					return
				}
				delivered = server.SequencePair{Stream: rapid.Uint64Range(0, 9).Draw(t, "start")}
				floor = delivered
				clear(open)
				clear(acked)
				if err := s.Reset(delivered.Stream); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

// TestLaneInfo: other clients see of a lane what the server shows of any consumer.
func TestLaneInfo(t *testing.T) {
	b := brokertest.New(t, withPort)
	_, js := connect(t, b)
	lane := jobs.Lane{Type: "email", Priority: 3}
	in := brokertest.NewInspector(100)
	if err := b.OpenLanes(t.Context(), []jobs.Lane{lane}, in); err != nil {
		t.Fatal(err)
	}
	plain, err := js.CreateConsumer(t.Context(), broker.JobsStream, jetstream.ConsumerConfig{
		FilterSubject: "jobs.email.3", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1, MemoryStorage: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		submit(t, b, message("email", jobs.Priority(1+2*(i%2)))) // every second one is of another lane
	}
	settled(t, b, 30)
	if err := b.Pull(lane, 10); err != nil {
		t.Fatal(err)
	}
	batch, err := plain.Fetch(10)
	if err != nil {
		t.Fatal(err)
	}
	order := []int{0, 1, 2, 4, 5, 3, 8} // 6, 7 and 9 stay
	var deliveries []jobs.Delivery
	for range 10 {
		deliveries = append(deliveries, in.Next(t))
	}
	var messages []jetstream.Msg
	for m := range batch.Messages() {
		messages = append(messages, m)
	}
	same := func() {
		t.Helper()
		for late := time.Now().Add(patience); ; {
			got, err := js.Consumer(t.Context(), broker.JobsStream, lane.String())
			if err != nil {
				t.Fatal(err)
			}
			want, err := plain.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			g, w := got.CachedInfo(), want
			if g.Delivered.Stream == w.Delivered.Stream && g.Delivered.Consumer == w.Delivered.Consumer &&
				g.AckFloor.Stream == w.AckFloor.Stream && g.AckFloor.Consumer == w.AckFloor.Consumer &&
				g.NumAckPending == w.NumAckPending && g.NumPending == w.NumPending {
				return
			}
			if time.Now().After(late) {
				t.Fatalf("the lane shows %+v, a plain consumer %+v", g, w)
			}
		}
	}
	same()
	for _, i := range order {
		if err := b.Ack(deliveries[i]); err != nil {
			t.Fatal(err)
		}
		if err := messages[i].DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
		same()
	}
	for _, upTo := range []uint64{9, 17, 30} {
		if err := b.PurgeJobs(t.Context(), upTo); err != nil {
			t.Fatal(err)
		}
		same()
	}
}

package broker

import (
	"sort"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"jobstream/jobs"
)

// laneStates gives each lane a laneState instead of what the server would keep in
// memory for it.
type laneStates struct{ server.StreamStore }

// ConsumerStore implements server.StreamStore.
func (s laneStates) ConsumerStore(name string, created time.Time, cfg *server.ConsumerConfig) (server.ConsumerStore, error) {
	store, err := s.StreamStore.ConsumerStore(name, created, cfg)
	if err != nil || !isLane(name, cfg) {
		return store, err
	}
	return &laneState{ConsumerStore: store}, nil
}

// isLane says whether a consumer is one of ours; another client's may have such a name.
func isLane(name string, cfg *server.ConsumerConfig) bool {
	if !isLaneName(name) {
		return false
	}
	lane := jobs.Lane{Type: name[:len(name)-2], Priority: jobs.Priority(name[len(name)-1] - '0')}
	return cfg.FilterSubject == laneSubject(lane) && cfg.Durable == name && cfg.MemoryStorage &&
		cfg.AckPolicy == server.AckExplicit && cfg.MaxDeliver == -1 && cfg.HeadersOnly
}

// laneState is what a lane shows of itself: how far it has delivered, and up to where
// all is acknowledged. What runs again when is with the server's consumer itself, and
// what a restart needs is with the tracker, so that is all. The server's own store
// looks for the next message without an ack sequence by sequence, past those of all
// other lanes: with 100 busy ones, 4 % of all CPU. Here they stand in a list.
type laneState struct {
	server.ConsumerStore // the configuration; a backup finds it empty, so what is restored delivers all again

	mu        sync.Mutex
	delivered server.SequencePair
	floor     server.SequencePair // up to there all is acknowledged
	open      []laneDelivery      // by sequence; those before head are settled
	head      int
	acked     int // in open, from head on
	most      int // deliveries of a message; not above 0 = any number
}

type laneDelivery struct {
	delivery, seq uint64
	acked         bool
}

// fewDeliveries may stand in the list whether or not they are settled.
const fewDeliveries = 256

// UpdateDelivered implements server.ConsumerStore.
func (s *laneState) UpdateDelivered(delivery, seq, times uint64, _ int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most > 0 && times > uint64(s.most) { // then the server gives it up
		s.settle(seq)
		return nil
	}
	if seq > s.delivered.Stream {
		s.delivered.Stream = seq
		if len(s.open) == cap(s.open) {
			s.tidy()
		}
		s.open = append(s.open, laneDelivery{delivery: delivery, seq: seq})
	}
	s.delivered.Consumer = max(s.delivered.Consumer, delivery)
	return nil
}

// UpdateAcks implements server.ConsumerStore.
func (s *laneState) UpdateAcks(_, seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.settle(seq) {
		return server.ErrStoreMsgNotFound
	}
	return nil
}

// settle takes a delivery for acknowledged, if there is such an open one.
func (s *laneState) settle(seq uint64) bool {
	open := s.open[s.head:]
	i := 0
	if len(open) > 0 && open[0].seq != seq {
		i = sort.Search(len(open), func(i int) bool { return open[i].seq >= seq })
	}
	if i == len(open) || open[i].seq != seq || open[i].acked {
		return false
	}
	open[i].acked = true
	s.acked++
	s.advance()
	return true
}

// UpdateConfig implements server.ConsumerStore.
func (s *laneState) UpdateConfig(cfg *server.ConsumerConfig) error {
	s.mu.Lock()
	s.most = cfg.MaxDeliver
	s.mu.Unlock()
	return s.ConsumerStore.UpdateConfig(cfg)
}

// advance moves head and floor past what is settled.
func (s *laneState) advance() {
	before := s.head
	for s.head < len(s.open) && s.open[s.head].acked {
		s.head++
		s.acked--
	}
	switch {
	case s.head == before:
	case s.head == len(s.open):
		s.open, s.head = s.open[:0], 0
		s.floor = s.delivered
	default:
		next := s.open[s.head]
		s.floor = server.SequencePair{Consumer: next.delivery - 1, Stream: next.seq - 1}
	}
}

// tidy makes room: in front, or behind a delivery that stays open for long.
func (s *laneState) tidy() {
	switch open := s.open[s.head:]; {
	case s.acked > len(open)/2 && len(open) > fewDeliveries:
		kept := s.open[:0]
		for _, d := range open {
			if !d.acked {
				kept = append(kept, d)
			}
		}
		s.open, s.head, s.acked = kept, 0, 0
	case s.head > len(s.open)/2:
		s.open, s.head = s.open[:copy(s.open, open)], 0
	}
}

// Update implements server.ConsumerStore: the stream was purged.
func (s *laneState) Update(state *server.ConsumerState) error { return s.ForceUpdate(state) }

// ForceUpdate implements server.ConsumerStore.
func (s *laneState) ForceUpdate(state *server.ConsumerState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delivered = state.Delivered
	for i := s.head; i < len(s.open) && s.open[i].seq <= state.AckFloor.Stream; i++ {
		if !s.open[i].acked {
			s.open[i].acked = true
			s.acked++
		}
	}
	s.advance()
	if state.AckFloor.Stream > s.floor.Stream {
		s.floor = state.AckFloor
	}
	return nil
}

// Reset implements server.ConsumerStore.
func (s *laneState) Reset(seq uint64) error {
	s.mu.Lock()
	s.delivered, s.floor = server.SequencePair{}, server.SequencePair{}
	s.open, s.head, s.acked = nil, 0, 0
	s.mu.Unlock()
	return s.SetStarting(seq)
}

// SetStarting implements server.ConsumerStore.
func (s *laneState) SetStarting(seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delivered.Stream, s.floor.Stream = seq, seq
	return nil
}

// UpdateStarting implements server.ConsumerStore.
func (s *laneState) UpdateStarting(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delivered.Stream = max(s.delivered.Stream, seq)
}

// HasState implements server.ConsumerStore.
func (s *laneState) HasState() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.delivered != server.SequencePair{}
}

// RemoveRedeliveredBelow implements server.ConsumerStore.
func (s *laneState) RemoveRedeliveredBelow(uint64) {}

// State implements server.ConsumerStore. The deliveries that are not settled are not
// in it: the server has them itself.
func (s *laneState) State() (*server.ConsumerState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &server.ConsumerState{Delivered: s.delivered, AckFloor: s.floor}, nil
}

// BorrowState implements server.ConsumerStore.
func (s *laneState) BorrowState() (*server.ConsumerState, error) { return s.State() }

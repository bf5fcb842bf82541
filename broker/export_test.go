package broker

import (
	"github.com/nats-io/nats-server/v2/server"
	"github.com/tinylib/msgp/msgp"

	"jobstream/jobs"
)

// What the tests of the codec need.

func EncodeJSON(e *jobs.Event) []byte { return appendEventJSON(nil, e) }

func EncodePacked(events []jobs.Event) []byte {
	b := msgp.AppendArrayHeader([]byte{packedVersion}, uint32(len(events)))
	for i := range events {
		b = appendPackedEvent(b, &events[i])
	}
	return b
}

// EncodePackedWithMore adds a field that a later version might have.
func EncodePackedWithMore(e *jobs.Event) []byte {
	b := msgp.AppendArrayHeader([]byte{packedVersion}, 1)
	one := appendPackedEvent(nil, e)
	_, fields, _ := msgp.ReadArrayHeaderBytes(one)
	b = msgp.AppendArrayHeader(b, packedFields+1)
	b = append(b, fields...)
	return msgp.AppendString(b, "more")
}

func DecodeEvents(body []byte) ([]jobs.Event, error) { return decodeEvents(body, new(interner)) }

func ParseAck(reply string) (consumer string, numbers [4]uint64, ok bool) {
	a, ok := parseAck([]byte(reply))
	return string(a.consumer), [4]uint64{a.seq, a.delivery, uint64(a.at), a.pending}, ok
}

// Disconnect breaks the connections of the hot path, as an upset server would.
func (b *Broker) Disconnect() {
	for _, l := range []*link{b.pub, b.work} {
		l.mu.Lock()
		conn := l.conn
		l.mu.Unlock()
		_ = conn.Close()
	}
}

// LaneIndex is what stands before the store of JOBS.
type LaneIndex struct{ *laneIndex }

// NewLaneIndex makes one that keeps so many sequences of a lane at most.
func NewLaneIndex(store server.StreamStore, most int) LaneIndex {
	x := newLaneIndex(store)
	x.most = most
	return LaneIndex{x}
}

func (x LaneIndex) Track(subject string) { x.track(subject) }

// Stored tells the index of a message late, as if another thread had been faster.
func (x LaneIndex) Stored(subject string, seq uint64) { x.stored(subject, seq) }

// Next is where a search for a subject would begin.
func (x LaneIndex) Next(subject string, start uint64) uint64 { return x.next(subject, start) }

// LaneIndex is the index of the lanes of this broker; ok is false if there is none.
func (b *Broker) LaneIndex() (x LaneIndex, ok bool) { return LaneIndex{b.index}, b.index != nil }

// IndexLanes tries once more to index the lanes.
func (b *Broker) IndexLanes() { b.indexLanes() }

// JobsConsumers is how many consumers JOBS has, those of the server itself included.
func (b *Broker) JobsConsumers() int {
	_, mu, consumers := storeOf(b.srv, JobsStream)
	mu.RLock()
	defer mu.RUnlock()
	return consumers()
}

package broker

import (
	"fmt"
	"time"

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
	b = msgp.AppendArrayHeader(b, packedFields+2)
	b = append(b, fields...)
	b = msgp.AppendBytes(b, nil) // no checkpoint
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

// WrapJobs tries once more to put our stores before that of JOBS.
func (b *Broker) WrapJobs() { b.wrapJobs() }

// LaneStates gives the lanes of a store the memory that ours have.
func LaneStates(store server.StreamStore) server.StreamStore { return laneStates{store} }

// NewTap makes one that stands before a store.
func NewTap(store server.StreamStore) server.StreamStore { return &tap{StreamStore: store} }

// WithoutTap has the reader of JOBS use consumers only.
func (b *Broker) WithoutTap() { b.tap = nil }

// TapFollowed reports whether the reader of JOBS follows the tap.
func (b *Broker) TapFollowed() bool {
	b.tap.mu.Lock()
	defer b.tap.mu.Unlock()
	return b.tap.reader != nil
}

// Feed is a feed without a server: the test is its consumer and its sink.
type Feed struct {
	f     *feed
	round int
	next  uint64 // delivery
}

// NewFeed makes one that follows a tap from behind the message last, with so many bytes
// under way at most.
func NewFeed(store server.StreamStore, last uint64, most int) *Feed {
	f := &feed{b: &Broker{opened: time.Now()}, tap: store.(*tap), whole: true, last: last}
	f.init()
	f.most = most
	return &Feed{f: f}
}

// Consume begins a new consumer, with the stream's end at that message, and returns
// where it begins.
func (f *Feed) Consume(end uint64) (start uint64) {
	start, f.round = f.f.nextRound(end)
	f.next = 1
	f.f.calm()
	f.f.mu.Lock()
	f.f.ended()
	f.f.mu.Unlock()
	return start
}

// Asked reports whether the consumer may bring something.
func (f *Feed) Asked() bool { return f.f.listening() }

// Queued is how many bytes wait to be taken.
func (f *Feed) Queued() (n int) {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	for i := range f.f.queue {
		n += f.f.queue[i].size()
	}
	return n
}

// Deliver brings a message by the consumer.
func (f *Feed) Deliver(seq uint64, subject string, header, body []byte, pending int) {
	f.f.receive(f.round, &frame{
		subject: []byte(subject), header: header, body: body,
		reply: fmt.Appendf(nil, "$JS.ACK.JOBS.c.1.%d.%d.1.%d", seq, f.next, pending),
	})
	f.next++
}

// LoseDelivery has the next delivery show that one did not come.
func (f *Feed) LoseDelivery() { f.next++ }

// Followed reports whether what comes is that of the tap.
func (f *Feed) Followed() bool { return f.f.followed() }

// Join tries to follow the tap.
func (f *Feed) Join() bool { return f.f.joinTap() }

// Level reports, once, that it is time to join.
func (f *Feed) Level() bool { return signalled(f.f.level) }

// Broken reports, once, that a new consumer must be made.
func (f *Feed) Broken() bool { return signalled(f.f.broken) }

// Take takes all that has come: the sequences, and what the messages say.
func (f *Feed) Take() (seqs []uint64, bodies []string) {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	for _, it := range f.f.queue {
		if it.ended > 0 {
			if it.ended == f.f.round && f.f.expect > 0 {
				f.f.left = f.f.most
			}
			continue
		}
		seqs = append(seqs, it.seq)
		bodies = append(bodies, it.subject+string(it.header)+string(it.body))
		if it.told {
			f.f.tapped.ahead -= it.size()
		}
	}
	f.f.queue = nil
	if n := len(f.f.tapped.early); n == 0 && f.f.tapped.ahead != 0 {
		panic(fmt.Sprintf("%d bytes are believed to be under way", f.f.tapped.ahead))
	}
	return seqs, bodies
}

// JobsConsumers is how many consumers JOBS has, those of the server itself included.
func (b *Broker) JobsConsumers() int {
	_, mu, consumers := storeOf(b.srv, JobsStream)
	mu.RLock()
	defer mu.RUnlock()
	return consumers()
}

// HeldAcks are acks that are not sent at once.
type HeldAcks struct{ heldAcks }

func (h *HeldAcks) Hold(d *jobs.Delivery) bool { return h.hold(d) }
func (h *HeldAcks) Trim(upTo uint64)           { h.trim(upTo) }
func (h *HeldAcks) Turn() []string             { return h.turn() }
func (h *HeldAcks) Close(closed bool) []string { return h.close(closed) }

// How acks are held back.
const (
	PromptAcks    = promptAcks
	FirstHeldAcks = firstHeldAcks
	MostHeldAcks  = mostHeldAcks
	LeastHeldAcks = leastHeldAcks
)

// Behind says how many clients there are but those of this process, and how many bytes
// they have not read yet.
func (b *Broker) Behind() (clients, bytes int) {
	all, bytes := b.outside()
	return len(all), bytes
}

package broker

import (
	"github.com/tinylib/msgp/msgp"

	"jobstream/jobs"
)

// What the tests of the codec need.

func EncodeJSON(e *jobs.Event) []byte { return jobs.AppendFieldsJSON(nil, jobs.EventFields, e) }

func EncodePacked(events []jobs.Event) []byte {
	b := msgp.AppendArrayHeader([]byte{packedVersion}, uint32(len(events)))
	for i := range events {
		b = appendPackedEvent(b, &events[i])
	}
	return b
}

func DecodeEvents(body []byte) ([]jobs.Event, error) { return decodeEvents(body, new(interner)) }

func ParseAck(reply string) (consumer string, numbers [3]uint64, ok bool) {
	a, ok := parseAck([]byte(reply))
	return string(a.consumer), [3]uint64{a.seq, a.delivery, uint64(a.at)}, ok
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

package broker

import (
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

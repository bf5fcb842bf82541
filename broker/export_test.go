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

// Asked says whether a sweep is asked for, once.
func (t *Tail) Asked() bool {
	select {
	case <-t.kick:
		return true
	default:
		return false
	}
}

// How acks wait, and how long a few messages do.
const (
	UnsentWithin = unsentWithin
	PurgeFew     = purgeFew
)

// Behind says how many clients there are but those of this process, and how many bytes
// they have not read yet.
func (b *Broker) Behind() (clients, bytes int) {
	all, bytes := b.outside()
	return len(all), bytes
}

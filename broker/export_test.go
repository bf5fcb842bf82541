package broker

import (
	"time"

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

// Disconnect breaks the connections of the hot path, as an upset server would.
func (b *Broker) Disconnect() {
	open, err := b.srv.Connz(nil)
	if err != nil {
		panic(err)
	}
	for _, c := range open.Conns {
		if c.Name == publisherName || c.Name == lanesName {
			_ = b.srv.DisconnectClientByID(c.Cid) // or it has gone by itself
		}
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

// LongAgo makes the last purge one of long ago.
func (t *Tail) LongAgo() { t.last = time.Time{} }

// How acks wait, and how long a few messages do.
const (
	UnsentWithin = unsentWithin
	PurgeFew     = purgeFew
)

// Behind says how many clients there are but those of this process, and how many bytes
// they have not read yet.
func (b *Broker) Behind() (clients, bytes int) {
	all, bytes := b.Notifier.crowd.outside()
	return len(all), bytes
}

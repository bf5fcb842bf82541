package broker

import (
	"time"

	"github.com/tinylib/msgp/msgp"

	"jobstream/jobs"
)

// EncodeJSON encodes an event by itself.
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

// Asked says whether a sweep is asked for, and forgets it.
func (t *Tail) Asked() bool {
	select {
	case <-t.kick:
		return true
	default:
		return false
	}
}

// LongAgo moves the last purge into the distant past.
func (t *Tail) LongAgo() { t.last = time.Time{} }

// UnsentWithin bounds deferred acks, and PurgeFew is how long a few dead messages stay.
const (
	UnsentWithin = unsentWithin
	PurgeFew     = purgeFew
)

// Behind counts the clients from outside of this process, and the bytes that they have not
// read yet.
func (b *Broker) Behind() (clients, bytes int) {
	all, bytes := b.Notifier.crowd.outside()
	return len(all), bytes
}

// Places is the number of places for lanes that are remembered.
func (l *Lanes) Places() int {
	l.pulls.mu.Lock()
	defer l.pulls.mu.Unlock()
	return len(l.pulls.lanes)
}

// Addr is where nats-server listens for clients, even for those that it never admits.
func (s *Server) Addr() string { return s.srv.Addr().String() }

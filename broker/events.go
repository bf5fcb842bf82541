package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
	"jobstream/jobs/packed"
)

// Events stand in STATUS in two forms.
//
// One event is a JSON object on status.<kind>.<type>.<id>, stored under
// status.<kind>.<type>._. It has those of [jobs.EventFields] that are set. Times are
// RFC 3339 in UTC.
//
// Many events are one binary message on status.packed.<node>. A byte with the version
// comes first, then a MessagePack array of events. Each event is an array of the fields in
// the order of the table. It may have fewer fields than this version knows, or more.

const packedVersion = 1

// EventLog publishes events to STATUS. It has no state, so no lock.
type EventLog struct {
	server *Server
	conn   *wire.Conn
}

var eventBuffers = sync.Pool{New: func() any { return new([2][]byte) }}

// Append publishes events to STATUS and returns when they are on their way, in this order.
// It leaves out events larger than Options.MaxPayload; the error names them.
func (l *EventLog) Append(events []jobs.Event) error {
	buffers := eventBuffers.Get().(*[2][]byte)
	defer eventBuffers.Put(buffers)
	if len(events) == 1 {
		return l.appendOne(&events[0], buffers)
	}
	return l.appendPacked(events, buffers)
}

func (l *EventLog) appendOne(e *jobs.Event, buffers *[2][]byte) error {
	body := jobs.AppendFieldsJSON(buffers[0][:0], jobs.EventFields, e)
	buffers[0] = body
	if len(body) > l.server.o.MaxPayload {
		return tooLarge(e, len(body))
	}
	subject := append(append(buffers[1][:0], "status."...), e.Kind.String()...)
	subject = append(append(subject, '.'), e.Type...)
	subject = jobs.AppendID(append(subject, '.'), e.ID)
	buffers[1] = subject
	if err := wire.Publish(l.conn, subject, "", nil, body); err != nil {
		return fmt.Errorf("cannot publish an event: %w", err)
	}
	return nil
}

func tooLarge(e *jobs.Event, size int) error {
	return fmt.Errorf("event %q of job %s has %d bytes: %w", e.Kind, e.ID, size, errEventTooLarge)
}

var errEventTooLarge = errors.New("the event is larger than the broker's largest message")

// packedHeader is the room for the version and the array's length in front of
// packed events.
const packedHeader = 6

func (l *EventLog) appendPacked(events []jobs.Event, buffers *[2][]byte) error {
	limit := min(maxPacked, l.server.o.MaxPayload)
	var failed []error
	body := append(buffers[0][:0], make([]byte, packedHeader)...)
	n := uint32(0)
	flush := func(end int) {
		if n > 0 {
			if err := l.publishPacked(body[:end], n); err != nil {
				failed = append(failed, err)
			}
		}
		body = append(body[:packedHeader], body[end:]...)
		n = 0
	}
	for i := range events {
		start := len(body)
		body = appendPackedEvent(body, &events[i])
		if size := len(body) - start; size > l.server.o.MaxPayload-packedHeader {
			failed = append(failed, tooLarge(&events[i], size))
			body = body[:start]
			continue
		}
		if len(body) > limit {
			flush(start)
		}
		n++
	}
	flush(len(body))
	buffers[0] = body
	return errors.Join(failed...)
}

func (l *EventLog) publishPacked(body []byte, n uint32) error {
	body[0] = packedVersion
	body[1] = 0xdd // an array with a length of 32 bits
	body[2], body[3], body[4], body[5] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	if err := wire.Publish(l.conn, l.packedSubject(), "", nil, body); err != nil {
		return fmt.Errorf("cannot publish events: %w", err)
	}
	return nil
}

func (l *EventLog) packedSubject() string { return "status.packed." + safeType(l.server.o.Node) }

// appendPackedEvent appends one event of packed ones.
func appendPackedEvent(b []byte, e *jobs.Event) []byte {
	return packed.AppendArray(b, jobs.EventFields, e, 0)
}

// decodeEvents reads either form. names makes equal strings share memory.
func decodeEvents(body []byte, names *interner) ([]jobs.Event, error) {
	switch {
	case len(body) == 0:
		return nil, errors.New("the message is empty")
	case body[0] == packedVersion:
		return decodePacked(body[1:], names)
	case body[0] == '{':
		events := make([]jobs.Event, 1)
		if err := jobs.ReadFieldsJSON(body, jobs.EventFields, &events[0]); err != nil {
			return nil, err
		}
		return events, checkEvent(&events[0])
	}
	return nil, fmt.Errorf("version %d of packed events is unknown", body[0])
}

// smallestEvent is the least number of bytes of a packed event. No field can be missing up
// to its priority, and the id alone has 18.
const smallestEvent = 24

// decodePacked reads packed events. Their number may be forged, so it is bounded by the
// message's bytes and by the size of our own messages.
func decodePacked(b []byte, names *interner) ([]jobs.Event, error) {
	r := packed.Reader{B: b, Names: names.get}
	n := r.Array()
	if n > min(len(b), maxPacked)/smallestEvent {
		return nil, fmt.Errorf("%d events in %d bytes", n, len(b))
	}
	events := make([]jobs.Event, n)
	for i := range events {
		packed.ReadArray(&r, jobs.EventFields, &events[i])
		if r.Err == nil {
			r.Fail(checkEvent(&events[i]))
		}
		if r.Err != nil {
			return nil, fmt.Errorf("event %d: %w", i, r.Err)
		}
	}
	return events, r.Err
}

// checkEvent refuses events that no fold could use.
func checkEvent(e *jobs.Event) error {
	switch {
	case e.Kind < jobs.KindStarted || e.Kind > jobs.KindSnoozed:
		return fmt.Errorf("unknown kind %d", e.Kind)
	case e.ID == jobs.ID{}:
		return errors.New("it has no id")
	case !jobs.ValidTypeName(e.Type):
		return fmt.Errorf("%q is not a type", e.Type)
	case !e.Priority.Valid():
		return fmt.Errorf("%d is not a priority", e.Priority)
	case len(e.Result) > 0 && !json.Valid(e.Result):
		return errors.New("the result is not JSON")
	}
	return nil
}

// interner keeps one copy of strings that come again and again. It is bounded, and for use
// by one goroutine.
type interner struct{ known map[string]string }

// maxInterned strings are known at a time.
const maxInterned = 1024

func (n *interner) get(b []byte) string {
	if s, ok := n.known[string(b)]; ok {
		return s
	}
	s := string(b)
	if n.known == nil || len(n.known) >= maxInterned {
		n.known = make(map[string]string)
	}
	n.known[s] = s
	return s
}

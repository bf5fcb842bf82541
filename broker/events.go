package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/tinylib/msgp/msgp"

	"jobstream/jobs"
)

// Events stand in STATUS in two forms.
//
// One event is a JSON object on status.<kind>.<type>.<id>, stored under
// status.<kind>.<type>._:
//
//	kind         started, progress, completed, failed, retrying, released, lost, cancelled
//	id, seq      the job, and the message of JOBS that was delivered
//	type, priority, created_at, max_attempts   of the job
//	run, attempt, node, started_at             of the attempt
//	at           when it happened
//	progress, message, error, result           as far as the kind has them
//	due          when the next attempt is due, for retrying
//	lost         how many workers died, for failed
//	artifact     {name, content_type, size, sha256}
//	checkpoint   what the attempt left for the next one
//
// Times are RFC 3339 in UTC; empty fields are left out.
//
// Many events are one binary message on status.packed.<node>: a byte with the
// version, then a MessagePack array of events, each an array of the fields in
// the order of appendPackedEvent. Fields may be missing at the end, or be more
// than this version knows.

const packedVersion = 1

// MaxEvent is the largest size in bytes of an encoded event; the result is the
// part of it that can be long.
func (b *Broker) MaxEvent() int { return b.o.MaxPayload }

var eventBuffers = sync.Pool{New: func() any { return new([2][]byte) }}

// Append publishes events to STATUS and returns when they are on their way, in
// this order. An event larger than [Broker.MaxEvent] is left out and the others
// are published; the error says so.
func (b *Broker) Append(events []jobs.Event) error {
	buffers := eventBuffers.Get().(*[2][]byte)
	defer eventBuffers.Put(buffers)
	if len(events) == 1 {
		return b.appendOne(&events[0], buffers)
	}
	return b.appendPacked(events, buffers)
}

func (b *Broker) appendOne(e *jobs.Event, buffers *[2][]byte) error {
	body := appendEventJSON(buffers[0][:0], e)
	buffers[0] = body
	if len(body) > b.o.MaxPayload {
		return tooLarge(e, len(body))
	}
	subject := append(append(buffers[1][:0], "status."...), e.Kind.String()...)
	subject = append(append(subject, '.'), e.Type...)
	subject = appendID(append(subject, '.'), e.ID)
	buffers[1] = subject
	buf, err := b.pub.begin()
	if err != nil {
		return fmt.Errorf("cannot publish an event: %w", err)
	}
	b.pub.endNow(appendPub(buf, subject, "", nil, body))
	return nil
}

func tooLarge(e *jobs.Event, size int) error {
	return fmt.Errorf("event %q of job %s has %d bytes: %w", e.Kind, e.ID, size, errEventTooLarge)
}

// packedHeader is the room for the version and the array's length in front of
// packed events.
const packedHeader = 6

func (b *Broker) appendPacked(events []jobs.Event, buffers *[2][]byte) error {
	limit := min(maxPacked, b.o.MaxPayload)
	var failed []error
	body := append(buffers[0][:0], make([]byte, packedHeader)...)
	n := uint32(0)
	flush := func(end int) {
		if n > 0 {
			if err := b.publishPacked(body[:end], n); err != nil {
				failed = append(failed, err)
			}
		}
		body = append(body[:packedHeader], body[end:]...)
		n = 0
	}
	for i := range events {
		start := len(body)
		body = appendPackedEvent(body, &events[i])
		if size := len(body) - start; size > b.o.MaxPayload-packedHeader {
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

func (b *Broker) publishPacked(body []byte, n uint32) error {
	body[0] = packedVersion
	body[1] = 0xdd // an array with a length of 32 bits
	body[2], body[3], body[4], body[5] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	buf, err := b.pub.begin()
	if err != nil {
		return fmt.Errorf("cannot publish events: %w", err)
	}
	b.pub.endNow(appendPub(buf, b.packedSubject(), "", nil, body))
	return nil
}

func (b *Broker) packedSubject() string { return "status.packed." + safeType(b.o.Node) }

const packedFields = 19 // one more with a checkpoint

func appendPackedEvent(b []byte, e *jobs.Event) []byte {
	n := packedFieldCount(e)
	b = msgp.AppendArrayHeader(b, uint32(n))
	b = msgp.AppendUint8(b, uint8(e.Kind))
	b = msgp.AppendBytes(b, e.ID[:])
	b = msgp.AppendUint64(b, e.Seq)
	b = msgp.AppendString(b, e.Type)
	b = msgp.AppendUint8(b, uint8(e.Priority))
	b = msgp.AppendInt64(b, int64(e.CreatedAt))
	b = msgp.AppendInt(b, e.MaxAttempts)
	b = msgp.AppendInt(b, e.Run)
	b = msgp.AppendInt(b, e.Attempt)
	b = msgp.AppendInt64(b, int64(e.At))
	b = msgp.AppendInt64(b, int64(e.StartedAt))
	b = msgp.AppendString(b, e.Node)
	if n == 12 {
		return b
	}
	b = msgp.AppendBytes(b, e.Result)
	b = msgp.AppendInt(b, e.Progress)
	b = msgp.AppendString(b, e.Message)
	b = msgp.AppendString(b, e.Error)
	b = msgp.AppendInt64(b, int64(e.Due))
	b = msgp.AppendInt(b, e.Lost)
	if e.Artifact == nil {
		b = msgp.AppendNil(b)
	} else {
		b = msgp.AppendArrayHeader(b, 4)
		b = msgp.AppendString(b, e.Artifact.Name)
		b = msgp.AppendString(b, e.Artifact.ContentType)
		b = msgp.AppendInt64(b, e.Artifact.Size)
		b = msgp.AppendString(b, e.Artifact.SHA256)
	}
	if n > packedFields {
		b = msgp.AppendBytes(b, e.Checkpoint)
	}
	return b
}

// packedFieldCount leaves the rarer fields out where an event has none of them.
func packedFieldCount(e *jobs.Event) int {
	if len(e.Checkpoint) > 0 {
		return packedFields + 1
	}
	if len(e.Result) == 0 && e.Progress == 0 && e.Message == "" && e.Error == "" && e.Due == 0 && e.Lost == 0 && e.Artifact == nil {
		return 12
	}
	return packedFields
}

// decodeEvents reads either form. names makes equal strings share memory.
func decodeEvents(body []byte, names *interner) ([]jobs.Event, error) {
	switch {
	case len(body) == 0:
		return nil, errors.New("the message is empty")
	case body[0] == packedVersion:
		return decodePacked(body[1:], names)
	case body[0] == '{':
		e, err := decodeEventJSON(body)
		if err != nil {
			return nil, err
		}
		return []jobs.Event{e}, nil
	}
	return nil, fmt.Errorf("version %d of packed events is unknown", body[0])
}

// smallestEvent is how many bytes a packed event has at least: up to its priority no
// field can be missing, and the id alone has 18.
const smallestEvent = 24

// decodePacked reads packed events. Whoever wrote the message also wrote how many they
// are: so many are believed as can be in it, and in one of ours.
func decodePacked(b []byte, names *interner) ([]jobs.Event, error) {
	n, b, err := msgp.ReadArrayHeaderBytes(b)
	if err != nil {
		return nil, err
	}
	if int64(n) > int64(min(len(b), maxPacked)/smallestEvent) {
		return nil, fmt.Errorf("%d events in %d bytes", n, len(b))
	}
	events := make([]jobs.Event, n)
	for i := range events {
		if b, err = decodePackedEvent(b, &events[i], names); err != nil {
			return nil, fmt.Errorf("event %d: %w", i, err)
		}
	}
	return events, nil
}

// unpacker reads values one after the other; the first error stays.
type unpacker struct {
	b     []byte
	left  uint32 // fields left in the event's array
	err   error
	names *interner
}

func (u *unpacker) more() bool {
	if u.err != nil || u.left == 0 {
		return false
	}
	u.left--
	return true
}

func (u *unpacker) int() (v int64) {
	if u.more() {
		v, u.b, u.err = msgp.ReadInt64Bytes(u.b)
	}
	return v
}

func (u *unpacker) uint() (v uint64) {
	if u.more() {
		v, u.b, u.err = msgp.ReadUint64Bytes(u.b)
	}
	return v
}

func (u *unpacker) bytes() (v []byte) {
	if u.more() {
		v, u.b, u.err = msgp.ReadBytesZC(u.b)
	}
	return v
}

func (u *unpacker) text() (v []byte) {
	if u.more() {
		v, u.b, u.err = msgp.ReadStringZC(u.b)
	}
	return v
}

func (u *unpacker) string() string { return string(u.text()) }

func (u *unpacker) name() string { return u.names.get(u.text()) }

func (u *unpacker) skip() {
	for u.more() {
		u.b, u.err = msgp.Skip(u.b)
	}
}

func decodePackedEvent(b []byte, e *jobs.Event, names *interner) ([]byte, error) {
	u := unpacker{b: b, names: names}
	u.left, u.b, u.err = msgp.ReadArrayHeaderBytes(b)
	kind := u.uint()
	id := u.bytes()
	e.Seq = u.uint()
	e.Type = u.name()
	priority := u.uint()
	e.CreatedAt = jobs.Time(u.int())
	e.MaxAttempts, e.Run, e.Attempt = int(u.int()), int(u.int()), int(u.int())
	e.At, e.StartedAt = jobs.Time(u.int()), jobs.Time(u.int())
	e.Node = u.name()
	if r := u.bytes(); len(r) > 0 {
		e.Result = append(json.RawMessage(nil), r...)
	}
	e.Progress = int(u.int())
	e.Message, e.Error = u.string(), u.string()
	e.Due = jobs.Time(u.int())
	e.Lost = int(u.int())
	e.Artifact = u.artifact()
	if c := u.bytes(); len(c) > 0 {
		e.Checkpoint = append(json.RawMessage(nil), c...)
	}
	u.skip()
	if u.err != nil {
		return nil, u.err
	}
	copy(e.ID[:], id)
	e.Kind, e.Priority = jobs.Kind(min(kind, 255)), jobs.Priority(min(priority, 255))
	return u.b, checkEvent(e, len(id))
}

func (u *unpacker) artifact() *jobs.Artifact {
	if !u.more() {
		return nil
	}
	if msgp.IsNil(u.b) {
		u.b, u.err = msgp.ReadNilBytes(u.b)
		return nil
	}
	inner := unpacker{b: u.b, names: u.names}
	inner.left, inner.b, inner.err = msgp.ReadArrayHeaderBytes(u.b)
	a := &jobs.Artifact{Name: inner.string(), ContentType: inner.string(), Size: inner.int(), SHA256: inner.string()}
	inner.skip()
	u.b, u.err = inner.b, inner.err
	return a
}

// checkEvent refuses what no fold could use.
func checkEvent(e *jobs.Event, idLength int) error {
	switch {
	case e.Kind < jobs.KindStarted || e.Kind > jobs.KindSnoozed:
		return fmt.Errorf("unknown kind %d", e.Kind)
	case idLength != len(e.ID):
		return fmt.Errorf("the id has %d bytes", idLength)
	case !jobs.ValidTypeName(e.Type):
		return fmt.Errorf("%q is not a type", e.Type)
	case !e.Priority.Valid():
		return fmt.Errorf("%d is not a priority", e.Priority)
	case len(e.Result) > 0 && !json.Valid(e.Result):
		return errors.New("the result is not JSON")
	}
	return nil
}

func appendEventJSON(b []byte, e *jobs.Event) []byte {
	b = append(b, `{"kind":"`...)
	b = append(b, e.Kind.String()...)
	b = append(b, `","id":"`...)
	b = appendID(b, e.ID)
	b = append(b, `","seq":`...)
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, `,"type":`...)
	b = jobs.AppendString(b, e.Type)
	b = append(b, `,"priority":`...)
	b = strconv.AppendUint(b, uint64(e.Priority), 10)
	b = appendTimeField(b, "created_at", e.CreatedAt)
	b = appendIntField(b, "max_attempts", e.MaxAttempts)
	b = appendIntField(b, "run", e.Run)
	b = appendIntField(b, "attempt", e.Attempt)
	b = appendTimeField(b, "at", e.At)
	b = appendTimeField(b, "started_at", e.StartedAt)
	b = appendTextField(b, "node", e.Node)
	b = appendIntField(b, "progress", e.Progress)
	b = appendTextField(b, "message", e.Message)
	b = appendTextField(b, "error", e.Error)
	b = appendTimeField(b, "due", e.Due)
	b = appendIntField(b, "lost", e.Lost)
	if len(e.Result) > 0 {
		b = append(b, `,"result":`...)
		b = append(b, e.Result...)
	}
	if len(e.Checkpoint) > 0 {
		b = append(b, `,"checkpoint":`...)
		b = append(b, e.Checkpoint...)
	}
	if a := e.Artifact; a != nil {
		b = append(b, `,"artifact":{"name":`...)
		b = jobs.AppendString(b, a.Name)
		b = append(b, `,"content_type":`...)
		b = jobs.AppendString(b, a.ContentType)
		b = append(b, `,"size":`...)
		b = strconv.AppendInt(b, a.Size, 10)
		b = append(b, `,"sha256":`...)
		b = jobs.AppendString(b, a.SHA256)
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendKey(b []byte, name string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

func appendIntField(b []byte, name string, v int) []byte {
	if v == 0 {
		return b
	}
	return strconv.AppendInt(appendKey(b, name), int64(v), 10)
}

func appendTextField(b []byte, name, v string) []byte {
	if v == "" {
		return b
	}
	return jobs.AppendString(appendKey(b, name), v)
}

func appendTimeField(b []byte, name string, t jobs.Time) []byte {
	if t == 0 {
		return b
	}
	b = append(appendKey(b, name), '"')
	b = t.Std().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

func decodeEventJSON(body []byte) (jobs.Event, error) {
	var v struct {
		Kind        string          `json:"kind"`
		ID          string          `json:"id"`
		Seq         uint64          `json:"seq"`
		Type        string          `json:"type"`
		Priority    jobs.Priority   `json:"priority"`
		CreatedAt   time.Time       `json:"created_at"`
		MaxAttempts int             `json:"max_attempts"`
		Run         int             `json:"run"`
		Attempt     int             `json:"attempt"`
		At          time.Time       `json:"at"`
		StartedAt   time.Time       `json:"started_at"`
		Node        string          `json:"node"`
		Progress    int             `json:"progress"`
		Message     string          `json:"message"`
		Error       string          `json:"error"`
		Due         time.Time       `json:"due"`
		Lost        int             `json:"lost"`
		Result      json.RawMessage `json:"result"`
		Artifact    *struct {
			Name        string `json:"name"`
			ContentType string `json:"content_type"`
			Size        int64  `json:"size"`
			SHA256      string `json:"sha256"`
		} `json:"artifact"`
		Checkpoint json.RawMessage `json:"checkpoint"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return jobs.Event{}, err
	}
	kind, _ := jobs.ParseKind(v.Kind)
	id, err := jobs.ParseID(v.ID)
	if err != nil {
		return jobs.Event{}, err
	}
	e := jobs.Event{
		Kind: kind, ID: id, Seq: v.Seq, Type: v.Type, Priority: v.Priority,
		CreatedAt: jobs.TimeOf(v.CreatedAt), MaxAttempts: v.MaxAttempts, Run: v.Run, Attempt: v.Attempt,
		At: jobs.TimeOf(v.At), StartedAt: jobs.TimeOf(v.StartedAt), Node: v.Node, Progress: v.Progress,
		Message: v.Message, Error: v.Error, Due: jobs.TimeOf(v.Due), Lost: v.Lost, Result: v.Result, Checkpoint: v.Checkpoint,
	}
	if v.Artifact != nil {
		e.Artifact = &jobs.Artifact{Name: v.Artifact.Name, ContentType: v.Artifact.ContentType, Size: v.Artifact.Size, SHA256: v.Artifact.SHA256}
	}
	return e, checkEvent(&e, len(e.ID))
}

// interner keeps one copy of strings that come again and again. It is bounded,
// and not for use by several goroutines.
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

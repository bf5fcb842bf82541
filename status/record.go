package status

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tinylib/msgp/msgp"

	"jobstream/jobs"
)

// recordVersion is the first byte of a record. Fields may be added at the end of
// the array without a new version: readers skip what they don't know and leave
// at zero what is missing.
const recordVersion = 1

// recordFields is the length of the array that appendRecord writes for most
// jobs; those with terms, or in another place than the queue, have rareFields more,
// and those with something else besides lateFields on top.
const (
	recordFields = 28
	rareFields   = 3 // terms, place, slot
	lateFields   = 2 // whether its type was not known, checkpoint
	termFields   = 7
)

// inlinePayload is the largest payload, in bytes, that stands in the record
// itself: a larger one has a bucket of its own, so that an update of the record
// does not write it again.
const inlinePayload = 1024

// appendRecord appends the encoding of j. The payload is left out if it is kept
// apart.
func appendRecord(b []byte, j *jobs.Job) []byte {
	apart := len(j.Payload) > inlinePayload
	b = append(b, recordVersion)
	rare := j.Terms != nil || j.Place != jobs.InQueue || j.Slot
	late := j.Unlisted || len(j.Checkpoint) > 0
	switch {
	case late:
		b = msgp.AppendArrayHeader(b, recordFields+rareFields+lateFields)
	case rare:
		b = msgp.AppendArrayHeader(b, recordFields+rareFields)
	default:
		b = msgp.AppendArrayHeader(b, recordFields)
	}
	b = append(b, 0xc4, 16) // msgpack bin8 of 16 bytes
	b = append(b, j.ID[:]...)
	b = msgp.AppendUint64(b, j.Seq)
	b = msgp.AppendString(b, j.Type)
	b = msgp.AppendUint8(b, uint8(j.Priority))
	b = msgp.AppendUint8(b, uint8(j.Status))
	b = msgp.AppendInt(b, j.Progress)
	b = msgp.AppendString(b, j.Message)
	b = msgp.AppendInt(b, j.Run)
	b = msgp.AppendInt(b, j.Attempt)
	b = msgp.AppendInt(b, j.Failures)
	b = msgp.AppendInt(b, j.MaxAttempts)
	b = msgp.AppendInt(b, j.Lost)
	b = msgp.AppendInt64(b, int64(j.Timeout))
	b = msgp.AppendBool(b, apart)
	if apart {
		b = msgp.AppendBytes(b, nil)
	} else {
		b = msgp.AppendBytes(b, j.Payload)
	}
	b = msgp.AppendBytes(b, j.Result)
	b = appendArtifact(b, j.Artifact)
	b = msgp.AppendString(b, j.Error)
	b = msgp.AppendArrayHeader(b, uint32(3*len(j.Errors)))
	for _, e := range j.Errors {
		b = msgp.AppendInt(b, e.Attempt)
		b = msgp.AppendString(b, e.Error)
		b = msgp.AppendInt64(b, int64(e.At))
	}
	b = msgp.AppendArrayHeader(b, uint32(len(j.Tags)))
	for _, t := range j.Tags {
		b = msgp.AppendString(b, t)
	}
	b = msgp.AppendString(b, j.Node)
	for _, t := range [...]jobs.Time{j.CreatedAt, j.UpdatedAt, j.DueAt, j.StartedAt, j.EndedAt} {
		b = msgp.AppendInt64(b, int64(t))
	}
	b = msgp.AppendArrayHeader(b, uint32(7*len(j.History)))
	for _, h := range j.History {
		b = msgp.AppendUint8(b, uint8(h.Kind))
		b = msgp.AppendInt64(b, int64(h.At))
		b = msgp.AppendInt(b, h.Attempt)
		b = msgp.AppendInt(b, h.Progress)
		b = msgp.AppendString(b, h.Text)
		b = msgp.AppendString(b, h.Node)
		b = msgp.AppendInt64(b, int64(h.Due))
	}
	b = msgp.AppendUint64(b, j.Key)
	if rare || late {
		b = appendTerms(b, j.Terms)
		b = msgp.AppendUint8(b, uint8(j.Place))
		b = msgp.AppendBool(b, j.Slot)
	}
	if late {
		b = msgp.AppendBool(b, j.Unlisted)
		b = msgp.AppendBytes(b, j.Checkpoint)
	}
	return b
}

func appendTerms(b []byte, t *jobs.Terms) []byte {
	if t == nil {
		return msgp.AppendArrayHeader(b, 0)
	}
	b = msgp.AppendArrayHeader(b, termFields)
	for _, at := range [...]jobs.Time{t.RunAt, t.ExpiresAt, t.Deadline, t.ScheduledFor} {
		b = msgp.AppendInt64(b, int64(at))
	}
	b = msgp.AppendString(b, t.UniqueKey)
	b = msgp.AppendString(b, t.ConcurrencyKey)
	return msgp.AppendString(b, t.Schedule)
}

func appendArtifact(b []byte, a *jobs.Artifact) []byte {
	if a == nil {
		return msgp.AppendArrayHeader(b, 0)
	}
	b = msgp.AppendArrayHeader(b, 4)
	b = msgp.AppendString(b, a.Name)
	b = msgp.AppendString(b, a.ContentType)
	b = msgp.AppendInt64(b, a.Size)
	return msgp.AppendString(b, a.SHA256)
}

// errRecord is what a record that cannot be read gives.
var errRecord = errors.New("damaged record in the tracker")

// decodeRecord reads a record. Nothing of the result points into b. apart says
// that the payload is in its own bucket.
func decodeRecord(b []byte) (j *jobs.Job, apart bool, err error) {
	if len(b) == 0 || b[0] != recordVersion {
		return nil, false, fmt.Errorf("%w: unknown version", errRecord)
	}
	r := reader{b: b[1:]}
	fields := r.array()
	if fields < recordFields {
		return nil, false, fmt.Errorf("%w: %d fields", errRecord, fields)
	}
	j = jobs.BlankJob()
	if id := r.raw(); len(id) == 16 {
		copy(j.ID[:], id)
	} else {
		r.fail()
	}
	j.Seq = r.uint64()
	if fields > recordFields+rareFields {
		j.Type = r.string() // made up by anybody
	} else {
		j.Type = r.interned()
	}
	j.Priority = jobs.Priority(r.uint64())
	j.Status = jobs.Status(r.uint64())
	j.Progress = r.int()
	j.Message = r.string()
	j.Run = r.int()
	j.Attempt = r.int()
	j.Failures = r.int()
	j.MaxAttempts = r.int()
	j.Lost = r.int()
	j.Timeout = time.Duration(r.int64())
	apart = r.bool()
	j.Payload = r.bytes()
	j.Result = r.bytes()
	j.Artifact = r.artifact()
	j.Error = r.string()
	if n := r.array(); n > 0 && r.err == nil {
		j.Errors = make([]jobs.AttemptError, 0, min(n/3, jobs.MaxErrors))
		for ; n >= 3 && r.err == nil; n -= 3 {
			j.Errors = append(j.Errors, jobs.AttemptError{Attempt: r.int(), Error: r.string(), At: r.time()})
		}
	}
	for n := r.array(); n > 0 && r.err == nil; n-- {
		j.Tags = append(j.Tags, r.string())
	}
	j.Node = r.interned()
	j.CreatedAt, j.UpdatedAt, j.DueAt, j.StartedAt, j.EndedAt = r.time(), r.time(), r.time(), r.time(), r.time()
	if n := r.array(); n > 0 && r.err == nil {
		if n/7 > cap(j.History) {
			j.History = make([]jobs.HistoryEntry, 0, min(n/7, jobs.MaxHistory))
		}
		for ; n >= 7 && r.err == nil; n -= 7 {
			j.History = append(j.History, jobs.HistoryEntry{
				Kind: jobs.Kind(r.uint64()), At: r.time(), Attempt: r.int(), Progress: r.int(),
				Text: r.string(), Node: r.interned(), Due: r.time(),
			})
		}
	}
	j.Key = r.uint64()
	if fields >= recordFields+rareFields {
		j.Terms = r.terms()
		j.Place = jobs.Place(r.uint64())
		j.Slot = r.bool()
	}
	if fields > recordFields+rareFields {
		j.Unlisted = r.bool()
	}
	if fields >= recordFields+rareFields+lateFields {
		j.Checkpoint = r.bytes()
	}
	if r.err != nil {
		return nil, false, fmt.Errorf("%w: %w", errRecord, r.err)
	}
	return j, apart, nil
}

// reader reads msgpack values one after the other; the first error sticks.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = msgp.ErrShortBytes
	}
	r.b = nil
}

// take runs one of msgp's Read…Bytes functions.
func take[T any](r *reader, read func([]byte) (T, []byte, error)) (v T) {
	if r.err != nil {
		return v
	}
	v, rest, err := read(r.b)
	if err != nil {
		r.err = err
		r.b = nil
		var zero T
		return zero
	}
	r.b = rest
	return v
}

func (r *reader) array() int       { return int(take(r, msgp.ReadArrayHeaderBytes)) }
func (r *reader) uint64() uint64   { return take(r, msgp.ReadUint64Bytes) }
func (r *reader) int64() int64     { return take(r, msgp.ReadInt64Bytes) }
func (r *reader) int() int         { return int(r.int64()) }
func (r *reader) bool() bool       { return take(r, msgp.ReadBoolBytes) }
func (r *reader) string() string   { return take(r, msgp.ReadStringBytes) }
func (r *reader) time() jobs.Time  { return jobs.Time(r.int64()) }
func (r *reader) raw() []byte      { return take(r, msgp.ReadBytesZC) }
func (r *reader) interned() string { return intern(take(r, msgp.ReadStringZC)) }

func (r *reader) bytes() []byte {
	raw := r.raw()
	if len(raw) == 0 {
		return nil
	}
	return append(make([]byte, 0, len(raw)), raw...)
}

func (r *reader) artifact() *jobs.Artifact {
	if r.array() != 4 {
		return nil
	}
	return &jobs.Artifact{Name: r.string(), ContentType: r.string(), Size: r.int64(), SHA256: r.string()}
}

func (r *reader) terms() *jobs.Terms {
	n := r.array()
	if n < termFields {
		return nil
	}
	t := &jobs.Terms{
		RunAt: r.time(), ExpiresAt: r.time(), Deadline: r.time(), ScheduledFor: r.time(),
		UniqueKey: r.string(), ConcurrencyKey: r.string(), Schedule: r.interned(),
	}
	r.skip(n - termFields) // of a later version
	return t
}

// key8 is n as a bucket key: big endian, so that keys sort as numbers do.
func key8(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

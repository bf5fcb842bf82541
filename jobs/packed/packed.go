// Package packed writes and reads the attributes of jobs and events as MessagePack:
// an array of the fields of a table, of which the last ones may be missing. The
// tracker's records and the events in STATUS have this form.
package packed

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/tinylib/msgp/msgp"

	"jobstream/jobs"
)

// AppendArray appends an array with the fields of v: all up to the last one that is
// set, and at least so many.
func AppendArray[T any](b []byte, fields []jobs.Field[T], v *T, least int) []byte {
	n := jobs.NumSet(fields, v, least)
	return AppendFields(msgp.AppendArrayHeader(b, uint32(n)), fields[:n], v)
}

// AppendFields appends the fields of v, without an array around them.
func AppendFields[T any](b []byte, fields []jobs.Field[T], v *T) []byte {
	for i := range fields {
		b = appendValue(b, fields[i].Of(v))
	}
	return b
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case *string:
		return msgp.AppendString(b, *v)
	case *int:
		return msgp.AppendInt(b, *v)
	case *uint64:
		return msgp.AppendUint64(b, *v)
	case *bool:
		return msgp.AppendBool(b, *v)
	case *jobs.Time:
		return msgp.AppendInt64(b, int64(*v))
	case *time.Duration:
		return msgp.AppendInt64(b, int64(*v))
	case *json.RawMessage:
		return msgp.AppendBytes(b, *v)
	case *[]string:
		b = msgp.AppendArrayHeader(b, uint32(len(*v)))
		for _, s := range *v {
			b = msgp.AppendString(b, s)
		}
		return b
	case *jobs.ID:
		return msgp.AppendBytes(b, v[:])
	case *jobs.Priority:
		return msgp.AppendUint8(b, uint8(*v))
	case *jobs.Status:
		return msgp.AppendUint8(b, uint8(*v))
	case *jobs.Kind:
		return msgp.AppendUint8(b, uint8(*v))
	case *jobs.Place:
		return msgp.AppendUint8(b, uint8(*v))
	case **jobs.Artifact:
		return appendArtifact(b, *v)
	case **jobs.Terms:
		return AppendTerms(b, *v)
	case *[]jobs.AttemptError:
		return appendErrors(b, *v)
	case *[]jobs.HistoryEntry:
		return appendHistory(b, *v)
	}
	panic(fmt.Sprintf("no form for attributes of type %T", v))
}

// AppendTerms appends terms: an empty array if t is nil, and never one otherwise.
func AppendTerms(b []byte, t *jobs.Terms) []byte {
	if t == nil {
		return msgp.AppendArrayHeader(b, 0)
	}
	return AppendArray(b, jobs.TermsFields, t, 1)
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

func appendErrors(b []byte, errors []jobs.AttemptError) []byte {
	b = msgp.AppendArrayHeader(b, uint32(errorFields*len(errors)))
	for i := range errors {
		e := &errors[i]
		b = msgp.AppendInt(b, e.Attempt)
		b = msgp.AppendString(b, e.Error)
		b = msgp.AppendInt64(b, int64(e.At))
	}
	return b
}

func appendHistory(b []byte, history []jobs.HistoryEntry) []byte {
	b = msgp.AppendArrayHeader(b, uint32(historyFields*len(history)))
	for i := range history {
		h := &history[i]
		b = msgp.AppendUint8(b, uint8(h.Kind))
		b = msgp.AppendInt64(b, int64(h.At))
		b = msgp.AppendInt(b, h.Attempt)
		b = msgp.AppendInt(b, h.Progress)
		b = msgp.AppendString(b, h.Text)
		b = msgp.AppendString(b, h.Node)
		b = msgp.AppendInt64(b, int64(h.Due))
	}
	return b
}

// Lists of these stand in one array, entry after entry.
const (
	errorFields   = 3
	historyFields = 7
)

// Reader reads MessagePack values one after the other. After an error every value is
// zero.
type Reader struct {
	B   []byte // what is left
	Err error  // the first one
	// Names gives texts that come again and again; nil makes a new one each time.
	Names func([]byte) string
}

// ReadArray reads an array with fields of v: those that the writer had. What is behind
// those that are known is passed over.
func ReadArray[T any](r *Reader, fields []jobs.Field[T], v *T) {
	ReadFields(r, fields, r.Array(), v)
}

// ReadFields reads the fields of v from an array of which n values are left.
func ReadFields[T any](r *Reader, fields []jobs.Field[T], n int, v *T) {
	known := min(n, len(fields))
	for i := range fields[:known] {
		if r.Err != nil {
			return
		}
		r.value(fields[i].Of(v), fields[i].Few)
	}
	r.Skip(n - known)
}

func (r *Reader) value(v any, few bool) {
	switch v := v.(type) {
	case *string:
		if few {
			*v = r.Name()
		} else {
			*v = r.Text()
		}
	case *int:
		*v = int(r.Int())
	case *uint64:
		*v = r.Uint()
	case *bool:
		*v = r.Bool()
	case *jobs.Time:
		*v = jobs.Time(r.Int())
	case *time.Duration:
		*v = time.Duration(r.Int())
	case *json.RawMessage:
		*v = r.Bytes()
	case *[]string:
		for n := r.Array(); n > 0 && r.Err == nil; n-- {
			*v = append(*v, r.Text())
		}
	case *jobs.ID:
		*v = r.ID()
	case *jobs.Priority:
		*v = jobs.Priority(r.byte())
	case *jobs.Status:
		*v = jobs.Status(r.byte())
	case *jobs.Kind:
		*v = jobs.Kind(r.byte())
	case *jobs.Place:
		*v = jobs.Place(r.byte())
	case **jobs.Artifact:
		*v = r.artifact()
	case **jobs.Terms:
		*v = r.Terms()
	case *[]jobs.AttemptError:
		*v = r.errors()
	case *[]jobs.HistoryEntry:
		*v = r.history(*v)
	default:
		panic(fmt.Sprintf("no form for attributes of type %T", v))
	}
}

// take runs one of msgp's Read…Bytes functions.
func take[T any](r *Reader, read func([]byte) (T, []byte, error)) (v T) {
	if r.Err != nil {
		return v
	}
	v, rest, err := read(r.B)
	if err != nil {
		var zero T
		r.B, r.Err = nil, err
		return zero
	}
	r.B = rest
	return v
}

// Fail makes err what is wrong with what is read, unless it is nil or something was
// wrong before.
func (r *Reader) Fail(err error) {
	if r.Err == nil && err != nil {
		r.B, r.Err = nil, err
	}
}

// Array reads the head of an array: how many values follow that belong to it.
func (r *Reader) Array() int { return int(take(r, msgp.ReadArrayHeaderBytes)) }

// Int reads a whole number.
func (r *Reader) Int() int64 { return take(r, msgp.ReadInt64Bytes) }

// Uint reads a whole number that is not negative.
func (r *Reader) Uint() uint64 { return take(r, msgp.ReadUint64Bytes) }

// Bool reads true or false.
func (r *Reader) Bool() bool { return take(r, msgp.ReadBoolBytes) }

// Text reads a text.
func (r *Reader) Text() string { return take(r, msgp.ReadStringBytes) }

// RawText reads a text, as a part of what is read.
func (r *Reader) RawText() []byte { return take(r, msgp.ReadStringZC) }

// RawBytes reads bytes, as a part of what is read.
func (r *Reader) RawBytes() []byte { return take(r, msgp.ReadBytesZC) }

func (r *Reader) byte() uint8 { return take(r, msgp.ReadUint8Bytes) }

// Name reads a text that comes again and again.
func (r *Reader) Name() string {
	raw := r.RawText()
	if r.Names == nil || len(raw) == 0 {
		return string(raw)
	}
	return r.Names(raw)
}

// Bytes reads bytes, nil for none.
func (r *Reader) Bytes() []byte {
	raw := r.RawBytes()
	if len(raw) == 0 {
		return nil
	}
	return append(make([]byte, 0, len(raw)), raw...)
}

// ID reads the id of a job.
func (r *Reader) ID() (id jobs.ID) {
	raw := r.RawBytes()
	if len(raw) != len(id) {
		r.Fail(fmt.Errorf("an id of %d bytes", len(raw)))
	}
	copy(id[:], raw)
	return id
}

// Skip passes n values over.
func (r *Reader) Skip(n int) {
	for ; n > 0 && r.Err == nil; n-- {
		r.B, r.Err = msgp.Skip(r.B)
	}
}

// Terms reads what [AppendTerms] has written.
func (r *Reader) Terms() *jobs.Terms {
	n := r.Array()
	if n == 0 {
		return nil
	}
	t := &jobs.Terms{}
	ReadFields(r, jobs.TermsFields, n, t)
	return t
}

// artifact reads an artifact: nothing, or an array of four.
func (r *Reader) artifact() *jobs.Artifact {
	if r.Err == nil && msgp.IsNil(r.B) {
		r.Skip(1)
		return nil
	}
	n := r.Array()
	if n == 0 {
		return nil
	}
	if n < 4 {
		r.Fail(fmt.Errorf("an artifact of %d fields", n))
		return nil
	}
	a := &jobs.Artifact{Name: r.Text(), ContentType: r.Text(), Size: r.Int(), SHA256: r.Text()}
	r.Skip(n - 4)
	return a
}

func (r *Reader) errors() (all []jobs.AttemptError) {
	n := r.Array()
	if n == 0 || r.Err != nil {
		return nil
	}
	all = make([]jobs.AttemptError, 0, min(n/errorFields, jobs.MaxErrors))
	for ; n >= errorFields && r.Err == nil; n -= errorFields {
		all = append(all, jobs.AttemptError{Attempt: int(r.Int()), Error: r.Text(), At: jobs.Time(r.Int())})
	}
	r.Skip(n)
	return all
}

// history appends to space.
func (r *Reader) history(space []jobs.HistoryEntry) []jobs.HistoryEntry {
	n := r.Array()
	if n/historyFields > cap(space) {
		space = make([]jobs.HistoryEntry, 0, min(n/historyFields, jobs.MaxHistory))
	}
	for ; n >= historyFields && r.Err == nil; n -= historyFields {
		space = append(space, jobs.HistoryEntry{
			Kind: jobs.Kind(r.byte()), At: jobs.Time(r.Int()), Attempt: int(r.Int()), Progress: int(r.Int()),
			Text: r.Text(), Node: r.Name(), Due: jobs.Time(r.Int()),
		})
	}
	r.Skip(n)
	return space
}

// Package packed writes and reads attributes of jobs and events as MessagePack: an
// array of a table's fields. The last fields may be missing. The tracker's records and
// the events in STATUS have this form. Start reading at [AppendArray] and [ReadArray].
package packed

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/tinylib/msgp/msgp"

	"jobstream/jobs"
)

// AppendArray appends an array with the fields of v, up to the last one that is set. It
// has at least the first least fields.
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
	case *int64:
		return msgp.AppendInt64(b, *v)
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
	case *jobs.Trace:
		if *v == (jobs.Trace{}) {
			return msgp.AppendBytes(b, nil)
		}
		return msgp.AppendBytes(b, v[:])
	case *uint8:
		return msgp.AppendUint8(b, *v)
	case *jobs.Status:
		return msgp.AppendUint8(b, uint8(*v))
	case *jobs.Kind:
		return msgp.AppendUint8(b, uint8(*v))
	case **jobs.Artifact:
		return appendPointer(b, jobs.ArtifactFields, *v)
	case **jobs.Terms:
		return appendPointer(b, jobs.TermsFields, *v)
	case *[]jobs.Artifact:
		return appendList(b, jobs.ArtifactFields, *v)
	case *[]jobs.Input:
		return appendList(b, jobs.InputFields, *v)
	case *[]jobs.AttemptError:
		return appendList(b, jobs.ErrorFields, *v)
	case *[]jobs.HistoryEntry:
		return appendList(b, jobs.HistoryFields, *v)
	}
	panic(fmt.Sprintf("no form for attributes of type %T", v))
}

// appendPointer appends an empty array if and only if v is nil.
func appendPointer[T any](b []byte, fields []jobs.Field[T], v *T) []byte {
	if v == nil {
		return msgp.AppendArrayHeader(b, 0)
	}
	return AppendArray(b, fields, v, 1)
}

func appendList[T any](b []byte, fields []jobs.Field[T], list []T) []byte {
	b = msgp.AppendArrayHeader(b, uint32(len(list)))
	for i := range list {
		b = AppendArray(b, fields, &list[i], 1)
	}
	return b
}

// Reader reads MessagePack values one after the other. After an error every value is
// zero.
type Reader struct {
	B   []byte // the rest of the input
	Err error  // the first one
	// Names returns texts that recur, so that they can share memory; nil makes a new
	// one each time.
	Names func([]byte) string
}

// ReadArray reads the fields of v from an array. The writer may have known fewer
// fields, or more: the rest is skipped.
func ReadArray[T any](r *Reader, fields []jobs.Field[T], v *T) {
	ReadFields(r, fields, r.Array(), v)
}

// ReadFields reads the fields of v from an array with n values left.
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
			*v = r.name()
		} else {
			*v = r.Text()
		}
	case *int:
		*v = int(r.Int())
	case *int64:
		*v = r.Int()
	case *uint64:
		*v = r.Uint()
	case *bool:
		*v = r.Bool()
	case *jobs.Time:
		*v = jobs.Time(r.Int())
	case *time.Duration:
		*v = time.Duration(r.Int())
	case *json.RawMessage:
		*v = r.bytes()
	case *[]string:
		*v = append(*v, r.Texts()...)
	case *jobs.ID:
		*v = r.ID()
	case *jobs.Trace:
		*v = r.trace()
	case *uint8:
		*v = r.byte()
	case *jobs.Status:
		*v = jobs.Status(r.byte())
	case *jobs.Kind:
		*v = jobs.Kind(r.byte())
	case **jobs.Artifact:
		*v = readPointer(r, jobs.ArtifactFields)
	case **jobs.Terms:
		*v = readPointer(r, jobs.TermsFields)
	case *[]jobs.Artifact:
		*v = readList[jobs.Artifact](r, jobs.ArtifactFields, nil, 0, jobs.MaxArtifacts)
	case *[]jobs.Input:
		*v = readList[jobs.Input](r, jobs.InputFields, nil, 0, jobs.MaxInputs)
	case *[]jobs.AttemptError:
		*v = r.Errors()
	case *[]jobs.HistoryEntry:
		*v = r.history(*v)
	default:
		panic(fmt.Sprintf("no form for attributes of type %T", v))
	}
}

// next reads a value with one of msgp's Read…Bytes functions.
func next[T any](r *Reader, read func([]byte) (T, []byte, error)) (v T) {
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

// Fail sets the reader's error, unless err is nil or there is an earlier one.
func (r *Reader) Fail(err error) {
	if r.Err == nil && err != nil {
		r.B, r.Err = nil, err
	}
}

// Array reads the head of an array: how many values follow that belong to it.
func (r *Reader) Array() int { return int(next(r, msgp.ReadArrayHeaderBytes)) }

// Int reads a whole number.
func (r *Reader) Int() int64 { return next(r, msgp.ReadInt64Bytes) }

// Uint reads a whole number that is not negative.
func (r *Reader) Uint() uint64 { return next(r, msgp.ReadUint64Bytes) }

// Bool reads true or false.
func (r *Reader) Bool() bool { return next(r, msgp.ReadBoolBytes) }

// Text reads a text.
func (r *Reader) Text() string { return next(r, msgp.ReadStringBytes) }

// RawText reads a text as a part of the input.
func (r *Reader) RawText() []byte { return next(r, msgp.ReadStringZC) }

// RawBytes reads bytes as a part of the input.
func (r *Reader) RawBytes() []byte { return next(r, msgp.ReadBytesZC) }

func (r *Reader) byte() uint8 { return next(r, msgp.ReadUint8Bytes) }

func (r *Reader) name() string {
	raw := r.RawText()
	if r.Names == nil || len(raw) == 0 {
		return string(raw)
	}
	return r.Names(raw)
}

// bytes reads bytes; empty ones are nil.
func (r *Reader) bytes() []byte {
	raw := r.RawBytes()
	if len(raw) == 0 {
		return nil
	}
	return append(make([]byte, 0, len(raw)), raw...)
}

// ID reads the id of a job or batch.
func (r *Reader) ID() (id jobs.ID) {
	raw := r.RawBytes()
	if len(raw) != len(id) {
		r.Fail(fmt.Errorf("an id of %d bytes", len(raw)))
	}
	copy(id[:], raw)
	return id
}

func (r *Reader) trace() (t jobs.Trace) {
	raw := r.RawBytes()
	if n := len(raw); n != 0 && n != len(t) {
		r.Fail(fmt.Errorf("a trace of %d bytes", n))
		return t
	}
	copy(t[:], raw)
	return t
}

// Skip skips n values.
func (r *Reader) Skip(n int) {
	for ; n > 0 && r.Err == nil; n-- {
		r.B, r.Err = msgp.Skip(r.B)
	}
}

// readPointer is the inverse of appendPointer. The first versions of events had a nil
// in place of a missing artifact.
func readPointer[T any](r *Reader, fields []jobs.Field[T]) *T {
	if r.Err == nil && msgp.IsNil(r.B) {
		r.Skip(1)
		return nil
	}
	n := r.Array()
	if n == 0 {
		return nil
	}
	v := new(T)
	ReadFields(r, fields, n, v)
	return v
}

// Texts reads a list of texts.
func (r *Reader) Texts() (all []string) {
	for n := r.Array(); n > 0 && r.Err == nil; n-- {
		all = append(all, r.Text())
	}
	return all
}

// Errors reads the errors of attempts.
func (r *Reader) Errors() []jobs.AttemptError {
	const flat = 3
	return readList[jobs.AttemptError](r, jobs.ErrorFields, nil, flat, jobs.MaxErrors)
}

func (r *Reader) history(space []jobs.HistoryEntry) []jobs.HistoryEntry {
	const flat = 7
	return readList(r, jobs.HistoryFields, space, flat, jobs.MaxHistory)
}

// readList appends a list to space, or to a new slice if that is too small. It makes
// room for at most most entries, whatever the array's head says. The first records had
// no array around each entry; flat is the number of values of such an entry, 0 if there
// were none.
func readList[T any](r *Reader, fields []jobs.Field[T], space []T, flat, most int) []T {
	n := r.Array()
	isFlat := flat > 0 && r.Err == nil && msgp.NextType(r.B) != msgp.ArrayType
	if isFlat {
		n /= flat
	}
	if n > cap(space) {
		space = make([]T, 0, min(n, most))
	}
	for ; n > 0 && r.Err == nil; n-- {
		if !isFlat {
			flat = r.Array()
		}
		space = append(space, *new(T))
		ReadFields(r, fields, flat, &space[len(space)-1])
	}
	return space
}

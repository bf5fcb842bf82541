package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tinylib/msgp/msgp"

	"jobstream/jobs"
	"jobstream/jobs/packed"
)

// A record is a byte with the version, and an array of the job's attributes in the order
// of [jobs.JobFields]. The last attributes may be missing. A flag before the payload
// says whether it is kept apart.
const recordVersion = 1

// recordFields is the least number of values in the array.
const recordFields = 28

// InlinePayload is the largest payload, in bytes, inside a record. A larger one has a
// bucket of its own, so that an update of the record does not write it again.
const InlinePayload = 1024

// payloadField is the index of the payload among the attributes. In the array, the flag
// shifts it and all behind it by one.
var payloadField = fieldIndex("payload")

func fieldIndex(name string) int {
	for i := range jobs.JobFields {
		if jobs.JobFields[i].Name == name {
			return i
		}
	}
	panic("jobs have no attribute " + name)
}

// Append appends the encoding of j. A payload that is kept apart is left out.
func Append(b []byte, j *jobs.Job) []byte {
	n := jobs.NumSet(jobs.JobFields, j, recordFields-1)
	b = append(b, recordVersion)
	b = msgp.AppendArrayHeader(b, uint32(n+1))
	b = packed.AppendFields(b, jobs.JobFields[:payloadField], j)
	if len(j.Payload) > InlinePayload {
		b = msgp.AppendBool(b, true)
		b = msgp.AppendBytes(b, nil)
	} else {
		b = msgp.AppendBool(b, false)
		b = msgp.AppendBytes(b, j.Payload)
	}
	return packed.AppendFields(b, jobs.JobFields[payloadField+1:n], j)
}

// ErrDamaged is the error of a record that cannot be read.
var ErrDamaged = errors.New("damaged record in the tracker")

// begin opens a record. n is the number of its values.
func begin(b []byte) (r packed.Reader, n int, err error) {
	if len(b) == 0 || b[0] != recordVersion {
		return r, 0, fmt.Errorf("%w: unknown version", ErrDamaged)
	}
	r.B = b[1:]
	if n = r.Array(); n < recordFields {
		return r, 0, fmt.Errorf("%w: %d fields", ErrDamaged, n)
	}
	return r, n, nil
}

// Decode reads a record. Nothing of the result points into b. apart says that the
// payload is in its own bucket.
func Decode(b []byte) (j *jobs.Job, apart bool, err error) {
	r, n, err := begin(b)
	if err != nil {
		return nil, false, err
	}
	j = jobs.BlankJob()
	packed.ReadFields(&r, jobs.JobFields[:payloadField], payloadField, j)
	apart = r.Bool()
	packed.ReadFields(&r, jobs.JobFields[payloadField:], n-payloadField-1, j)
	if r.Err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrDamaged, r.Err)
	}
	return j, apart, nil
}

// AppendWhole appends the encoding of j with its payload, however large. It consists of
// the record's length, the record, and a payload that is kept apart.
func AppendWhole(b []byte, j *jobs.Job) []byte {
	from := len(b)
	b = Append(append(b, 0, 0, 0, 0), j)
	binary.BigEndian.PutUint32(b[from:], uint32(len(b)-from-4)) //nolint:gosec // a few MiB
	if len(j.Payload) > InlinePayload {
		b = append(b, j.Payload...)
	}
	return b
}

// DecodeWhole reads the encoding of [AppendWhole].
func DecodeWhole(b []byte) (*jobs.Job, error) {
	if len(b) < 4 || int(binary.BigEndian.Uint32(b)) > len(b)-4 {
		return nil, ErrDamaged
	}
	n := 4 + int(binary.BigEndian.Uint32(b))
	j, apart, err := Decode(b[4:n])
	if apart {
		j.Payload = bytes.Clone(b[n:])
	}
	return j, err
}

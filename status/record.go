package status

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tinylib/msgp/msgp"

	"jobstream/jobs"
	"jobstream/jobs/packed"
)

// A record is a byte with the version, and then an array of the job's attributes in the
// order of [jobs.JobFields], of which the last ones may be missing. In front of the
// payload stands whether it is kept apart.
const recordVersion = 1

// recordFields is how many values of the array every record has at least.
const recordFields = 28

// inlinePayload is the largest payload, in bytes, that stands in the record
// itself: a larger one has a bucket of its own, so that an update of the record
// does not write it again.
const inlinePayload = 1024

// payloadField is the index of the payload among the attributes. In the array it is one
// more, as it is for those behind it.
var payloadField = fieldIndex("payload")

func fieldIndex(name string) int {
	for i := range jobs.JobFields {
		if jobs.JobFields[i].Name == name {
			return i
		}
	}
	panic("jobs have no attribute " + name)
}

// appendRecord appends the encoding of j. The payload is left out if it is kept
// apart.
func appendRecord(b []byte, j *jobs.Job) []byte {
	n := jobs.NumSet(jobs.JobFields, j, recordFields-1)
	b = append(b, recordVersion)
	b = msgp.AppendArrayHeader(b, uint32(n+1))
	b = packed.AppendFields(b, jobs.JobFields[:payloadField], j)
	if len(j.Payload) > inlinePayload {
		b = msgp.AppendBool(b, true)
		b = msgp.AppendBytes(b, nil)
	} else {
		b = msgp.AppendBool(b, false)
		b = msgp.AppendBytes(b, j.Payload)
	}
	return packed.AppendFields(b, jobs.JobFields[payloadField+1:n], j)
}

// errRecord is what a record that cannot be read gives.
var errRecord = errors.New("damaged record in the tracker")

// openRecord begins to read a record: n is how many values it has.
func openRecord(b []byte) (r packed.Reader, n int, err error) {
	if len(b) == 0 || b[0] != recordVersion {
		return r, 0, fmt.Errorf("%w: unknown version", errRecord)
	}
	r.B = b[1:]
	if n = r.Array(); n < recordFields {
		return r, 0, fmt.Errorf("%w: %d fields", errRecord, n)
	}
	return r, n, nil
}

// decodeRecord reads a record. Nothing of the result points into b. apart says
// that the payload is in its own bucket.
func decodeRecord(b []byte) (j *jobs.Job, apart bool, err error) {
	r, n, err := openRecord(b)
	if err != nil {
		return nil, false, err
	}
	j = jobs.BlankJob()
	packed.ReadFields(&r, jobs.JobFields[:payloadField], payloadField, j)
	apart = r.Bool()
	packed.ReadFields(&r, jobs.JobFields[payloadField:], n-payloadField-1, j)
	if r.Err != nil {
		return nil, false, fmt.Errorf("%w: %w", errRecord, r.Err)
	}
	return j, apart, nil
}

// glance is what an encoded record says without being decoded. Its texts point
// into the record.
type glance struct {
	typ      []byte
	priority jobs.Priority
	status   jobs.Status
	apart    bool // the payload is in its own bucket
	payload  []byte
	err      []byte
	errors   []byte // the list of attempts' errors, encoded
	created  jobs.Time
	started  jobs.Time
	ended    jobs.Time
}

// The attributes that a glance takes.
var (
	typeField     = fieldIndex("type")
	priorityField = fieldIndex("priority")
	statusField   = fieldIndex("status")
	errorField    = fieldIndex("error")
	errorsField   = fieldIndex("errors")
	createdField  = fieldIndex("created_at")
	startedField  = fieldIndex("started_at")
	endedField    = fieldIndex("ended_at")
	unlistedField = fieldIndex("unlisted")
)

// read takes a glance at a record; what it leaves out costs no memory, and what
// stands behind the times is not looked at, unless there may be something rare.
func (g *glance) read(raw []byte) error {
	r, n, err := openRecord(raw)
	if err != nil {
		return err
	}
	at := 0 // how many attributes have been read
	to := func(field int) *packed.Reader {
		r.Skip(field - at)
		at = field + 1
		return &r
	}
	g.typ = to(typeField).RawText()
	g.priority = jobs.Priority(to(priorityField).Uint())
	g.status = jobs.Status(to(statusField).Uint())
	g.apart = to(payloadField).Bool()
	g.payload = r.RawBytes()
	g.err = to(errorField).RawText()
	r.Skip(errorsField - at)
	list := r.B
	r.Skip(1)
	g.errors = list[:len(list)-len(r.B)]
	at = errorsField + 1
	g.created = jobs.Time(to(createdField).Int())
	g.started = jobs.Time(to(startedField).Int())
	g.ended = jobs.Time(to(endedField).Int())
	if n > unlistedField+1 && to(unlistedField).Bool() {
		g.typ = []byte(jobs.UnknownTypes)
	}
	if r.Err != nil {
		return fmt.Errorf("%w: %w", errRecord, r.Err)
	}
	return nil
}

// key8 is n as a bucket key: big endian, so that keys sort as numbers do.
func key8(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

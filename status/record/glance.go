package record

import (
	"fmt"
	"slices"

	"jobstream/jobs"
	"jobstream/jobs/packed"
)

// Glance is the part of a record that a search asks for, read without decoding the rest.
// Its texts point into the record.
type Glance struct {
	Type     []byte
	Priority jobs.Priority
	Status   jobs.Status
	Apart    bool // the payload is in its own bucket
	Payload  []byte
	Error    []byte
	Created  jobs.Time
	Started  jobs.Time
	Ended    jobs.Time
	Due      jobs.Time

	errors []byte // the list of attempts' errors, encoded
	tags   []byte // the list of tags, encoded
}

// These attributes are read by a glance.
var (
	typeField     = fieldIndex("type")
	priorityField = fieldIndex("priority")
	statusField   = fieldIndex("status")
	errorField    = fieldIndex("error")
	errorsField   = fieldIndex("errors")
	tagsField     = fieldIndex("tags")
	createdField  = fieldIndex("created_at")
	dueField      = fieldIndex("run_at")
	startedField  = fieldIndex("started_at")
	endedField    = fieldIndex("ended_at")
	unlistedField = fieldIndex("unlisted")
)

// Read reads them from a record, without allocating for the rest. Attributes behind the
// times are read only if a rare one may be there.
func (g *Glance) Read(raw []byte) error {
	r, n, err := begin(raw)
	if err != nil {
		return err
	}
	at := 0 // how many attributes have been read
	to := func(field int) *packed.Reader {
		r.Skip(field - at)
		at = field + 1
		return &r
	}
	g.Type = to(typeField).RawText()
	g.Priority = jobs.Priority(to(priorityField).Uint())
	g.Status = jobs.Status(to(statusField).Uint())
	g.Apart = to(payloadField).Bool()
	g.Payload = r.RawBytes()
	g.Error = to(errorField).RawText()
	raws := func(field int) []byte {
		r.Skip(field - at)
		list := r.B
		r.Skip(1)
		at = field + 1
		return list[:len(list)-len(r.B)]
	}
	g.errors = raws(errorsField)
	g.tags = raws(tagsField)
	g.Created = jobs.Time(to(createdField).Int())
	g.Due = jobs.Time(to(dueField).Int())
	g.Started = jobs.Time(to(startedField).Int())
	g.Ended = jobs.Time(to(endedField).Int())
	if n > unlistedField+1 && to(unlistedField).Bool() {
		g.Type = []byte(jobs.UnknownTypes)
	}
	if r.Err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, r.Err)
	}
	return nil
}

// InErrors looks for a text in the errors of attempts. They are decoded only if their
// encoding contains it.
func (g *Glance) InErrors(text *jobs.Needle) bool {
	r := packed.Reader{B: g.errors}
	return text.In(g.errors) &&
		slices.ContainsFunc(r.Errors(), func(e jobs.AttemptError) bool { return text.In([]byte(e.Error)) })
}

// InTags looks for a text in the tags, in the same way.
func (g *Glance) InTags(text *jobs.Needle) bool {
	r := packed.Reader{B: g.tags}
	return text.In(g.tags) && slices.ContainsFunc(r.Texts(), func(t string) bool { return text.In([]byte(t)) })
}

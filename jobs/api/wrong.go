package api

import "jobstream/jobs"

// fieldErrors gathers what is wrong with the fields of a body.
type fieldErrors []jobs.FieldError

// add notes err, if it is one, for the field at pointer.
func (f *fieldErrors) add(pointer string, err error) {
	if err != nil {
		*f = append(*f, jobs.FieldError{Pointer: pointer, Detail: err.Error()})
	}
}

// within notes the fields of an [*jobs.Error] of EachField for a part of the body,
// whose pointer goes before theirs.
func (f *fieldErrors) within(pointer string, err error) {
	if err == nil {
		return
	}
	e, ok := jobs.AsError(err)
	if !ok || len(e.Fields) == 0 {
		f.add(pointer, err)
		return
	}
	for _, field := range e.Fields {
		*f = append(*f, jobs.FieldError{Pointer: pointer + field.Pointer, Detail: field.Detail})
	}
}

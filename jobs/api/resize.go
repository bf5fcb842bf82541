package api

import (
	"encoding/json"
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// ParseResize reads a Resize from JSON, strictly:
//
//	{"max_workers": 20, "min_workers": 2, "types": {"email": {"max_workers": 2}}}
//
// At least one bound must be named. It doesn't know the types, nor the bounds
// that are there; see [jobs.Registry.CheckResize] and [jobstream/jobs/pool.Pool.Resize].
func ParseResize(body []byte) (*jobs.Resize, error) {
	r := &jobs.Resize{}
	var bad fieldErrors
	err := jobs.EachKnown(body, []string{"max_workers", "min_workers", "types"}, nil, func(name string, raw json.RawMessage) (err error) {
		var n int
		switch name {
		case "max_workers":
			n, err = strict.Int(raw, 1, jobs.MaxPoolSize)
			r.MaxWorkers = &n
		case "min_workers":
			n, err = strict.Int(raw, 0, jobs.MaxPoolSize)
			r.MinWorkers = &n
		case "types":
			typeBounds(r, raw, &bad)
		}
		return err
	})
	if e, ok := jobs.AsError(err); ok {
		if len(e.Fields) == 0 {
			return nil, err
		}
		bad = append(e.Fields, bad...)
	}
	switch {
	case len(bad) > 0:
		return nil, jobs.InvalidFields(bad...)
	case r.MaxWorkers == nil && r.MinWorkers == nil && len(r.Types) == 0:
		return nil, jobs.Invalid("/max_workers", "is required, unless min_workers is there or types names at least one type")
	}
	return r, nil
}

// typeBounds reads {"email": {"max_workers": 2}, …}.
func typeBounds(r *jobs.Resize, raw json.RawMessage, bad *fieldErrors) {
	const shape = `must be an object like {"email":{"max_workers":2}}, not %s`
	if raw[0] != '{' {
		bad.add("/types", fmt.Errorf(shape, strict.Describe(raw)))
		return
	}
	err := jobs.EachField(raw, func(name string, entry json.RawMessage) {
		at := "/types" + strict.Pointer(name)
		if entry[0] != '{' {
			bad.add(at, fmt.Errorf(`must be an object like {"max_workers":2}, not %s`, strict.Describe(entry)))
			return
		}
		n, err := typeBound(entry)
		bad.within(at, err)
		if r.Types == nil {
			r.Types = make(map[string]int)
		}
		r.Types[name] = n
	})
	bad.within("/types", err)
}

// typeBound reads the {"max_workers": 2} of a type.
func typeBound(entry json.RawMessage) (bound int, err error) {
	fields := []string{"max_workers"}
	return bound, jobs.EachKnown(entry, fields, fields, func(_ string, raw json.RawMessage) (err error) {
		bound, err = strict.Int(raw, 0, jobs.MaxPoolSize)
		return err
	})
}

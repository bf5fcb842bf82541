package api

import (
	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// ParseResize reads a Resize from JSON, strictly:
//
//	{"max_workers": 20, "min_workers": 2, "types": {"email": {"max_workers": 2}}}
//
// At least one bound must be named. ParseResize knows neither the types nor the present
// bounds; see [jobs.Registry.CheckResize] and [jobstream/jobs/pool.Pool.Resize].
func ParseResize(body []byte) (*jobs.Resize, error) {
	r := &jobs.Resize{}
	err := jobs.Read("", body, func(v strict.Value) {
		var types strict.Value
		v.Object(
			strict.May("max_workers", func(v strict.Value) { r.MaxWorkers = pointer(v.Int(1, jobs.MaxPoolSize)) }),
			strict.May("min_workers", func(v strict.Value) { r.MinWorkers = pointer(v.Int(0, jobs.MaxPoolSize)) }),
			strict.May("types", func(v strict.Value) { types = v }),
		)
		if !types.Null() {
			r.Types = typeBoundsOf(types)
		}
		if v.Right() && r.MaxWorkers == nil && r.MinWorkers == nil && len(r.Types) == 0 {
			v.At("max_workers").Fail("is required, unless min_workers is there or types names at least one type")
		}
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func pointer[T any](v T) *T { return &v }

// typeBoundsOf reads {"email": {"max_workers": 2}, …}.
func typeBoundsOf(v strict.Value) map[string]int {
	if !v.IsObject() {
		v.Fail(`must be an object like {"email":{"max_workers":2}}, not %s`, v)
		return nil
	}
	bounds := make(map[string]int)
	v.Each(func(v strict.Value) {
		if !v.IsObject() {
			v.Fail(`must be an object like {"max_workers":2}, not %s`, v)
			return
		}
		v.Object(strict.Need("max_workers", func(n strict.Value) { bounds[v.Name()] = n.Int(0, jobs.MaxPoolSize) }))
	})
	return bounds
}

package api

import (
	"encoding/json"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// ParseResize reads a Resize from JSON, strictly:
//
//	{"node": "n1", "max_workers": 20, "min_workers": 2}
//	{"max_workers": 20, "min_workers": 2, "types": {"email":
//	    {"max_workers": 2, "rate": "10/s", "burst": 5, "concurrency_per_key": 1}}}
//
// At least one bound must be named. ParseResize knows neither the types nor the present
// bounds; see [jobs.Registry.CheckResize] and [jobstream/jobs/pool.Pool.Resize].
func ParseResize(body []byte) (*jobs.Resize, error) {
	r := &jobs.Resize{}
	err := jobs.Read("", body, func(v strict.Value) {
		var types strict.Value
		v.Object(
			strict.May("node", func(v strict.Value) { r.Node = strict.As(v, strict.Text) }),
			strict.May("max_workers", func(v strict.Value) { r.MaxWorkers = pointer(v.Int(1, jobs.MaxPoolSize)) }),
			strict.May("min_workers", func(v strict.Value) { r.MinWorkers = pointer(v.Int(0, jobs.MaxPoolSize)) }),
			strict.May("types", func(v strict.Value) { types = v }),
		)
		switch {
		case !types.Null() && r.Node != "":
			types.Fail("hold over all nodes; leave node out")
		case !types.Null():
			typeBoundsOf(types, r)
		}
		if v.Right() && r.MaxWorkers == nil && r.MinWorkers == nil && len(r.Types)+len(r.Limits) == 0 {
			v.At("max_workers").Fail("is required, unless min_workers is there or types names at least one type")
		}
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func pointer[T any](v T) *T { return &v }

// typeBoundsOf reads {"email": {"max_workers": 2, "rate": "10/s"}, …}.
func typeBoundsOf(v strict.Value, r *jobs.Resize) {
	if !v.IsObject() {
		v.Fail(`must be an object like {"email":{"max_workers":2}}, not %s`, v)
		return
	}
	r.Types, r.Limits = make(map[string]int), make(map[string]jobs.TypeLimits)
	v.Each(func(v strict.Value) {
		if !v.IsObject() {
			v.Fail(`must be an object like {"max_workers":2}, not %s`, v)
			return
		}
		var l jobs.TypeLimits
		v.Object(
			strict.May("max_workers", func(n strict.Value) { r.Types[v.Name()] = n.Int(0, jobs.MaxPoolSize) }),
			strict.May("rate", func(v strict.Value) { l.Rate = pointer(strict.As(v, rateOf)) }),
			strict.May("burst", func(v strict.Value) { l.Burst = pointer(v.Int(0, jobs.MaxBurst)) }),
			strict.May("concurrency_per_key", func(v strict.Value) { l.ConcurrencyPerKey = pointer(v.Int(1, jobs.MaxPoolSize)) }),
		)
		if l != (jobs.TypeLimits{}) {
			r.Limits[v.Name()] = l
		} else if _, cap := r.Types[v.Name()]; v.Right() && !cap {
			v.At("max_workers").Fail("is required, unless rate, burst or concurrency_per_key is there")
		}
	})
}

func rateOf(raw json.RawMessage) (jobs.Rate, error) {
	text, err := strict.Text(raw)
	if err != nil {
		return jobs.Rate{}, err
	}
	return jobs.ParseRate(text)
}

package jobstest

import (
	"sync"
	"testing"

	"jobstream/jobs"
)

// Extra appends a text with the name colour to a table, see [ExtraOf].
func Extra[T any](t testing.TB, table *[]jobs.Field[T]) (of func(*T) *string) {
	return ExtraOf[string](t, table, "colour", "Job-Colour")
}

// ExtraOf appends an attribute to a table until the test ends, so the test must not be
// parallel. The struct does not keep the attribute; of returns its place elsewhere.
func ExtraOf[V, T any](t testing.TB, table *[]jobs.Field[T], name, header string) (of func(*T) *V) {
	t.Setenv("JOBSTREAM_TEST", t.Name()) // it fails in a parallel test: tables are everybody's
	var mu sync.Mutex
	kept := map[*T]*V{}
	of = func(v *T) *V {
		mu.Lock()
		defer mu.Unlock()
		if kept[v] == nil {
			kept[v] = new(V)
		}
		return kept[v]
	}
	known := *table
	t.Cleanup(func() { *table = known })
	*table = append(known[:len(known):len(known)], jobs.Field[T]{
		Name: name, Header: header, Of: func(v *T) any { return of(v) },
	})
	return of
}

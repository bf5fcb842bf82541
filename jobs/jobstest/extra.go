package jobstest

import (
	"sync"
	"testing"

	"jobstream/jobs"
)

// Extra adds an attribute to a table until the test ends: a text that is called
// colour, and not kept in the struct. of is where it is kept.
func Extra[T any](t testing.TB, table *[]jobs.Field[T]) (of func(*T) *string) {
	var mu sync.Mutex
	kept := map[*T]*string{}
	of = func(v *T) *string {
		mu.Lock()
		defer mu.Unlock()
		if kept[v] == nil {
			kept[v] = new(string)
		}
		return kept[v]
	}
	known := *table
	t.Cleanup(func() { *table = known })
	*table = append(known[:len(known):len(known)], jobs.Field[T]{
		Name: "colour", Header: "Job-Colour", Doc: "any", Of: func(v *T) any { return of(v) },
	})
	return of
}

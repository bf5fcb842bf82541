package jobs

import (
	"maps"
	"slices"
	"strings"

	"jobstream/jobs/strict"
)

// Workers are the figures of the pool, in all and by type.
type Workers struct {
	Active int
	Leased int // jobs that other members of the cluster do
	// Size is how many may run now. It is Max, unless Min is above 0: then it follows
	// the load between the two.
	Size, Min, Max int
	// Paused means that no job starts.
	Paused bool
	// Utilisation is how busy the workers were in the last ten seconds, 0 to 1.
	Utilisation float64
	Types       map[string]TypeWorkers // without internal ones
}

// TypeWorkers are the figures of one type.
type TypeWorkers struct {
	Active, Max       int // a Max of 0 stands for the pool's
	Paused            bool
	Rate              Rate
	ConcurrencyPerKey int
}

// With is w with the workers of the other members of a cluster, so many at most.
func (w Workers) With(others int) Workers {
	if size := w.Size + others; size > 0 {
		w.Utilisation = min((w.Utilisation*float64(w.Size)+float64(w.Leased))/float64(size), 1)
	}
	w.Active, w.Size, w.Max = w.Active+w.Leased, w.Size+others, w.Max+others
	return w
}

// MaxPoolSize is the largest bound of workers for a pool or a type.
const MaxPoolSize = 10000

// Resize changes bounds of workers, by PUT /workers.
type Resize struct {
	Node       string         // whose pool is meant; "" = those of all nodes
	MaxWorkers *int           // of the pool, 1 to MaxPoolSize; nil = stays
	MinWorkers *int           // 0 (the pool does not follow the load) to its MaxWorkers; nil = stays
	Types      map[string]int // of single types, 0 (the pool's bound) to MaxPoolSize; others stay
	// Limits of single types. A pool does not apply them, see [Type.WithLimits].
	Limits map[string]TypeLimits
}

// TypeLimits are changes of a type's limits; nil = stays.
type TypeLimits struct {
	Rate              *Rate // without a burst; zero = no limit
	Burst             *int  // 0 = see [Rate.Capacity]
	ConcurrencyPerKey *int  // 1 to MaxPoolSize
}

// WithLimits is t with other limits, or an [*Error]. A burst needs a rate, and goes with
// it.
func (t *Type) WithLimits(l TypeLimits) (*Type, error) {
	now := *t
	if l.Rate != nil {
		burst := now.Rate.Burst
		if now.Rate = *l.Rate; !now.Rate.IsZero() {
			now.Rate.Burst = burst
		}
	}
	if l.Burst != nil {
		if now.Rate.IsZero() && *l.Burst > 0 {
			return nil, Invalid("/types"+strict.Pointer(t.Name)+"/burst", "goes with a rate, and the type has none")
		}
		now.Rate.Burst = *l.Burst
	}
	if l.ConcurrencyPerKey != nil {
		now.ConcurrencyPerKey = *l.ConcurrencyPerKey
	}
	return &now, nil
}

// CheckResize returns an [*Error] if r names a type that the registry does not have.
func (r *Registry) CheckResize(z *Resize) error {
	var bad []FieldError
	names := slices.AppendSeq(slices.Collect(maps.Keys(z.Types)), maps.Keys(z.Limits))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if t := r.Lookup(name); t == nil || t.Internal {
			bad = append(bad, FieldError{"/types" + strict.Pointer(name), "is not a known type; known are " + strings.Join(r.Names(), ", ")})
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.SortFunc(bad, func(a, b FieldError) int { return strings.Compare(a.Pointer, b.Pointer) })
	e := InvalidFields(bad...)
	e.Kind = UnknownType
	return e
}

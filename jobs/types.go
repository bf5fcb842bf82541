package jobs

import (
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"jobstream/jobs/access"
)

// BackoffKind is the growth of the delay from retry to retry.
type BackoffKind string

// The kinds of backoff.
const (
	Linear      BackoffKind = "linear"      // base, 2·base, 3·base …
	Exponential BackoffKind = "exponential" // base, 2·base, 4·base …
	Constant    BackoffKind = "constant"    // base, base, base …
	ListKind    BackoffKind = "list"        // the delays of a list, then the last of them
)

// Backoff is the wait of a failed job before its next attempt.
type Backoff struct {
	Kind   BackoffKind
	Base   time.Duration
	Max    time.Duration // upper bound, 0 = none
	Jitter float64       // 0 to 1: up to this share of the delay is added or taken at random
	// Delays are those of [ListKind], which has no Base and no Max.
	Delays []time.Duration
}

// DefaultBackoff is linear from one second: 1 s, 2 s, 3 s …, at most 5 minutes.
func DefaultBackoff() Backoff {
	return Backoff{Kind: Linear, Base: time.Second, Max: 5 * time.Minute}
}

// Delay is the wait after the n-th failed attempt, n from 1.
func (b Backoff) Delay(n int) time.Duration {
	d := b.Base
	limit := b.Max
	if limit <= 0 || b.Kind == ListKind {
		limit = 365 * 24 * time.Hour
	}
	switch b.Kind {
	case ListKind:
		d = b.listed(n)
	case Constant:
	case Exponential:
		for i := 1; i < n && d > 0 && d < limit; i++ {
			d += min(d, limit-d) // d·2 may not fit
		}
	default:
		if n > 1 && d > 0 && int64(limit/d) < int64(n) {
			d = limit
		} else {
			d *= time.Duration(n)
		}
	}
	d = min(d, limit)
	if b.Jitter > 0 {
		d += time.Duration((2*rand.Float64() - 1) * b.Jitter * float64(d))
	}
	return min(max(d, 0), limit)
}

// listed is the delay of a list after the n-th failed attempt.
func (b Backoff) listed(n int) time.Duration {
	if len(b.Delays) == 0 {
		return 0
	}
	return b.Delays[min(max(n, 1), len(b.Delays))-1]
}

// Type is a kind of job: its settings and the handler that runs it.
type Type struct {
	Name       string
	RetryCount int           // retries after the first attempt
	Timeout    time.Duration // of one attempt
	MaxWorkers int           // the bound of jobs of this type at once; 0 = the pool's bound
	// ConcurrencyPerKey is the bound of jobs with the same concurrency key at once;
	// less than 1 counts as 1.
	ConcurrencyPerKey int
	Rate              Rate // the bound of starts; the zero Rate = no bound
	Backoff           Backoff
	Inputs            []InputRule // the files that each of its jobs needs
	// Grace is how long a handler may take to return after its context has ended. Then
	// it is given up, and its job may start again. 0 = [DefaultGrace].
	Grace   time.Duration
	Handler Handler
	// Remote says that workers elsewhere do the work; see [Leases]. Then there may be no
	// Handler, and one that there is only checks payloads.
	Remote bool
	// HandsOver says that the Handler may hand its work over to somebody elsewhere; see
	// [ErrHandedOver].
	HandsOver bool
	// AtLeader says that the Handler needs the history, the queue or the broker of the server.
	// In a cluster only the node that leads does such jobs.
	AtLeader bool
	// Lease is how long a worker elsewhere may be silent; 0 = the pool's.
	Lease time.Duration
	// Needs is the scope that a submission needs, besides submit; "" = none.
	Needs access.Scope
	Run   string // the kind of work, for people
	Runs  string // what exactly it runs, for people; "" = that goes without saying
	// Description is what the type is for, for people; "" = nobody has said.
	Description string
	Schema      Schema // what its payloads must look like; nil = anything that its handler accepts
	// Internal marks a type of the server's own. It works like any other, but lists
	// leave it out.
	Internal bool
}

// DefaultGrace is the grace of types without their own: enough for a handler that only
// checks its context.
const DefaultGrace = time.Second

// GraceOrDefault is Grace, or [DefaultGrace] if there is none.
func (t *Type) GraceOrDefault() time.Duration {
	if t.Grace > 0 {
		return t.Grace
	}
	return DefaultGrace
}

// Schema says what payloads must look like, before a handler sees them.
type Schema interface {
	Checker
	// JSON is the schema as JSON Schema writes it.
	JSON() json.RawMessage
}

// Check returns an [*Error] with the wrong fields if the type cannot use this payload: its
// schema is asked first, then its handler.
func (t *Type) Check(payload json.RawMessage) error {
	c, ok := t.Handler.(Checker)
	if t.Schema == nil && !ok {
		return nil
	}
	p := NewPayload(payload)
	if t.Schema != nil {
		if err := t.Schema.Check(p); err != nil {
			return err
		}
	}
	if ok {
		return c.Check(p)
	}
	return nil
}

// check is Check and CheckInputs together.
func (t *Type) check(payload json.RawMessage, inputs []Input) error {
	err := t.Check(payload)
	if len(inputs) == 0 && len(t.Inputs) == 0 {
		return err
	}
	wrong := t.CheckInputs(inputs)
	if len(wrong) == 0 {
		return err
	}
	var e *Error
	if errors.As(err, &e) {
		if e.Kind != InvalidRequest || len(e.Fields) == 0 {
			return err
		}
		wrong = append(slices.Clone(e.Fields), wrong...)
	}
	return InvalidFields(wrong...)
}

// MaxTypeName is the longest name of a type, in bytes.
const MaxTypeName = 64

// ValidTypeName says whether name can be a job type: letters, digits, "_" and "-". It
// becomes a token of a subject and a part of a consumer's name.
func ValidTypeName(name string) bool {
	if name == "" || len(name) > MaxTypeName {
		return false
	}
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// Registry is the set of known job types. [Registry.Replace] exchanges it as a whole; a
// reader that needs one state of it for several look-ups calls [Registry.Now].
type Registry struct{ set atomic.Pointer[typeSet] }

// typeSet is a set of types. It does not change.
type typeSet struct {
	types   map[string]*Type
	names   []string         // without internal ones, in order
	removed map[string]*Type // see Registry.Admitted
}

// NewRegistry makes a registry of these types. Names must be valid and unique.
func NewRegistry(types ...*Type) *Registry {
	r := &Registry{}
	r.set.Store(newTypeSet(types))
	return r
}

func newTypeSet(types []*Type) *typeSet {
	s := &typeSet{types: make(map[string]*Type, len(types)), removed: make(map[string]*Type)}
	for _, t := range types {
		if !ValidTypeName(t.Name) || s.types[t.Name] != nil || t.Handler == nil && !t.Remote {
			panic("jobs: bad or repeated type " + Quote(t.Name))
		}
		s.types[t.Name] = t
		if !t.Internal {
			s.names = append(s.names, t.Name)
		}
	}
	slices.Sort(s.names)
	return s
}

// Add adds a type. Its name must be valid and new. It is for whoever fills a registry,
// before that is in use.
func (r *Registry) Add(t *Type) { r.set.Store(newTypeSet(append(r.Types(), t))) }

// Replace exchanges all types for these, at once for all readers. Only one goroutine at
// a time may call it. Names must be valid and unique.
func (r *Registry) Replace(types ...*Type) {
	old, s := r.set.Load(), newTypeSet(types)
	for _, gone := range []map[string]*Type{old.removed, old.types} {
		for name, t := range gone {
			if s.types[name] == nil {
				s.removed[name] = t
			}
		}
	}
	r.set.Store(s)
}

// Now is a registry of the present types, which does not change.
func (r *Registry) Now() *Registry {
	now := &Registry{}
	now.set.Store(r.set.Load())
	return now
}

// Lookup finds a type by name; nil if there is none.
func (r *Registry) Lookup(name string) *Type { return r.set.Load().types[name] }

// Admitted finds the type of a submission that was checked. It may be one that
// [Registry.Replace] has removed while the submission was on its way.
func (r *Registry) Admitted(name string) *Type {
	s := r.set.Load()
	if t := s.types[name]; t != nil {
		return t
	}
	return s.removed[name]
}

// Names lists the types that are not internal in alphabetical order.
func (r *Registry) Names() []string { return r.set.Load().names }

// Types lists all types, internal ones included, in alphabetical order.
func (r *Registry) Types() []*Type {
	all := slices.Collect(maps.Values(r.set.Load().types))
	slices.SortFunc(all, func(a, b *Type) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Unknown is the error for a name that is no type: an [*Error] that lists the known
// ones.
func (r *Registry) Unknown(name string) *Error {
	known := strings.Join(r.Names(), ", ")
	return &Error{
		Kind:   UnknownType,
		Detail: "unknown job type " + Quote(name) + "; known are " + known,
		Fields: []FieldError{{Pointer: "/type", Detail: "must be one of " + known}},
	}
}

// Anywhere reports whether any member of a cluster may do the jobs of the type, with its own
// handler.
func (t *Type) Anywhere() bool {
	return t.Handler != nil && !t.Remote && !t.HandsOver && !t.AtLeader && !t.Internal
}

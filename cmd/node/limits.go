package node

import (
	"sync"

	"jobstream/jobs"
)

// limits are those of types that were changed while the server runs. They last until it
// ends, over healing and reloads, but a limit that the configuration changes is the
// configuration's again.
type limits struct {
	mu sync.Mutex // guards the types of the registry against two changes at a time
	// base has the types as the configuration has them, for those with other limits in
	// the registry.
	base map[string]*jobs.Type
}

// configured is a type of the registry as the configuration has it.
func (l *limits) configured(t *jobs.Type) *jobs.Type {
	l.mu.Lock()
	defer l.mu.Unlock()
	if base := l.base[t.Name]; base != nil {
		return base
	}
	return t
}

// set changes limits of types in the registry and in the pool, all or none.
func (l *limits) set(c *core, changes map[string]jobs.TypeLimits) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := c.o.registry.Types()
	var changed []*jobs.Type
	for i, t := range all {
		change, ok := changes[t.Name]
		if !ok {
			continue
		}
		now, err := t.WithLimits(change)
		if err != nil {
			return err
		}
		all[i], changed = now, append(changed, now)
	}
	for _, now := range changed {
		if l.base == nil {
			l.base = make(map[string]*jobs.Type)
		}
		if was := c.o.registry.Lookup(now.Name); l.base[now.Name] == nil {
			l.base[now.Name] = was
		}
	}
	c.o.registry.Replace(all...)
	c.Pool.Redefine(changed)
	return nil
}

// keep puts the changed limits into types that were read again. l.mu is locked.
func (l *limits) keep(registry *jobs.Registry, types []*jobs.Type) []*jobs.Type {
	all := make([]*jobs.Type, len(types))
	base := make(map[string]*jobs.Type)
	for i, t := range types {
		all[i] = t
		was, now := l.base[t.Name], registry.Lookup(t.Name)
		if was == nil || now == nil {
			continue
		}
		if t != was {
			merged := *t
			if t.Rate == was.Rate {
				merged.Rate = now.Rate
			}
			if t.ConcurrencyPerKey == was.ConcurrencyPerKey {
				merged.ConcurrencyPerKey = now.ConcurrencyPerKey
			}
			now = &merged
		}
		all[i], base[t.Name] = now, t
	}
	l.base = base
	return all
}

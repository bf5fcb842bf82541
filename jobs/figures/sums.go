package figures

import "sync"

// Sums are the figures of a type since the process began, up to the last period.
type Sums struct {
	In, Done, Failed, Retried, Cancelled uint64    // see [Figures]
	Wait, Run                            Histogram // see [Figures]
}

// Add adds the figures of another type.
func (s *Sums) Add(o *Sums) {
	s.In += o.In
	s.Done += o.Done
	s.Failed += o.Failed
	s.Retried += o.Retried
	s.Cancelled += o.Cancelled
	s.Wait.Merge(&o.Wait)
	s.Run.Merge(&o.Run)
}

// sums adds up the periods of a process.
type sums struct {
	mu      sync.Mutex
	types   map[string]*tally
	commits Histogram
}

// add adds a period.
func (s *sums) add(p *period) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.types == nil {
		s.types = make(map[string]*tally)
	}
	for name, t := range p.tallies {
		if s.types[name] == nil {
			if len(s.types) >= MaxTypes {
				name = OtherTypes
			}
			if s.types[name] == nil {
				s.types[name] = &tally{}
			}
		}
		s.types[name].merge(t)
	}
	s.commits.Merge(&p.commits)
}

// Sums are those of all types in which something has happened, at most [MaxTypes] and
// [OtherTypes]. commits says how long commits took.
func (c *Collector) Sums() (types map[string]Sums, commits Histogram) {
	s := &c.sums
	s.mu.Lock()
	defer s.mu.Unlock()
	types = make(map[string]Sums, len(s.types))
	for name, t := range s.types {
		one := Sums{In: t.in, Done: t.done, Failed: t.failed, Retried: t.retried, Cancelled: t.cancelled}
		one.Wait.Merge(&t.wait)
		one.Run.Merge(&t.run)
		types[name] = one
	}
	commits.Merge(&s.commits)
	return types, commits
}

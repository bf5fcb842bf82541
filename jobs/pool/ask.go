package pool

import (
	"container/list"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
)

// ask is a worker's request for jobs while it waits.
type ask struct {
	*jobs.Ask
	set    *askSet
	worker *remoteWorker // nil: it has no name
	got    []*delivery   // what it was given
	alone  bool          // that is a suspect, for which its worker has nothing else
	ready  chan struct{} // gets an element with that
	place  *list.Element // in the line of its set; nil = it does not wait
}

// askSet has the asks for the same types, in the order in which they came.
type askSet struct {
	types []*poolType
	// member says that the asks are those of members of the cluster.
	member bool
	view   view
	line   list.List // of *ask
	uses   int       // asks, those that do not wait at the moment too
}

// asks are the requests of workers elsewhere. A job wakes one of them, the first that
// may have it.
//
// The pool's lock guards it.
type asks struct {
	sets    map[string]*askSet // by their types
	order   []*askSet          // whose turn it is, from the first on
	waiting int
}

func (a *asks) init() { a.sets = make(map[string]*askSet) }

// maxAskSets bounds the different sets of types in asks that wait. Every job that comes
// is compared with each.
const maxAskSets = 1000

// set finds the set of these types for members or for others, or makes it. It is nil if
// there are too many.
func (a *asks) set(types []*poolType, member bool) *askSet {
	types = slices.Clone(types)
	slices.SortFunc(types, func(s, t *poolType) int { return strings.Compare(s.Name, t.Name) })
	types = slices.Compact(types)
	var key strings.Builder
	if member {
		key.WriteString(" ") // in front of no name otherwise
	}
	for _, t := range types {
		key.WriteString(t.Name + " ")
	}
	s := a.sets[key.String()]
	if s == nil && len(a.order) >= maxAskSets {
		a.drop()
	}
	if s == nil && len(a.order) < maxAskSets {
		s = &askSet{types: types, member: member}
		a.sets[key.String()] = s
		a.order = append(a.order, s)
	}
	return s
}

// wait puts an ask at the end of its line, or at its head if it was served before and has
// got nothing.
func (a *asks) wait(q *ask, again bool, now time.Time) {
	if again {
		q.place = q.set.line.PushFront(q)
	} else {
		q.place = q.set.line.PushBack(q)
	}
	a.waiting++
	for _, t := range q.set.types {
		t.asks++
		t.asked, t.unwanted = now, false
	}
}

// remove removes an ask from its line, if it waits.
func (a *asks) remove(q *ask, now time.Time) {
	if q.place == nil {
		return
	}
	q.set.line.Remove(q.place)
	q.place = nil
	a.waiting--
	for _, t := range q.set.types {
		t.asks--
		t.asked = now
	}
}

// drop forgets the sets that nobody uses. Their turns begin anew the next time.
func (a *asks) drop() {
	for key, s := range a.sets {
		if s.uses == 0 {
			delete(a.sets, key)
		}
	}
	a.order = slices.DeleteFunc(a.order, func(s *askSet) bool { return s.uses == 0 })
}

// turn moves a set behind the others.
func (a *asks) turn(i int) {
	s := a.order[i]
	a.order = append(slices.Delete(a.order, i, i+1), s)
}

func (s *askSet) has(t *poolType) bool { return slices.Contains(s.types, t) }

// first is the first ask of a set whose worker may get something now; nil if there is
// none.
func (s *askSet) first() *ask {
	for e := s.line.Front(); e != nil; e = e.Next() {
		if q := e.Value.(*ask); q.worker == nil || !q.worker.alone && !q.worker.drained {
			return q
		}
	}
	return nil
}

// idle is the first ask of a set whose worker has nothing; nil if there is none.
func (s *askSet) idle() *ask {
	for e := s.line.Front(); e != nil; e = e.Next() {
		if q := e.Value.(*ask); q.worker == nil || q.worker.held == 0 {
			return q
		}
	}
	return nil
}

package history

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// Step is an operation on a register: it finds one of some values and leaves another.
// A read is a step that leaves what it finds, a compare-and-set one that does not.
type Step struct {
	Begin, End Moment
	Ways       []Way
	// Maybe says that it may not have happened at all, because no answer came.
	Maybe bool
	Says  string // for the reader of a problem
}

// Way is one effect that a step may have. "" is the value of an empty register.
type Way struct {
	From, To string
	Any      bool // whatever it finds
}

// MostSteps of one register can be judged together.
const MostSteps = 1024

// mostPlaces are looked at before a history counts as too entangled.
const mostPlaces = 300_000

// set has some of the steps.
type set [MostSteps / 64]uint64

func (s set) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (s set) with(i int) set {
	s[i/64] |= 1 << (i % 64)
	return s
}

func (s set) size() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// Linearizable says why no order of the steps explains what they found: one in which
// each happens at one moment between its begin and its end. The answer is "" if there
// is such an order. The register begins empty.
//
// It searches for that order as Wing and Gong do, and remembers, as Lowe does, where it
// has been: a set of steps that are done, with a value. A step may be next if no other
// that is left had ended before it began. Histories are short, so it takes milliseconds.
func Linearizable(all []Step) string {
	if len(all) > MostSteps {
		return fmt.Sprintf("a history of %d steps is too long to be judged, %d is the most", len(all), MostSteps)
	}
	s := &search{steps: slices.Clone(all), been: make(map[place]bool)}
	slices.SortStableFunc(s.steps, func(a, b Step) int { return cmp.Compare(a.Begin, b.Begin) })
	if s.from(place{}, 0) {
		return ""
	}
	if len(s.been) >= mostPlaces {
		return "the history is too entangled to be judged"
	}
	return s.explain()
}

// place is how far a search has come.
type place struct {
	done  set
	value string
}

type search struct {
	steps []Step // in the order of their begins
	been  map[place]bool
	best  place // where most of what must have happened is done
	far   int   // how many steps that is
}

// from says whether an order goes on from p, where so many necessary steps are done.
func (s *search) from(p place, far int) bool {
	if s.been[p] || len(s.been) >= mostPlaces {
		return false
	}
	s.been[p] = true
	if far >= s.far {
		s.best, s.far = p, far
	}
	first, left := Never, false // the end of the step that must have happened first
	for i := range s.steps {
		if !s.steps[i].Maybe && !p.done.has(i) {
			first, left = min(first, s.steps[i].End), true
		}
	}
	if !left {
		return true
	}
	// Steps that may not have happened are the last resort.
	for _, maybe := range []bool{false, true} {
		for i := range s.steps {
			step := &s.steps[i]
			if step.Begin > first {
				break
			}
			if step.Maybe == maybe && !p.done.has(i) && s.through(step, p, i, far) {
				return true
			}
		}
	}
	return false
}

// through goes on after one step.
func (s *search) through(step *Step, p place, i, far int) bool {
	if !step.Maybe {
		far++
	}
	return slices.ContainsFunc(step.Ways, func(w Way) bool {
		return (w.Any || w.From == p.value) && s.from(place{p.done.with(i), w.To}, far)
	})
}

// explain shows what was explained farthest, and what was not: up to some steps after
// the first of those.
func (s *search) explain() string {
	var b strings.Builder
	fmt.Fprintf(&b, "no order explains it; the longest one ends with the value %q, without the steps with a star:", s.best.value)
	begin, shown := s.steps[0].Begin, 0
	for i := range s.steps {
		step := &s.steps[i]
		mark := " "
		if !step.Maybe && !s.best.done.has(i) {
			mark = "*"
		}
		if mark == " " && i < s.best.done.size()-10 || shown >= 30 {
			continue
		}
		shown++
		end := "no end"
		if step.End != Never {
			end = step.End.Sub(begin).String()
		}
		fmt.Fprintf(&b, "\n  %s %s to %s: %s", mark, step.Begin.Sub(begin), end, step.Says)
	}
	return b.String()
}

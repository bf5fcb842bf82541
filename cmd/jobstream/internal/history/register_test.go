package history

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// drawStep draws a step on a register with few values, at few moments.
func drawStep(t *rapid.T) Step {
	begin := rapid.IntRange(0, 6).Draw(t, "begin")
	s := Step{Begin: at(begin), End: at(begin + rapid.IntRange(1, 5).Draw(t, "long"))}
	if rapid.IntRange(0, 4).Draw(t, "no end") == 0 {
		s.End, s.Maybe = Never, rapid.Bool().Draw(t, "maybe")
	}
	value := rapid.SampledFrom([]string{"", "x", "y"})
	from, to := value.Draw(t, "from"), value.Draw(t, "to")
	switch rapid.IntRange(0, 3).Draw(t, "what") {
	case 0:
		s.Ways = []Way{{From: from, To: from}}
	case 1:
		s.Ways = []Way{{Any: true, To: to}}
	case 2:
		s.Ways = []Way{{From: from, To: to}}
	default:
		s.Ways = []Way{{From: "", To: to}, {From: to, To: to}}
	}
	s.Says = fmt.Sprint(s.Ways)
	return s
}

// TestRegister compares with what is obviously right: all orders, one after the other.
func TestRegister(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 0, 6).Draw(t, "steps")
		why := Linearizable(steps)
		if want := anyOrder(steps, "", nil); want != (why == "") {
			t.Fatalf("some order explains it: %v; said is %q", want, why)
		}
	})
}

// anyOrder says whether the rest of the steps can follow those that are done.
func anyOrder(all []Step, value string, done []int) bool {
	left := false
	for i, s := range all {
		if slices.Contains(done, i) {
			continue
		}
		left = left || !s.Maybe
		if slices.ContainsFunc(done, func(d int) bool { return s.End < all[d].Begin }) {
			return false // it had ended before one that was taken first, unless it never happened
		}
	}
	if !left {
		return true
	}
	for i, s := range all {
		if slices.Contains(done, i) {
			continue
		}
		for _, w := range s.Ways {
			if (w.Any || w.From == value) && anyOrder(all, w.To, append(slices.Clone(done), i)) {
				return true
			}
		}
	}
	return false
}

func TestRegisterOfManySteps(t *testing.T) {
	var all []Step
	for i := range MostSteps {
		v := fmt.Sprint(i)
		all = append(all, Step{Begin: at(i), End: at(i + 8), Ways: []Way{{Any: true, To: v}}, Says: "writes " + v})
	}
	recent, old := fmt.Sprint(MostSteps-12), fmt.Sprint(MostSteps-112)
	all[MostSteps-1].Ways = []Way{{From: recent, To: recent}}
	all[MostSteps-1].Says = "reads " + recent
	if why := Linearizable(all); why != "" {
		t.Error(why)
	}
	all[MostSteps-1].Ways = []Way{{From: old, To: old}}
	if why := Linearizable(all); why == "" {
		t.Error("a value that was overwritten is read")
	}
	if why := Linearizable(append(all, all[0])); !strings.Contains(why, "too long") {
		t.Errorf("%d steps: %q", len(all)+1, why)
	}
}

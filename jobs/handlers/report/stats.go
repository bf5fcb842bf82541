package report

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/figures"
	"jobstream/jobs/handlers/internal/history"
	"jobstream/jobs/handlers/internal/payload"
)

// Bounds of a summary, whatever the history holds: about 20 KB per type, for a hundred
// types at most.
const (
	maxTypes  = 100 // types with figures of their own; the rest share otherTypes
	maxErrors = 64  // counters for different errors of one type
	maxSlow   = 10  // slowest jobs
)

// otherTypes stands for all types beyond maxTypes. It is no valid type name.
const otherTypes = "(other types)"

// outcome is how a job stands, for a report.
type outcome int

// The outcomes, in the order in which the bars stack them. Failures stand on the ground
// line, where their heights compare best.
const (
	failed outcome = iota
	cancelled
	unfinished
	completed
	numOutcomes
)

var outcomeNames = [numOutcomes]string{"failed", "cancelled", "unfinished", "completed"}

func (o outcome) String() string { return outcomeNames[o] }

func outcomeOf(s jobs.Status) outcome {
	switch s {
	case jobs.Completed:
		return completed
	case jobs.Failed:
		return failed
	case jobs.Cancelled:
		return cancelled
	}
	return unfinished
}

// counts are the numbers of jobs by outcome.
type counts [numOutcomes]int

func (c *counts) jobs() int {
	n := 0
	for _, k := range c {
		n += k
	}
	return n
}

// successRate is the share of completed jobs among the completed and failed ones; nil
// if there are none. Cancelled jobs do not count.
func (c *counts) successRate() *float64 {
	ended := c[completed] + c[failed]
	if ended == 0 {
		return nil
	}
	rate := float64(c[completed]) / float64(ended)
	return &rate
}

// group has the figures of a set of jobs.
type group struct {
	name     string
	outcomes counts
	retries  int // attempts after the first ones
	retried  int // jobs with retries
	wait     figures.Histogram
	run      figures.Histogram
	errors   frequent
}

func (g *group) jobs() int             { return g.outcomes.jobs() }
func (g *group) successRate() *float64 { return g.outcomes.successRate() }

func (g *group) add(j *jobs.Job) {
	g.outcomes[outcomeOf(j.Status)]++
	if j.Attempt > 1 {
		g.retries += j.Attempt - 1
		g.retried++
	}
	if d, ok := history.Wait(j); ok {
		g.wait.Add(d)
	}
	if d, ok := history.RunTime(j); ok {
		g.run.Add(d)
	}
}

// summary has the figures of the jobs of a period.
type summary struct {
	period  payload.Period
	zone    *time.Location // of what is shown
	unit    unit
	edges   []jobs.Time // beginnings of the buckets of volume, ascending
	volume  []counts
	total   group
	byType  map[string]*group
	slowest []slowJob // slowest first
}

// slowJob is a row in the table of the slowest jobs.
type slowJob struct {
	id       jobs.ID
	kind     string
	status   jobs.Status
	run      time.Duration
	attempts int
	started  jobs.Time
}

func newSummary(p payload.Period, zone *time.Location) *summary {
	s := &summary{period: p, zone: zone, byType: map[string]*group{}}
	s.unit, s.edges = buckets(p, zone)
	s.volume = make([]counts, len(s.edges))
	return s
}

func (s *summary) add(j *jobs.Job) {
	i, exact := slices.BinarySearch(s.edges, j.CreatedAt)
	if !exact {
		i = max(i-1, 0)
	}
	s.volume[i][outcomeOf(j.Status)]++
	s.total.add(j)
	g := s.group(j.Type)
	g.add(j)
	if j.Status == jobs.Failed {
		g.errors.add(jobs.NormalError(j.Error))
	}
	s.addSlow(j)
}

func (s *summary) group(kind string) *group {
	if g := s.byType[kind]; g != nil {
		return g
	}
	name := strings.Clone(kind) // it may be a part of a large text
	if len(s.byType) >= maxTypes {
		name = otherTypes
		if g := s.byType[name]; g != nil {
			return g
		}
	}
	g := &group{name: name}
	s.byType[name] = g
	return g
}

func (s *summary) addSlow(j *jobs.Job) {
	run, ok := history.RunTime(j)
	if !ok || len(s.slowest) == maxSlow && run <= s.slowest[maxSlow-1].run {
		return
	}
	i, _ := slices.BinarySearchFunc(s.slowest, run, func(e slowJob, d time.Duration) int {
		if e.run >= d {
			return -1
		}
		return 1
	})
	s.slowest = slices.Insert(s.slowest, i, slowJob{
		id: j.ID, kind: strings.Clone(j.Type), status: j.Status, run: run, attempts: j.Attempt, started: j.StartedAt,
	})
	s.slowest = s.slowest[:min(len(s.slowest), maxSlow)]
}

// groups lists the types in the order of less, then by name.
func (s *summary) groups(less func(a, b *group) int) []*group {
	list := make([]*group, 0, len(s.byType))
	for _, g := range s.byType {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *group) int {
		return cmp.Or(less(a, b), cmp.Compare(a.name, b.name))
	})
	return list
}

// frequent finds the most common texts with a bounded number of counters (the
// "space-saving" algorithm). When all are in use, the smallest one changes its text.
// Any text with more than 1/maxErrors of all is found. Its count is exact if there are
// no more than maxErrors texts.
type frequent struct {
	list []counted
}

type counted struct {
	text  string
	count int
	extra int // how many of them may belong to other texts
}

// sure is a lower bound of the text's count.
func (c counted) sure() int { return c.count - c.extra }

func (f *frequent) add(text string) {
	least := 0
	for i := range f.list {
		if f.list[i].text == text {
			f.list[i].count++
			return
		}
		if f.list[i].count < f.list[least].count {
			least = i
		}
	}
	if len(f.list) < maxErrors {
		f.list = append(f.list, counted{text: text, count: 1})
		return
	}
	c := &f.list[least]
	*c = counted{text: text, count: c.count + 1, extra: c.count}
}

// top lists up to n texts, the most common first.
func (f *frequent) top(n int) []counted {
	list := slices.Clone(f.list)
	slices.SortFunc(list, func(a, b counted) int {
		return cmp.Or(cmp.Compare(b.sure(), a.sure()), cmp.Compare(a.text, b.text))
	})
	return list[:min(n, len(list))]
}

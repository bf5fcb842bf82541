package figures

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"jobstream/jobs"
)

// MaxTypes is how many types have figures of their own at a time, beside [Total]. All
// others share those of OtherTypes.
const MaxTypes = 100

// Names that stand for several types in figures. They are no valid type names.
const (
	Total      = "(total)"
	OtherTypes = "(other types)"
)

// Collector counts what commits change. Once a second it closes a period: it puts it into
// the rings, stores it, and makes a digest of it. It lives as long as the node, over all of
// its cores.
//
// [Collector.Committed] is on the way of each job, so it only counts. Everything else is
// done once a second, or by whoever asks.
type Collector struct {
	Board Board

	mu      sync.Mutex // guards what commits change
	source  Source     // nil: nothing is counted but what waits
	lines   map[string]*line
	tallies map[string]*tally // of the present period
	commits Histogram         // how long they took
	sample  sample
	begun   time.Time // the period

	past past
	sums sums

	// These belong to run.
	store store // the past's file
	last  int64 // the second that was pushed last
	log   *slog.Logger

	stop   context.CancelFunc // of run
	closed sync.WaitGroup
}

// Source says how things stand, apart from what commits say.
type Source interface {
	// Now is asked once a second. waiting is what waits, by type.
	Now(waiting map[string]Waiting) Now
}

// Now is how things stand.
type Now struct {
	Workers  Workers
	DiskFree int64 // bytes
	Types    map[string]TypeNow
}

// TypeNow is how things stand with a type.
type TypeNow struct {
	Internal  bool // it is in the total only
	Paused    bool
	Running   int
	Scheduled int
	Retrying  int
	Reasons   map[string]int // see [Recent]
}

// New makes a collector without a past.
func New() *Collector {
	c := &Collector{lines: make(map[string]*line), tallies: make(map[string]*tally), begun: time.Now()}
	c.past.init()
	return c
}

// Begin prepares for the commits of another core. all gives the jobs that are pending or
// retrying before its first commit; callbacks among them do not count. Until
// [Collector.Start] commits change only what waits, because a core repairs at first.
func (c *Collector) Begin(all func(yield func(*jobs.Job) error) error) error {
	lines := make(map[string]*line)
	err := all(func(j *jobs.Job) error {
		if j.Type != jobs.CallbackType {
			lineOf(lines, j.ListedAs()).count(j, 1)
		}
		return nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines, c.source = lines, nil
	return err
}

// Start begins to count what happens. source is asked until Stop, or the next Begin.
func (c *Collector) Start(source Source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.source = source
}

// Stop stops to count, as the core breaks off. Its periods will be missing.
func (c *Collector) Stop() { c.Start(nil) }

func lineOf(lines map[string]*line, name string) *line {
	l := lines[name]
	if l == nil {
		l = &line{}
		lines[name] = l
	}
	return l
}

// Committed is a listener of commits.
func (c *Collector) Committed(commit *jobs.Commit) {
	if len(commit.Changes) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commits.Add(commit.Took)
	var name string // of the last job; most neighbours share it
	var waiting *line
	var now *tally
	for i := range commit.Changes {
		was, is := commit.Changes[i].Before, commit.Changes[i].After
		j := cmp.Or(is, was)
		if j.Type == jobs.CallbackType {
			continue
		}
		if of := j.ListedAs(); now == nil || of != name {
			name, waiting, now = of, lineOf(c.lines, of), c.tally(of)
		}
		waiting.change(was, is)
		if is == nil || c.source == nil {
			continue
		}
		now.change(was, is)
		if was == nil || was.Status != is.Status {
			c.sample.add(is)
		}
	}
}

// tally is that of a type. c.mu is locked.
func (c *Collector) tally(name string) *tally {
	t := c.tallies[name]
	if t == nil {
		if len(c.tallies) >= MaxTypes && name != OtherTypes {
			return c.tally(OtherTypes)
		}
		t = &tally{}
		c.tallies[name] = t
	}
	return t
}

// Waiting is what waits now, by type. Types without waiting jobs may be missing.
func (c *Collector) Waiting() map[string]Waiting {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.looks(jobs.Now())
}

// looks is what waits. c.mu is locked.
func (c *Collector) looks(now jobs.Time) map[string]Waiting {
	all := make(map[string]Waiting, len(c.lines))
	for name, l := range c.lines {
		all[name] = l.look(now)
	}
	return all
}

// sample are some jobs out of many, each as likely as any other.
type sample struct {
	jobs [MaxSample]*jobs.Job
	at   [MaxSample]int // which of all each was
	all  int
}

func (s *sample) add(j *jobs.Job) {
	at := s.all
	if s.all++; at >= MaxSample {
		at = int(rand.Uint32N(uint32(s.all)))
	}
	if at < MaxSample {
		s.jobs[at], s.at[at] = j, s.all
	}
}

// changes are those of the sample, as far as there is room, and the number of all others.
func (s *sample) changes() (list []Change, skipped int) {
	n := min(s.all, MaxSample)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(s.at[a], s.at[b]) })
	list = make([]Change, 0, n)
	room := sampleBytes
	for _, i := range order {
		c := changeOf(s.jobs[i])
		if room -= changeBytes + len(c.Type) + len(c.Error); room < 0 {
			break
		}
		list = append(list, c)
	}
	return list, s.all - len(list)
}

const (
	changeBytes = 130 // of a change's JSON, without its texts
	maxError    = 100 // bytes of an error in a change
)

func changeOf(j *jobs.Job) Change {
	return Change{ID: j.ID, Seq: j.Seq, Type: j.Type, Status: j.Status.String(), At: j.UpdatedAt.Std(), Error: beginning(j.Error)}
}

// beginning is the first part of a text.
func beginning(s string) string {
	if len(s) <= maxError {
		return s
	}
	return strings.ToValidUTF8(s[:maxError], "") + "…"
}

package schedule_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tracker keeps schedules and jobs in memory. It treats a job as the real one does: a
// known id makes no second job, and a new job moves its schedule on.
type tracker struct {
	mu       sync.Mutex
	entries  map[string]*schedule.Entry
	jobs     map[jobs.ID]*jobs.Job
	made     []*jobs.Job // in the order of their making
	writes   int         // of entries, except by jobs
	forget   bool        // jobs don't move their schedule on
	refuse   func(m *jobs.Message) error
	submits  int
	storeErr error
	slow     time.Duration // how old an entry is by the time that it has been read
}

func newTracker() *tracker {
	return &tracker{entries: make(map[string]*schedule.Entry), jobs: make(map[jobs.ID]*jobs.Job)}
}

func (s *tracker) Schedules(context.Context) ([]*schedule.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*schedule.Entry
	for _, name := range slices.Sorted(maps.Keys(s.entries)) {
		all = append(all, s.entries[name])
	}
	return all, s.storeErr
}

func (s *tracker) Schedule(ctx context.Context, name string) (*schedule.Entry, error) {
	defer time.Sleep(s.slow)
	return desk{s}.Schedule(ctx, name)
}

// desk is the tracker as the book sees it, which is never slow.
type desk struct{ *tracker }

func (*tracker) ScheduleRuns(context.Context, string) ([]schedule.Run, error) { return nil, nil }

func (desk) ScheduleRuns(context.Context, string) ([]schedule.Run, error) { return nil, nil }

func (s desk) Schedule(_ context.Context, name string) (*schedule.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[name], s.storeErr
}

func (s *tracker) Do(_ context.Context, c jobs.Command) (jobs.Effect, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.storeErr != nil {
		return jobs.Effect{}, s.storeErr
	}
	change := c.(schedule.Command)
	name := change.Schedule()
	old := s.entries[name]
	e, err := change.Apply(old)
	if err != nil {
		return jobs.Effect{}, err
	}
	if e != old {
		s.writes++
	}
	if s.entries[name] = e; e == nil {
		delete(s.entries, name)
	}
	return jobs.Effect{Value: schedule.Change{Old: old, New: e}}, nil
}

func (s *tracker) Submit(_ context.Context, m *jobs.Message) (j *jobs.Job, replayed bool, err error) {
	s.mu.Lock()
	refuse := s.refuse
	s.submits++
	s.mu.Unlock()
	if refuse != nil { // it may take its time
		if err := refuse(m); err != nil {
			return nil, false, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.jobs[m.ID]; j != nil {
		return j, true, nil
	}
	j = &jobs.Job{ID: m.ID, Type: m.Type, Status: jobs.Pending, Payload: m.Payload, CreatedAt: jobs.Now(), Terms: m.Terms}
	s.jobs[m.ID] = j
	s.made = append(s.made, j)
	if e := s.entries[m.Terms.Schedule]; e != nil && !s.forget {
		s.entries[e.Name] = e.Ran(j.ID, m.Terms.ScheduledFor, j.CreatedAt)
	}
	return j, false, nil
}

func (s *tracker) Ended(_ context.Context, id jobs.ID) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[id]
	return j == nil || j.Status.Ended(), nil
}

// end ends all jobs.
func (s *tracker) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, j := range s.jobs {
		c := *j
		c.Status = jobs.Completed
		s.jobs[id] = &c
	}
}

func (s *tracker) get(name string) *schedule.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[name]
}

// fires are the times of a schedule's jobs, from an origin on, in the order of their
// making.
func (s *tracker) fires(name string, origin jobs.Time) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []time.Duration
	for _, j := range s.made {
		if j.Terms.Schedule == name {
			all = append(all, j.Terms.ScheduledFor.Sub(origin))
		}
	}
	return all
}

// rig is a runner over a tracker, in synctest's time.
type rig struct {
	*tracker
	book   *schedule.Book
	runner *schedule.Runner
	begin  jobs.Time
	log    *bytes.Buffer // read it when nothing runs
	logger *slog.Logger

	mu     sync.Mutex
	offset time.Duration // of the wall clock
	stop   func()
}

func newRig() *rig {
	g := &rig{tracker: newTracker(), begin: jobs.Now(), log: &bytes.Buffer{}}
	g.logger = slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	g.book = schedule.NewBook(schedule.BookOptions{
		Store: desk{g.tracker}, Submit: g.Submit, Now: g.now, Logger: g.logger,
		Check: func(s *schedule.Spec) error {
			if s.Type != "report" {
				return &jobs.Error{Kind: jobs.UnknownType, Detail: "unknown job type"}
			}
			return nil
		},
		Changed: func(name string) { g.runner.Changed(name) },
	})
	g.renew()
	return g
}

func (g *rig) renew() {
	g.runner = schedule.NewRunner(schedule.RunnerOptions{
		Store: g.tracker, Submit: g.Submit, Ended: g.Ended, Now: g.now, Logger: g.logger,
	})
}

func (g *rig) now() jobs.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return jobs.Now().Add(g.offset)
}

func (g *rig) jump(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.offset += d
}

// run starts the runner; g.stop ends it.
func (g *rig) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.runner.Run(ctx) }()
	g.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	synctest.Wait()
}

// pass lets time pass, and waits until everything in it has happened.
func pass(d time.Duration) {
	time.Sleep(d) // in synctest's bubble: no real time
	synctest.Wait()
}

func (g *rig) create(t *testing.T, body string) *schedule.Entry {
	t.Helper()
	s, err := schedule.ParseSpec([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	e, err := g.book.Create(t.Context(), "rest", s)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return e
}

// spans parses a list of durations.
func spans(t *testing.T, list ...string) (all []time.Duration) {
	t.Helper()
	for _, text := range list {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

func wantFires(t *testing.T, g *rig, name string, want ...string) {
	t.Helper()
	if got := g.fires(name, g.begin); !slices.Equal(got, spans(t, want...)) {
		t.Errorf("%s was fired for %v, not %v", name, got, want)
	}
}

var errBroken = errors.New("the broker is away")

package schedule

import (
	"context"
	"fmt"
	"reflect"

	"jobstream/jobs"
)

// Command is a [jobs.Command] about one schedule.
type Command interface {
	jobs.Command
	// Schedule is its name.
	Schedule() string
	// Apply returns the entry after the command. old is nil if there is none; a result
	// of nil deletes the entry; old itself means no change. Only old and the command
	// decide. An error is an [*jobs.Error].
	Apply(old *Entry) (*Entry, error)
}

// Change is the value of a [Command]'s effect: the entry before and after it, nil
// where there is none.
type Change struct{ Old, New *Entry }

// do has the store do a command, unless it would change nothing. That is frequent, and
// needs no transaction.
func do(ctx context.Context, s Store, c Command) (Change, error) {
	old, err := s.Schedule(ctx, c.Schedule())
	if err != nil {
		return Change{}, err
	}
	switch e, err := c.Apply(old); {
	case err != nil:
		return Change{}, err
	case e == old:
		return Change{old, old}, nil
	}
	e, err := s.Do(ctx, c)
	made, _ := e.Value.(Change)
	return made, err
}

// Put adds a schedule, or replaces the one of its name. The new one continues the old
// one's times, unless its times are different.
type Put struct {
	jobs.Stamp
	Source Source `json:"source"`
	Spec   Spec   `json:"spec"`
	New    bool   `json:"new,omitempty"` // a taken name is a conflict
}

// Schedule is the name.
func (c Put) Schedule() string { return c.Spec.Name }

// Apply makes the entry follow the spec.
func (c Put) Apply(old *Entry) (*Entry, error) {
	if err := writable(old, c.Source); err != nil {
		return nil, err
	}
	if old != nil && c.New {
		return nil, &jobs.Error{
			Kind:   jobs.Conflict,
			Detail: fmt.Sprintf("there is a schedule %q already; change it with PUT /schedules/%s", old.Name, old.Name),
		}
	}
	e := merge(old, &c.Spec, c.Source, c.At)
	if by := c.author(); e.CreatedBy != by {
		changed := *e
		changed.CreatedBy = by
		return &changed, nil
	}
	return e, nil
}

// author is the principal whose jobs the schedule makes; "" for the configuration.
func (c Put) author() string {
	if c.Source == FromConfig {
		return ""
	}
	return c.Actor
}

// Pause stops a schedule of a request, or continues it with its next time.
type Pause struct {
	jobs.Stamp
	Name   string `json:"name"`
	Paused bool   `json:"paused"`
}

// Schedule is the name.
func (c Pause) Schedule() string { return c.Name }

// Apply pauses the entry or resumes it.
func (c Pause) Apply(old *Entry) (*Entry, error) {
	if old == nil {
		return nil, noSuch(c.Name)
	}
	if err := writable(old, FromAPI); err != nil {
		return nil, err
	}
	s := old.Spec
	s.Paused = c.Paused
	return merge(old, &s, FromAPI, c.At), nil
}

// Delete removes a schedule of one source. Its jobs stay.
type Delete struct {
	jobs.Stamp
	Name   string `json:"name"`
	Source Source `json:"source"`
}

// Schedule is the name.
func (c Delete) Schedule() string { return c.Name }

// Apply removes the entry.
func (c Delete) Apply(old *Entry) (*Entry, error) {
	if old == nil {
		return nil, noSuch(c.Name)
	}
	if err := writable(old, c.Source); err != nil {
		return nil, err
	}
	return nil, nil
}

// Dealt records that a schedule's time is dealt with. Repeats change nothing.
type Dealt struct {
	jobs.Stamp
	Name string    `json:"name"`
	Time jobs.Time `json:"time"`
	// Job is the job made for that time, and MadeAt its moment; zero if there is none.
	Job    jobs.ID   `json:"job"`
	MadeAt jobs.Time `json:"made_at,omitempty"`
	// Skipped says that the time passed because the job before had not ended.
	Skipped bool `json:"skipped,omitempty"`
}

// Schedule is the name.
func (c Dealt) Schedule() string { return c.Name }

// Apply moves the entry to its next time.
func (c Dealt) Apply(old *Entry) (*Entry, error) {
	if old == nil || old.Done >= c.Time {
		return old, nil
	}
	e := *old
	e.Done = c.Time
	if c.Skipped {
		e.Skipped++
	}
	if c.Job != (jobs.ID{}) {
		return e.Ran(c.Job, c.Time, c.MadeAt), nil
	}
	return &e, nil
}

// writable returns an error if a source may not change an entry.
func writable(e *Entry, by Source) error {
	if e == nil || e.Source != FromConfig || by == FromConfig {
		return nil
	}
	return &jobs.Error{
		Kind: jobs.Conflict,
		Detail: fmt.Sprintf("schedule %q comes from the configuration file and is read-only here; "+
			"change it there and restart (POST /schedules/%s/run works)", e.Name, e.Name),
	}
}

// merge returns a schedule that follows s. It is old itself if that does already.
func merge(old *Entry, s *Spec, source Source, now jobs.Time) *Entry {
	if old == nil {
		return &Entry{*s, State{Source: source, CreatedAt: now, UpdatedAt: now, Anchor: now, Done: now}}
	}
	if old.Source == source && reflect.DeepEqual(&old.Spec, s) {
		return old
	}
	e := &Entry{*s, old.State}
	e.Source, e.UpdatedAt = source, now
	switch {
	case !old.sameTimes(s):
		e.Anchor, e.Done = now, now
	case old.Paused && !s.Paused:
		e.Done = now // times that have passed are not caught up
	}
	return e
}

func noSuch(name string) *jobs.Error {
	const longest = 80
	if len(name) > longest {
		name = name[:longest] + "…"
	}
	return &jobs.Error{Kind: jobs.NotFound, Detail: fmt.Sprintf("there is no schedule %q", name)}
}

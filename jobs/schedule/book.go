package schedule

import (
	"context"
	"fmt"
	"log/slog"

	"jobstream/jobs"
)

// Store keeps entries durably and does [Command]s. The value of a command's effect is a
// [Change]. A new entry beyond [MaxSchedules], or any change beyond [MaxStored], is an
// [*jobs.Error] of kind Conflict. Returned entries are shared and never changed.
type Store interface {
	jobs.Doer
	// Schedules lists all entries in the order of their names.
	Schedules(ctx context.Context) ([]*Entry, error)
	// Schedule finds an entry; nil without an error if there is none.
	Schedule(ctx context.Context, name string) (*Entry, error)
	// ScheduleRuns lists what became of its latest moments, the latest first.
	ScheduleRuns(ctx context.Context, name string) ([]Run, error)
}

// Submit puts a message into the queue, past its bound, and waits until the job is
// durable. If the id or token is known, it returns the existing job, and replayed is
// true.
type Submit func(ctx context.Context, m *jobs.Message) (j *jobs.Job, replayed bool, err error)

// Book has the operations of users on schedules. Its methods return [*jobs.Error]s for
// mistakes of users. An actor is the user's name in commands, see [jobs.Stamp].
type Book struct{ o BookOptions }

// BookOptions are the parts of a [Book].
type BookOptions struct {
	Store  Store
	Submit Submit
	// Check returns an error if a spec's type is unknown or cannot use its payload.
	Check func(s *Spec) error
	// Changed is called with the name of every schedule that was changed, see
	// [Runner.Changed]. It may be nil.
	Changed func(name string)
	Now     func() jobs.Time // nil = jobs.Now
	Logger  *slog.Logger     // nil = silence
}

// NewBook makes a book.
func NewBook(o BookOptions) *Book {
	if o.Now == nil {
		o.Now = jobs.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func(string) {}
	}
	return &Book{o}
}

// Runs lists what became of the latest moments of a schedule, the latest first.
func (b *Book) Runs(ctx context.Context, name string) ([]Run, error) {
	if _, err := b.Get(ctx, name); err != nil {
		return nil, err
	}
	return b.o.Store.ScheduleRuns(ctx, name)
}

// List returns all schedules in the order of their names.
func (b *Book) List(ctx context.Context) ([]*Entry, error) { return b.o.Store.Schedules(ctx) }

// Get finds a schedule.
func (b *Book) Get(ctx context.Context, name string) (*Entry, error) {
	e, err := b.o.Store.Schedule(ctx, name)
	if err == nil && e == nil {
		err = noSuch(name)
	}
	return e, err
}

// Create adds a schedule. A taken name is a conflict.
func (b *Book) Create(ctx context.Context, actor string, s *Spec) (*Entry, error) {
	made, err := b.put(ctx, actor, s, true)
	return made.New, err
}

// Put adds a schedule, or replaces the one of its name, see [Put]. created is true if
// it was added.
func (b *Book) Put(ctx context.Context, actor string, s *Spec) (e *Entry, created bool, err error) {
	made, err := b.put(ctx, actor, s, false)
	return made.New, made.Old == nil && err == nil, err
}

func (b *Book) put(ctx context.Context, actor string, s *Spec, isNew bool) (Change, error) {
	if err := b.o.Check(s); err != nil {
		return Change{}, err
	}
	return b.do(ctx, Put{b.by(actor), FromAPI, *s, isNew})
}

// Delete removes a schedule. Its jobs stay.
func (b *Book) Delete(ctx context.Context, actor, name string) error {
	_, err := b.do(ctx, Delete{b.by(actor), name, FromAPI})
	return err
}

// Pause stops a schedule until [Book.Resume]. Repeats change nothing.
func (b *Book) Pause(ctx context.Context, actor, name string) (*Entry, error) {
	made, err := b.do(ctx, Pause{b.by(actor), name, true})
	return made.New, err
}

// Resume continues a schedule with its next time. Repeats change nothing.
func (b *Book) Resume(ctx context.Context, actor, name string) (*Entry, error) {
	made, err := b.do(ctx, Pause{b.by(actor), name, false})
	return made.New, err
}

// Run makes a schedule's job at once, even if it is paused or its last job has not
// ended. Its times stay as they are. A known token returns the job that it made, and
// replayed is true. token may be nil. The job is the actor's.
func (b *Book) Run(ctx context.Context, actor, name string, token *jobs.Token) (j *jobs.Job, replayed bool, err error) {
	e, err := b.Get(ctx, name)
	if err != nil {
		return nil, false, err
	}
	if err := b.o.Check(&e.Spec); err != nil {
		return nil, false, err
	}
	m := e.Message(0)
	m.Token, m.CreatedBy = token, actor
	return b.o.Submit(ctx, m)
}

// do does a command on a user's behalf.
func (b *Book) do(ctx context.Context, c Command) (Change, error) {
	made, err := do(ctx, b.o.Store, c)
	if err == nil {
		b.o.Changed(c.Schedule())
	}
	return made, err
}

func (b *Book) by(actor string) jobs.Stamp { return jobs.Stamp{Actor: actor, At: b.o.Now()} }

// configActor signs the commands of the configuration.
const configActor = "config"

// Adopt brings the configuration's schedules into the book. A schedule replaces the one
// of its name and continues its times. Schedules that the configuration no longer has
// are removed. Call it before the [Runner] runs.
func (b *Book) Adopt(ctx context.Context, specs []*Spec) error {
	wanted := make(map[string]bool, len(specs))
	for _, s := range specs {
		if err := b.o.Check(s); err != nil {
			return fmt.Errorf("schedule %q of the configuration: %w", s.Name, err)
		}
		wanted[s.Name] = true
	}
	for _, s := range specs {
		made, err := do(ctx, b.o.Store, Put{Stamp: b.by(configActor), Source: FromConfig, Spec: *s})
		if err != nil {
			return fmt.Errorf("schedule %q of the configuration cannot be stored: %w", s.Name, err)
		}
		if made.Old != nil && made.Old.Source == FromAPI {
			b.o.Logger.Warn("the configuration's schedule replaces one that was made by a request", "schedule", s.Name)
		}
	}
	all, err := b.o.Store.Schedules(ctx)
	if err != nil {
		return fmt.Errorf("schedules cannot be read: %w", err)
	}
	for _, e := range all {
		if e.Source != FromConfig || wanted[e.Name] {
			continue
		}
		b.o.Logger.Info("a schedule is no longer in the configuration and is removed", "schedule", e.Name)
		if _, err := do(ctx, b.o.Store, Delete{b.by(configActor), e.Name, FromConfig}); err != nil {
			return fmt.Errorf("schedule %q, which is no longer in the configuration, cannot be removed: %w", e.Name, err)
		}
	}
	return nil
}

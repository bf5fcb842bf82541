package schedule

import (
	"context"
	"fmt"
	"log/slog"

	"jobstream/jobs"
)

// Store keeps entries durably, and does [Command]s: the value of their effect is a
// [Change]. A new entry beyond [MaxSchedules], or any change beyond [MaxStored], is an
// [*jobs.Error] of kind Conflict. The entries that it returns are shared and never
// changed.
type Store interface {
	jobs.Doer
	// Schedules lists all entries in the order of their names.
	Schedules(ctx context.Context) ([]*Entry, error)
	// Schedule finds an entry; nil without an error if there is none.
	Schedule(ctx context.Context, name string) (*Entry, error)
}

// Submit puts a message into the queue, past its bound, and waits until the job is
// durable. A message whose id or token is known already gives the existing job,
// and replayed is true.
type Submit func(ctx context.Context, m *jobs.Message) (j *jobs.Job, replayed bool, err error)

// Book is what users do with schedules. Its methods return [*jobs.Error]s for
// what users did wrong.
type Book struct{ o BookOptions }

// BookOptions are what a [Book] needs.
type BookOptions struct {
	Store  Store
	Submit Submit
	// Check says whether a spec's type is known and can use its payload.
	Check func(s *Spec) error
	// Changed is called with the name of every schedule that was changed, see
	// [Runner.Changed]; nil = nobody has to know.
	Changed func(name string)
	Actor   string           // who users are in commands, see [jobs.Stamp]
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

// List gives all schedules in the order of their names.
func (b *Book) List(ctx context.Context) ([]*Entry, error) { return b.o.Store.Schedules(ctx) }

// Get finds a schedule.
func (b *Book) Get(ctx context.Context, name string) (*Entry, error) {
	e, err := b.o.Store.Schedule(ctx, name)
	if err == nil && e == nil {
		err = noSuch(name)
	}
	return e, err
}

// Create adds a schedule. A name that is taken is a conflict.
func (b *Book) Create(ctx context.Context, s *Spec) (*Entry, error) {
	made, err := b.put(ctx, s, true)
	return made.New, err
}

// Put adds a schedule or replaces the one that has its name, see [Put]. created says
// which of the two it was.
func (b *Book) Put(ctx context.Context, s *Spec) (e *Entry, created bool, err error) {
	made, err := b.put(ctx, s, false)
	return made.New, made.Old == nil && err == nil, err
}

func (b *Book) put(ctx context.Context, s *Spec, isNew bool) (Change, error) {
	if err := b.o.Check(s); err != nil {
		return Change{}, err
	}
	return b.do(ctx, Put{b.by(b.o.Actor), FromAPI, *s, isNew})
}

// Delete removes a schedule. Jobs that it has made stay.
func (b *Book) Delete(ctx context.Context, name string) error {
	_, err := b.do(ctx, Delete{b.by(b.o.Actor), name, FromAPI})
	return err
}

// Pause stops a schedule until [Book.Resume]; to do it twice changes nothing.
func (b *Book) Pause(ctx context.Context, name string) (*Entry, error) {
	made, err := b.do(ctx, Pause{b.by(b.o.Actor), name, true})
	return made.New, err
}

// Resume lets a schedule go on with its next time; to do it twice changes
// nothing.
func (b *Book) Resume(ctx context.Context, name string) (*Entry, error) {
	made, err := b.do(ctx, Pause{b.by(b.o.Actor), name, false})
	return made.New, err
}

// Run makes a schedule's job at once, whether it is paused or its last job has
// ended or not. Its times stay as they are. A token (nil for none) that was used
// before gives the job of that time, and replayed is true.
func (b *Book) Run(ctx context.Context, name string, token *jobs.Token) (j *jobs.Job, replayed bool, err error) {
	e, err := b.Get(ctx, name)
	if err != nil {
		return nil, false, err
	}
	if err := b.o.Check(&e.Spec); err != nil {
		return nil, false, err
	}
	m := e.Message(0)
	m.Token = token
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

// configActor is who gives the commands of the configuration.
const configActor = "config"

// Adopt makes the configuration's schedules those of the book: they replace
// whatever has their names and go on where that was, and what the configuration
// had before and has no longer is removed. It is called before the [Runner] runs.
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

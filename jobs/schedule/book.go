package schedule

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"

	"jobstream/jobs"
)

// Store keeps entries durably. The entries that it returns are shared and never
// changed.
type Store interface {
	// Schedules lists all entries in the order of their names.
	Schedules(ctx context.Context) ([]*Entry, error)
	// Schedule finds an entry; nil without an error if there is none.
	Schedule(ctx context.Context, name string) (*Entry, error)
	// UpdateSchedule replaces an entry by what change makes of it, in one
	// transaction: old is nil if there is none, and a nil result deletes it. If
	// change returns old itself, or an error, nothing is written. The result is the
	// entry as it is then. change may be called more than once. A new entry beyond
	// [MaxSchedules], or any change beyond [MaxStored], is an [*jobs.Error] of kind
	// Conflict.
	UpdateSchedule(ctx context.Context, name string, change func(old *Entry) (*Entry, error)) (*Entry, error)
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
	return b.change(ctx, s.Name, s, func(old *Entry, now jobs.Time) (*Entry, error) {
		if old != nil {
			return nil, &jobs.Error{
				Kind:   jobs.Conflict,
				Detail: fmt.Sprintf("there is a schedule %q already; change it with PUT /schedules/%s", s.Name, s.Name),
			}
		}
		return merge(nil, s, FromAPI, now), nil
	})
}

// Put adds a schedule or replaces the one that has its name, which goes on where
// that was unless its times are others. created says which of the two it was.
func (b *Book) Put(ctx context.Context, s *Spec) (e *Entry, created bool, err error) {
	e, err = b.change(ctx, s.Name, s, func(old *Entry, now jobs.Time) (*Entry, error) {
		created = old == nil
		return merge(old, s, FromAPI, now), nil
	})
	if err != nil {
		return nil, false, err
	}
	return e, created, nil
}

// Delete removes a schedule. Jobs that it has made stay.
func (b *Book) Delete(ctx context.Context, name string) error {
	_, err := b.changeKnown(ctx, name, func(*Entry, jobs.Time) *Entry { return nil })
	return err
}

// Pause stops a schedule until [Book.Resume]; to do it twice changes nothing.
func (b *Book) Pause(ctx context.Context, name string) (*Entry, error) {
	return b.setPaused(ctx, name, true)
}

// Resume lets a schedule go on with its next time; to do it twice changes
// nothing.
func (b *Book) Resume(ctx context.Context, name string) (*Entry, error) {
	return b.setPaused(ctx, name, false)
}

func (b *Book) setPaused(ctx context.Context, name string, paused bool) (*Entry, error) {
	return b.changeKnown(ctx, name, func(old *Entry, now jobs.Time) *Entry {
		s := old.Spec
		s.Paused = paused
		return merge(old, &s, FromAPI, now)
	})
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

// changeKnown changes a schedule that has to be there.
func (b *Book) changeKnown(ctx context.Context, name string, f func(old *Entry, now jobs.Time) *Entry) (*Entry, error) {
	return b.change(ctx, name, nil, func(old *Entry, now jobs.Time) (*Entry, error) {
		if old == nil {
			return nil, noSuch(name)
		}
		return f(old, now), nil
	})
}

// change changes a schedule on a user's behalf, to s if that is not nil.
func (b *Book) change(ctx context.Context, name string, s *Spec, f func(old *Entry, now jobs.Time) (*Entry, error)) (*Entry, error) {
	if s != nil {
		if err := b.o.Check(s); err != nil {
			return nil, err
		}
	}
	e, err := b.o.Store.UpdateSchedule(ctx, name, func(old *Entry) (*Entry, error) {
		if old != nil && old.Source == FromConfig {
			return nil, &jobs.Error{
				Kind: jobs.Conflict,
				Detail: fmt.Sprintf("schedule %q comes from the configuration file and is read-only here; "+
					"change it there and restart (POST /schedules/%s/run works)", name, name),
			}
		}
		return f(old, b.o.Now())
	})
	if err == nil {
		b.o.Changed(name)
	}
	return e, err
}

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
		_, err := b.o.Store.UpdateSchedule(ctx, s.Name, func(old *Entry) (*Entry, error) {
			if old != nil && old.Source == FromAPI {
				b.o.Logger.Warn("the configuration's schedule replaces one that was made by a request", "schedule", s.Name)
			}
			return merge(old, s, FromConfig, b.o.Now()), nil
		})
		if err != nil {
			return fmt.Errorf("schedule %q of the configuration cannot be stored: %w", s.Name, err)
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
		remove := func(*Entry) (*Entry, error) { return nil, nil }
		if _, err := b.o.Store.UpdateSchedule(ctx, e.Name, remove); err != nil {
			return fmt.Errorf("schedule %q, which is no longer in the configuration, cannot be removed: %w", e.Name, err)
		}
	}
	return nil
}

// merge is a schedule after it was made to what s wants. It is old itself if
// that is so already.
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
		e.Done = now // what passed meanwhile is not caught up
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

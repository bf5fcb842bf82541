package joblog

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/linger"
)

// Query says which entries are wanted.
type Query struct {
	Attempt int // 0 = of all attempts
	Tail    int // only the last so many; 0 = all
}

// Read returns the entries of a job, oldest first; none if it has said nothing. Where
// entries are missing, the numbers have a gap.
func (d *Dir) Read(_ context.Context, id jobs.ID, q Query) ([]Entry, error) {
	var all []Entry
	for part := range 3 {
		err := d.read(id, part, func(e *Entry, _ int) bool {
			all = append(all, *e)
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return a.N - b.N })
	return q.Pick(all), nil
}

// Follow calls f for what [Dir.Read] returns and for every entry that comes after it. It
// returns once ended is closed and no attempt is open, ctx ends, or f returns an error.
// ended means that the job has ended.
func (d *Dir) Follow(ctx context.Context, id jobs.ID, q Query, ended <-chan struct{}, f func(*Entry) error) error {
	l := d.acquire(id)
	defer d.release(l)
	last, over := 0, false
	for {
		l.mu.Lock()
		more, running := l.more, l.running
		l.mu.Unlock()
		all, err := d.Read(ctx, id, q)
		if err != nil {
			return err
		}
		for i := range all {
			if all[i].N <= last {
				continue
			}
			last = all[i].N
			if err := f(&all[i]); err != nil {
				return err
			}
		}
		q.Tail = 0 // what it leaves out is before last
		if over && running == 0 {
			return nil
		}
		select {
		case <-more:
		case <-ended:
			over, ended = true, nil
			continue
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select { // entries that come fast are read together
		case <-time.After(followEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// followEvery is the least time between two looks of a follower.
const followEvery = 50 * time.Millisecond

// Remove deletes the log of a job and returns its size in bytes.
func (d *Dir) Remove(id jobs.ID) (freed int64, err error) {
	for part := range 3 {
		info, e := os.Lstat(d.file(id, part))
		if errors.Is(e, fs.ErrNotExist) {
			continue
		}
		if e == nil {
			if e = linger.Remove(d.file(id, part)); e == nil {
				freed += info.Size()
			}
		}
		err = errors.Join(err, e)
	}
	return freed, err
}

// Package changes hands the changes of jobs on to those who follow them, in the form of
// Server-Sent Events.
//
// Where to start: a [Feed] listens to commits, as long as it has followers, and keeps the
// latest changes for all of them together. A [Follower] goes through these at its own
// speed. The text of a change is made once, by the first who wants it. Who comes back after
// a while, also to another process, first gets what has ended meanwhile, from the log of
// ends in the tracker. See [Follower.Next].
package changes

import (
	"slices"
	"sync"

	"jobstream/jobs"
)

// Filter chooses changes. Empty fields choose all, but for those of callbacks.
type Filter struct {
	Statuses []jobs.Status // that the job has now
	Types    []string
	Jobs     []jobs.ID
}

// match says whether f chooses the change of a job.
func (f *Filter) match(j *jobs.Job, deleted bool) bool {
	if len(f.Jobs) > 0 && !slices.Contains(f.Jobs, j.ID) || deleted && len(f.Statuses) > 0 {
		return false
	}
	of := jobs.Filter{Statuses: f.Statuses, Types: f.Types, Callbacks: len(f.Jobs) > 0}
	return of.Match(j)
}

// change is the change of one job in a commit.
type change struct {
	at      Place // the place behind it
	deleted bool

	job  *jobs.Job // as it is after the change, or was before it was deleted
	once sync.Once
	made []byte
}

// text is the change as an event, made once.
func (c *change) text(epoch string) []byte {
	c.once.Do(func() { c.made = event(epoch, c.at, c.job, c.deleted) })
	return c.made
}

// commit has the changes of one commit.
type commit struct {
	number  uint64
	changes []change
	weight  int // bytes of memory, about
}

func newCommit(c *jobs.Commit) *commit {
	made := &commit{number: c.Number, changes: make([]change, len(c.Changes))}
	for i := range c.Changes {
		one := &made.changes[i]
		one.job = c.Changes[i].After
		if one.deleted = one.job == nil; one.deleted {
			one.job = c.Changes[i].Before
		}
		one.at = Place{Number: c.Number, Index: i + 1}
		made.weight += 2 * one.job.SizeHint() // with its text
	}
	if n := len(made.changes); n > 0 {
		made.changes[n-1].at = Place{Number: c.Number + 1}
	}
	return made
}

package jobs

import (
	"context"
	"slices"
)

// Filter chooses jobs. Empty fields choose all; entries of one list are
// alternatives, different fields must all hold. After is inclusive, Before
// exclusive, and 0 leaves that side open.
//
// Statuses, types, tags and the range of created_at are found by index; for the
// other fields the records of those that are left must be read, see
// [Filter.Scans].
type Filter struct {
	Statuses   []Status
	Types      []string
	Tags       []string // any of them
	Priorities []Priority

	CreatedAfter, CreatedBefore Time
	// The range in which the last attempt began: chooses no job that has none.
	StartedAfter, StartedBefore Time
	// The range in which the job ended: chooses no job that has not.
	EndedAfter, EndedBefore Time

	// Error is in the job's error, or in that of one of its attempts; case does not
	// matter.
	Error string
	// Payload is in the text of the payload's JSON, as it was submitted (with its
	// spaces and escapes); case does not matter.
	Payload string
}

// Match says whether f chooses j.
func (f *Filter) Match(j *Job) bool {
	switch {
	case len(f.Statuses) > 0 && !slices.Contains(f.Statuses, j.Status),
		len(f.Types) > 0 && !slices.Contains(f.Types, j.ListedAs()),
		!f.MatchPriority(j.Priority),
		!f.MatchTimes(j.Status, j.CreatedAt, j.StartedAt, j.EndedAt),
		len(f.Tags) > 0 && !slices.ContainsFunc(j.Tags, func(t string) bool { return slices.Contains(f.Tags, t) }):
		return false
	}
	return f.matchError(j) && f.matchPayload(j)
}

// MatchPriority says whether f chooses jobs of that priority.
func (f *Filter) MatchPriority(p Priority) bool {
	return len(f.Priorities) == 0 || slices.Contains(f.Priorities, p)
}

// MatchTimes says whether f chooses a job with these times.
func (f *Filter) MatchTimes(status Status, created, started, ended Time) bool {
	switch {
	case f.CreatedAfter != 0 && created < f.CreatedAfter,
		f.CreatedBefore != 0 && created >= f.CreatedBefore,
		f.wantsStart() && started == 0,
		f.StartedAfter != 0 && started < f.StartedAfter,
		f.StartedBefore != 0 && started >= f.StartedBefore,
		f.WantsEnd() && (ended == 0 || !status.Ended()),
		f.EndedAfter != 0 && ended < f.EndedAfter,
		f.EndedBefore != 0 && ended >= f.EndedBefore:
		return false
	}
	return true
}

func (f *Filter) wantsStart() bool { return f.StartedAfter != 0 || f.StartedBefore != 0 }

// WantsEnd says whether f chooses only jobs that have ended, by its times.
func (f *Filter) WantsEnd() bool { return f.EndedAfter != 0 || f.EndedBefore != 0 }

func (f *Filter) matchError(j *Job) bool {
	if f.Error == "" {
		return true
	}
	n := NewNeedle(f.Error)
	return n.In([]byte(j.Error)) ||
		slices.ContainsFunc(j.Errors, func(e AttemptError) bool { return n.In([]byte(e.Error)) })
}

func (f *Filter) matchPayload(j *Job) bool {
	if f.Payload == "" {
		return true
	}
	n := NewNeedle(f.Payload)
	return n.In(j.Payload)
}

// Scans says whether f asks for something that no index knows: priority, the
// times of start and end, texts. Then records are read until enough are found,
// and a list may end before that, see [Listing].
func (f *Filter) Scans() bool {
	return len(f.Priorities) > 0 || f.wantsStart() || f.WantsEnd() || f.Error != "" || f.Payload != ""
}

// Empty says whether f chooses every job there is.
func (f *Filter) Empty() bool {
	return !f.Scans() && len(f.Statuses) == 0 && len(f.Types) == 0 && len(f.Tags) == 0 &&
		f.CreatedAfter == 0 && f.CreatedBefore == 0
}

// History is the tracker as handlers read it.
type History interface {
	// Count is the number of jobs that f chooses: exact for statuses, types and
	// tags, an upper bound if anything else is given. It is cheap.
	Count(f Filter) (int, error)
	// Scan calls yield for every job that f chooses, oldest first, until yield
	// returns an error, which Scan returns. Memory is flat, and no lock or
	// transaction is held while yield runs. Jobs that come or change meanwhile may
	// or may not be seen; none is seen twice.
	Scan(ctx context.Context, f Filter, yield func(*Job) error) error
}

// Cleaner knows the ended jobs, and deletes their records by [Delete].
type Cleaner interface {
	Doer
	// Ended lists up to limit ended jobs among those with a key above after, that
	// have one of the statuses (all ended ones if empty) and ended before the given
	// moment, oldest first. next is the after of the next call; 0 = no more.
	Ended(ctx context.Context, before Time, statuses []Status, after uint64, limit int) (found []*Job, next uint64, err error)
}

// Page asks for a piece of a list.
type Page struct {
	Filter
	Limit  int    // 1 to [MaxLimit]; 0 = [DefaultLimit]
	Cursor string // of the page before; "" = from the start
	Asc    bool   // oldest first
}

// Bounds of a page.
const (
	DefaultLimit = 50
	MaxLimit     = 500
)

// Listing is a page of a list, and how to go on.
//
// A list that must read records to know what it wants ([Filter.Scans], or a
// range of created_at whose ends lie among many jobs) looks at a bounded number
// of them: it may bring fewer jobs than it was asked for, or none, and still
// have a Next to go on with.
//
// Its jobs are handed over one by one, so that no page is in memory as a whole.
type Listing struct {
	Next string // the cursor of the next page; "" = there is none
	// Scanned is how many records were read for this page.
	Scanned int
	// TellScanned says that Scanned is worth telling: the filter scans, or the bound
	// ended the page.
	TellScanned bool
}

// MaxPageBytes is about how many bytes a page of a list has at most: it ends
// before the job that would make it larger, unless that is its first.
const MaxPageBytes = 8 << 20

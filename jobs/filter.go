package jobs

import (
	"context"
	"slices"
	"strconv"
	"strings"
)

// Filter chooses jobs. Empty fields choose all, but for callbacks. Entries of one list are alternatives;
// different fields must all match. After is inclusive, Before exclusive, and 0 leaves
// that side open.
//
// Indexes find statuses, types, tags, fingerprints, schedules, keys, ids and the range of
// created_at. For the other fields the remaining records must be read, see
// [Filter.Scans].
type Filter struct {
	Statuses []Status
	Types    []string
	Tags     []string // any of them
	// Fingerprints choose failed jobs, see [Job.Fingerprint].
	Fingerprints    []string
	Schedules       []string
	ConcurrencyKeys []string
	UniqueKeys      []string
	// IDs are ids of jobs, or their beginnings.
	IDs        []string
	Priorities []Priority
	CreatedBy  []string // see [Job.CreatedBy]
	// Callbacks chooses callbacks as well if Types is empty, see [CallbackType].
	Callbacks bool

	CreatedAfter, CreatedBefore Time
	// The range of the last attempt's start. It chooses no job without one.
	StartedAfter, StartedBefore Time
	// The range of the job's end. It chooses no job that has not ended.
	EndedAfter, EndedBefore Time

	// Error is a part of the job's error, or of an attempt's, in any case.
	Error string
	// Payload is a part of the payload's JSON as it was submitted, with its spaces and
	// escapes, in any case.
	Payload string
	// Query is what somebody types into a search box, see [Filter.MatchQuery].
	Query string
}

// Match says whether f chooses j.
func (f *Filter) Match(j *Job) bool {
	switch {
	case !f.Callbacks && len(f.Types) == 0 && j.Type == CallbackType,
		len(f.Statuses) > 0 && !slices.Contains(f.Statuses, j.Status),
		len(f.Types) > 0 && !slices.Contains(f.Types, j.ListedAs()),
		!f.MatchPriority(j.Priority),
		len(f.CreatedBy) > 0 && !slices.Contains(f.CreatedBy, j.CreatedBy),
		!f.MatchTimes(j.Status, j.CreatedAt, j.StartedAt, j.EndedAt),
		len(f.Tags) > 0 && !slices.ContainsFunc(j.Tags, func(t string) bool { return slices.Contains(f.Tags, t) }),
		len(f.Fingerprints) > 0 && !slices.Contains(f.Fingerprints, j.Fingerprint()),
		!f.matchTerms(j.Terms), !f.matchID(j.ID):
		return false
	}
	return f.matchError(j) && f.matchPayload(j) && f.MatchQuery(j)
}

// matchTerms says whether f chooses jobs with these terms.
func (f *Filter) matchTerms(t *Terms) bool {
	if t == nil {
		t = &Terms{}
	}
	return (len(f.Schedules) == 0 || slices.Contains(f.Schedules, t.Schedule)) &&
		(len(f.ConcurrencyKeys) == 0 || slices.Contains(f.ConcurrencyKeys, t.ConcurrencyKey)) &&
		(len(f.UniqueKeys) == 0 || slices.Contains(f.UniqueKeys, t.UniqueKey))
}

func (f *Filter) matchID(id ID) bool {
	return len(f.IDs) == 0 || slices.ContainsFunc(f.IDs, func(prefix string) bool { return HasIDPrefix(id, prefix) })
}

// HasIDPrefix says whether an id begins with a text, in any case.
func HasIDPrefix(id ID, prefix string) bool {
	text := id.String()
	return len(prefix) <= len(text) && strings.EqualFold(text[:len(prefix)], prefix)
}

// MinIDPrefix is the length of the shortest beginning of an id that [Filter.Query] takes
// for one.
const MinIDPrefix = 8

// IsIDPrefix says whether a text may be the beginning of an id.
func IsIDPrefix(text string) bool {
	for i := range len(text) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (text[i] == '-') || !dash && !isHex(text[i]) {
			return false
		}
	}
	return text != "" && len(text) <= 36
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

// MatchQuery says whether j has the Query of f: as its seq, as the first 8 or more
// characters of its id, or in its type, a tag, an error or its payload.
func (f *Filter) MatchQuery(j *Job) bool {
	if f.Query == "" || f.Query == strconv.FormatUint(j.Seq, 10) || len(f.Query) >= MinIDPrefix && HasIDPrefix(j.ID, f.Query) {
		return true
	}
	n := NewNeedle(f.Query)
	return n.In([]byte(j.ListedAs())) || slices.ContainsFunc(j.Tags, func(t string) bool { return n.In([]byte(t)) }) ||
		n.In([]byte(j.Error)) || n.inErrors(j.Errors) || n.In(j.Payload)
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

// WantsEnd says whether f, by its times, chooses only jobs that have ended.
func (f *Filter) WantsEnd() bool { return f.EndedAfter != 0 || f.EndedBefore != 0 }

func (f *Filter) matchError(j *Job) bool {
	if f.Error == "" {
		return true
	}
	n := NewNeedle(f.Error)
	return n.In([]byte(j.Error)) || n.inErrors(j.Errors)
}

func (n *Needle) inErrors(all []AttemptError) bool {
	return slices.ContainsFunc(all, func(e AttemptError) bool { return n.In([]byte(e.Error)) })
}

func (f *Filter) matchPayload(j *Job) bool {
	if f.Payload == "" {
		return true
	}
	n := NewNeedle(f.Payload)
	return n.In(j.Payload)
}

// Scans says whether f has a field without an index: priority, created_by, the times of
// start and end, texts. Ids count among them, though their records are found at once. Then
// records are read until enough are found, and a list may end early,
// see [Listing].
func (f *Filter) Scans() bool {
	return len(f.Priorities)+len(f.CreatedBy) > 0 || f.wantsStart() || f.WantsEnd() || f.Error != "" || f.Payload != "" || f.Query != "" || len(f.IDs) > 0
}

// Empty says whether f chooses all jobs.
func (f *Filter) Empty() bool {
	return !f.Scans() && len(f.Statuses) == 0 && len(f.Types) == 0 && !f.attributes() && f.CreatedAfter == 0 && f.CreatedBefore == 0
}

// attributes says whether f has a field, besides statuses and types, that bitmaps answer.
func (f *Filter) attributes() bool {
	return len(f.Tags)+len(f.Fingerprints)+len(f.Schedules)+len(f.ConcurrencyKeys)+len(f.UniqueKeys) > 0
}

// Counted says whether the counters of types and statuses answer for f.
func (f *Filter) Counted() bool {
	return !f.attributes() && f.CreatedAfter == 0 && f.CreatedBefore == 0 && !f.Scans()
}

// History is the tracker, as handlers read it.
type History interface {
	// Count is the number of jobs that f chooses. It is exact for statuses, types and
	// tags, and else an upper bound. It is cheap.
	Count(f Filter) (int, error)
	// Scan calls yield for every job that f chooses, oldest first, until yield returns
	// an error, which Scan returns. Memory is flat, and no lock or transaction is held
	// while yield runs. Scan may miss jobs that come or change meanwhile, and gives
	// none twice.
	Scan(ctx context.Context, f Filter, yield func(*Job) error) error
}

// Cleaner lists ended jobs, and deletes their records by [Delete].
type Cleaner interface {
	Doer
	// Ended lists up to limit ended jobs with a key above after, oldest first. They
	// have one of the statuses (none stands for all) and ended before the given moment.
	// next is the after of the next call; 0 = no more.
	Ended(ctx context.Context, before Time, statuses []Status, after uint64, limit int) (found []*Job, next uint64, err error)
}

// Page is a request for a part of a list.
type Page struct {
	Filter
	Limit  int    // 1 to [MaxLimit]; 0 = [DefaultLimit]
	Cursor string // of the page before; "" = from the start
	Asc    bool   // oldest first
	// Order says by what; an order by a moment chooses only jobs that have it.
	Order Order
	// Waiting says that the jobs are to be shown with the reasons why they wait.
	Waiting bool
}

// Order is the order of a list.
type Order uint8

// The orders of lists.
const (
	ByCreation Order = iota // of all jobs
	ByEnd                   // of those that have ended
	ByRunAt                 // of scheduled and retrying ones
	ByStart                 // of processing ones
)

var orderNames = []string{"created", "ended", "run_at", "started"}

// ParseOrder is the order with a name.
func ParseOrder(name string) (Order, bool) {
	i := slices.Index(orderNames, name)
	return Order(max(i, 0)), i >= 0
}

// OrderNames lists the names of all orders.
func OrderNames() []string { return orderNames }

// Statuses are the statuses of the jobs that have the moment of an order.
func (o Order) Statuses() []Status {
	switch o {
	case ByEnd:
		return []Status{Completed, Failed, Cancelled}
	case ByRunAt:
		return []Status{Scheduled, Retrying}
	case ByStart:
		return []Status{Processing}
	}
	return nil
}

// Moment is the moment by which lists order jobs with j's status; 0 for pending ones.
func (j *Job) Moment() Time {
	switch {
	case j.Status.Ended():
		return j.EndedAt
	case j.Status == Processing:
		return j.StartedAt
	case j.Status == Pending:
		return 0
	}
	return j.DueAt
}

// Bounds of a page.
const (
	DefaultLimit = 50
	MaxLimit     = 500
)

// Listing is a page of a list, and the way to the next.
//
// Some lists must read records to find their jobs: those of [Filter.Scans], and those
// with a range of created_at whose ends lie among many jobs. They read a bounded number
// of records. So such a page may have fewer jobs than requested, or none, and still
// have a Next.
//
// Jobs are handed over one by one, so that no page is in memory as a whole.
type Listing struct {
	Next string // the cursor of the next page; "" = there is none
	// Scanned is the number of records that were read for this page.
	Scanned int
	// ShowScanned says that Scanned matters: the filter scans, or the bound ended the
	// page.
	ShowScanned bool
}

// MaxPageBytes is about the largest size of a page in bytes. A page ends before the job
// that would make it larger, unless that is its first.
const MaxPageBytes = 8 << 20

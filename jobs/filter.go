package jobs

import (
	"context"
	"fmt"
	"slices"
)

// Filter chooses jobs. Empty lists choose all; entries of one list are
// alternatives, different fields must all hold.
type Filter struct {
	Statuses      []Status
	Types         []string
	Tags          []string // any of them
	CreatedAfter  Time     // inclusive; 0 = open
	CreatedBefore Time     // exclusive; 0 = open
}

// Match says whether f chooses j.
func (f *Filter) Match(j *Job) bool {
	switch {
	case len(f.Statuses) > 0 && !slices.Contains(f.Statuses, j.Status),
		len(f.Types) > 0 && !slices.Contains(f.Types, j.Type),
		f.CreatedAfter != 0 && j.CreatedAt < f.CreatedAfter,
		f.CreatedBefore != 0 && j.CreatedAt >= f.CreatedBefore:
		return false
	case len(f.Tags) == 0:
		return true
	}
	return slices.ContainsFunc(j.Tags, func(t string) bool { return slices.Contains(f.Tags, t) })
}

// History is the tracker as handlers read it.
type History interface {
	// Count is the number of jobs that f chooses: exact for statuses, types and
	// tags, an upper bound if a time range is given. It is cheap.
	Count(f Filter) (int, error)
	// Scan calls yield for every job that f chooses, oldest first, until yield
	// returns an error, which Scan returns. Memory is flat, and no lock or
	// transaction is held while yield runs. Jobs that come or change meanwhile may
	// or may not be seen; none is seen twice.
	Scan(ctx context.Context, f Filter, yield func(*Job) error) error
}

// Cleaner deletes the records of ended jobs.
type Cleaner interface {
	// Ended lists up to limit ended jobs among those with a key above after, that
	// have one of the statuses (all ended ones if empty) and ended before the given
	// moment, oldest first. next is the after of the next call; 0 = no more.
	Ended(ctx context.Context, before Time, statuses []Status, after uint64, limit int) (found []*Job, next uint64, err error)
	// Delete removes the records with these keys in one commit, as far as they
	// exist and have ended, and returns how many there were and the bytes that
	// their records took.
	Delete(ctx context.Context, keys []uint64) (deleted int, bytes int64, err error)
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

// PageQuery gathers a list's parameters by the names of the query string (and
// of jobstream.list): status, type, tag, created_after, created_before, limit,
// cursor, order.
type PageQuery struct {
	page Page
	bad  []FieldError
	// Where names the source of values in errors: "query/" or "/".
	Where string
}

// Set takes one value.
func (q *PageQuery) Set(name, value string) {
	switch name {
	case "status":
		s, ok := ParseStatus(value)
		if !ok {
			q.fail(name, "%q is not a status; known are %v", value, StatusNames())
			return
		}
		q.page.Statuses = append(q.page.Statuses, s)
	case "type":
		q.page.Types = append(q.page.Types, value)
	case "tag":
		q.page.Tags = append(q.page.Tags, value)
	case "created_after":
		q.page.CreatedAfter = q.moment(name, value)
	case "created_before":
		q.page.CreatedBefore = q.moment(name, value)
	case "limit":
		n, err := intValue([]byte(value), 1, MaxLimit)
		if err != nil {
			q.fail(name, "%s", err)
		}
		q.page.Limit = n
	case "cursor":
		q.page.Cursor = value
	case "order":
		if value != "asc" && value != "desc" {
			q.fail(name, "must be asc or desc, not %q", value)
		}
		q.page.Asc = value == "asc"
	default:
		q.fail(name, "is not a known parameter; known are status, type, tag, created_after, created_before, limit, cursor, order")
	}
}

// Page is what was asked for, or an *Error that names every bad parameter.
func (q *PageQuery) Page() (Page, error) {
	if len(q.bad) > 0 {
		return Page{}, InvalidFields(q.bad...)
	}
	return q.page, nil
}

func (q *PageQuery) fail(name, format string, args ...any) {
	q.bad = append(q.bad, FieldError{Pointer: q.Where + name, Detail: fmt.Sprintf(format, args...)})
}

func (q *PageQuery) moment(name, value string) Time {
	t, err := ParseMoment(value)
	if err != nil {
		q.fail(name, "%s", err)
	}
	return t
}

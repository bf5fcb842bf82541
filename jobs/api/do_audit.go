package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/form"
)

var auditDoc = form.Doc{
	Summary: "List who did what",
	Text: "The youngest entry comes first. `action` is the operation; submissions (`submit`) are those of the jobs that are there. " +
		"A page may have few entries or none, and still a `next_cursor`. Go on until there is none.",
	Query: queries(auditNames...),
	Answer: form.Object(
		form.Need("entries", form.List(form.Object(
			form.Need("at", form.Moment(), ""),
			form.May("actor", form.Text(), "the token's or subject's name, or anonymous; a bare message has none"),
			form.Need("action", form.Text(), "like cancel"),
			form.May("target", form.Text(), "the job, type or schedule"),
			form.May("detail", form.Text(), "of a submission the type of the job"),
			form.May("refused", form.Bool(), "the actor lacked the right"),
			form.May("count", form.Count(), "how many refusals this entry stands for"),
			form.May("since", form.Moment(), "the first of them"),
		).Named("AuditEntry"), 0, 0), ""),
		form.Need("next_cursor", form.Text(), "of the next page; empty on the last one"),
	).Named("AuditLog"),
}

// auditQuery is the input of GET /audit.
type auditQuery struct {
	actors, actions []string
	page            jobs.Page // of submissions, with the moments and the limit of all
	from            auditPlace
}

// auditPlace is where a page of the audit log begins.
type auditPlace struct {
	log, refusals uint64 // before this entry; 0 = from the end
	jobs          string // the cursor of submissions
	jobsEnded     bool   // there are no more
}

func (p auditPlace) String() string {
	ended := ""
	if p.jobsEnded {
		ended = "-"
	}
	return fmt.Sprintf("%d.%d.%s%s", p.log, p.refusals, ended, p.jobs)
}

func parseAuditPlace(text string) (p auditPlace, ok bool) {
	parts := strings.SplitN(text, ".", 3)
	if len(parts) != 3 {
		return p, false
	}
	var errs [2]error
	p.log, errs[0] = strconv.ParseUint(parts[0], 10, 64)
	p.refusals, errs[1] = strconv.ParseUint(parts[1], 10, 64)
	p.jobs, p.jobsEnded = strings.CutPrefix(parts[2], "-")
	return p, errs == [2]error{}
}

func readAudit(r Request) (q auditQuery, err error) {
	query, err := r.Query()
	if err != nil {
		return q, err
	}
	p := params{known: auditNames}
	if err := p.query(query); err != nil {
		return q, err
	}
	q.actors, q.actions = p.page.CreatedBy, p.actions
	if cursor := p.page.Cursor; cursor != "" {
		ok := false
		if q.from, ok = parseAuditPlace(cursor); !ok {
			return q, jobs.Invalid("query/cursor", "is not a cursor of this list; take next_cursor of the page before")
		}
	}
	q.page = jobs.Page{Limit: p.page.Limit, Filter: jobs.Filter{CreatedBy: q.actors, CreatedAfter: p.page.CreatedAfter, CreatedBefore: p.page.CreatedBefore}}
	if q.page.Limit == 0 {
		q.page.Limit = jobs.DefaultLimit
	}
	return q, nil
}

// wants says whether an entry is one of those that were asked for.
func (q *auditQuery) wants(e *jobs.AuditEntry) bool {
	f := &q.page.Filter
	return (len(q.actors) == 0 || slices.Contains(q.actors, e.Actor)) && (len(q.actions) == 0 || slices.Contains(q.actions, e.Action)) &&
		e.At >= f.CreatedAfter && (f.CreatedBefore == 0 || e.At < f.CreatedBefore)
}

// listAudit merges the log, the refusals, and the submissions in the records of jobs.
func listAudit(ctx context.Context, c Call, q auditQuery) (Answer, error) {
	var log, refusals []jobs.AuditEntry
	err := c.Audit.Audit(false, q.from.log, q.into(&log))
	if err == nil {
		err = c.Audit.Audit(true, q.from.refusals, q.into(&refusals))
	}
	if err != nil {
		return Answer{}, err
	}
	submitted, listing, err := q.submissions(ctx, c, q.page.Limit)
	if err != nil {
		return Answer{}, err
	}
	if listing.Next != "" && len(submitted) < q.page.Limit {
		// Nobody has looked further back. What is older has to wait for its page.
		older := func(e jobs.AuditEntry) bool { return len(submitted) == 0 || e.At < submitted[len(submitted)-1].At }
		log, refusals = slices.DeleteFunc(log, older), slices.DeleteFunc(refusals, older)
	}
	all := slices.Concat(log, refusals, submitted)
	slices.SortStableFunc(all, func(a, b jobs.AuditEntry) int { return int(min(max(b.At-a.At, -1), 1)) })
	more := len(all) > q.page.Limit || listing.Next != ""
	all = all[:min(len(all), q.page.Limit)]

	next, taken := q.from, 0
	for i := range all {
		switch e := &all[i]; {
		case e.Seq == 0:
			taken++
		case e.Refused:
			next.refusals = e.Seq
		default:
			next.log = e.Seq
		}
	}
	switch {
	case taken == len(submitted):
		next.jobs, next.jobsEnded = listing.Next, listing.Next == ""
	case taken > 0:
		if _, listing, err = q.submissions(ctx, c, taken); err != nil {
			return Answer{}, err
		}
		next.jobs = listing.Next
	}
	a := auditPage{entries: all}
	if more || len(log) == q.page.Limit || len(refusals) == q.page.Limit {
		a.next = next.String()
	}
	return Answer{JSON: a}, nil
}

// into gathers the wanted entries, up to the limit.
func (q *auditQuery) into(all *[]jobs.AuditEntry) func(jobs.AuditEntry) bool {
	return func(e jobs.AuditEntry) bool {
		if q.wants(&e) {
			*all = append(*all, e)
		}
		return len(*all) < q.page.Limit && e.At >= q.page.CreatedAfter
	}
}

// submissions are those of the next jobs.
func (q *auditQuery) submissions(ctx context.Context, c Call, limit int) (all []jobs.AuditEntry, l jobs.Listing, err error) {
	if q.from.jobsEnded || len(q.actions) > 0 && !slices.Contains(q.actions, "submit") {
		return nil, l, nil
	}
	page := q.page
	page.Limit, page.Cursor = limit, q.from.jobs
	l, err = c.Reader.List(ctx, page, func(j *jobs.Job) bool {
		all = append(all, jobs.AuditEntry{At: j.CreatedAt, Act: jobs.Act{Actor: j.CreatedBy, Action: "submit", Target: j.ID.String(), Detail: j.Type}})
		return true
	})
	return all, l, err
}

// auditPage is the answer of GET /audit.
type auditPage struct {
	entries []jobs.AuditEntry
	next    string
}

// AppendJSON appends the answer.
func (p auditPage) AppendJSON(b []byte) []byte {
	b = append(b, `{"entries":[`...)
	for i := range p.entries {
		e := &p.entries[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = jobs.AppendValueJSON(append(b, `{"at":`...), &e.At)
		for _, f := range []struct{ name, text string }{{"actor", e.Actor}, {"action", e.Action}, {"target", e.Target}, {"detail", e.Detail}} {
			if f.text != "" {
				b = append(append(append(b, `,"`...), f.name...), `":`...)
				b = jobs.AppendString(b, f.text)
			}
		}
		if e.Refused {
			b = strconv.AppendInt(append(b, `,"refused":true,"count":`...), int64(e.Count), 10)
			b = jobs.AppendValueJSON(append(b, `,"since":`...), &e.Since)
		}
		b = append(b, '}')
	}
	b = jobs.AppendString(append(b, `],"next_cursor":`...), p.next)
	return append(b, '}')
}

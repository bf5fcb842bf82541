package api

import (
	"context"
	"encoding/json"

	"jobstream/jobs"
	"jobstream/jobs/form"
)

var failuresDoc = form.Doc{
	Summary: "List failed jobs in groups",
	Text: "A group has the jobs of one type whose errors differ in numbers and ids only; its `fingerprint` is a filter of lists, counts and `POST /jobs/bulk`. " +
		"The group that has failed last comes first. With `order_by=count` the largest comes first; then there is one page, of the latest 20,000 groups.",
	Query: queries(failureNames...),
	Answer: form.Object(
		form.Need("failures", form.List(form.Object(
			form.Need("fingerprint", fingerprintForm, ""),
			form.Need("type", form.Text(), ""),
			form.Need("error", form.Text(), "without what differs"),
			form.Need("count", form.Count(), "failed jobs that are there"),
			form.Need("permanent", form.Bool(), "no retry can mend any of them, as their errors say"),
			form.Need("first", form.Moment(), "when the first of them failed, a deleted one too while there are others"),
			form.Need("last", form.Moment(), "likewise the last"),
			form.Need("job", form.ID(), "the youngest of them"),
			form.Need("example", form.Text(), "its error"),
		).Named("Failure"), 0, 0), ""),
		form.Need("next_cursor", form.Text(), "of the next page; empty on the last one"),
		form.May("scanned", form.Count(), "groups that were looked at, if there are more"),
	).Named("FailureList"),
}

func readFailures(r Request) (jobs.FailurePage, error) {
	query, err := r.Query()
	if err != nil {
		return jobs.FailurePage{}, err
	}
	p := params{known: failureNames}
	if err := p.query(query); err != nil {
		return jobs.FailurePage{}, err
	}
	if p.byCount && p.page.Cursor != "" {
		return jobs.FailurePage{}, jobs.Invalid("query/cursor", "cannot be given together with order_by=count, which has one page")
	}
	return jobs.FailurePage{Types: p.page.Types, Limit: p.page.Limit, Cursor: p.page.Cursor, ByCount: p.byCount}, nil
}

// failureList is the answer of GET /failures.
type failureList struct {
	Failures []failure `json:"failures"`
	Next     string    `json:"next_cursor"`
	Scanned  int       `json:"scanned,omitempty"`
}

// failure is a group of it.
type failure struct {
	Fingerprint string  `json:"fingerprint"`
	Type        string  `json:"type"`
	Error       string  `json:"error"`
	Count       int     `json:"count"`
	Permanent   bool    `json:"permanent"`
	First       string  `json:"first"`
	Last        string  `json:"last"`
	Job         jobs.ID `json:"job"`
	Example     string  `json:"example"`
}

// AppendJSON appends the answer.
func (l *failureList) AppendJSON(b []byte) []byte {
	out, err := json.Marshal(l)
	if err != nil {
		panic(err) // texts and numbers always marshal
	}
	return append(b, out...)
}

func listFailures(ctx context.Context, c Call, p jobs.FailurePage) (Answer, error) {
	found, err := c.Reader.Failures(ctx, p)
	if err != nil {
		return Answer{}, err
	}
	l := &failureList{Failures: make([]failure, 0, len(found.Failures)), Next: found.Next}
	if found.Cut || found.Next != "" {
		l.Scanned = found.Scanned
	}
	for i := range found.Failures {
		g := &found.Failures[i]
		f := failure{
			Fingerprint: g.Fingerprint, Type: g.Type, Error: g.Error, Count: g.Count, Permanent: g.Permanent == g.Count,
			First: g.First.String(), Last: g.Last.String(),
		}
		if g.Example != nil {
			f.Job, f.Example = g.Example.ID, g.Example.Error
		}
		l.Failures = append(l.Failures, f)
	}
	return Answer{JSON: l}, nil
}

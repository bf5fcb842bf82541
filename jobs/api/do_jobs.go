package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/form"
	"jobstream/jobs/strict"
)

var listDoc = form.Doc{
	Summary: "List jobs",
	Text: "Status, type, tag and creation are indexed. The other filters read a bounded number of records per request: " +
		"a page may have few jobs or none, and still a `next_cursor`. Go on until there is none.",
	Query: queries(listNames...),
	Answer: form.Object(
		form.Need("jobs", form.List(jobForm, 0, 0), ""),
		form.Need("next_cursor", form.Text(), "of the next page; empty on the last one"),
		form.May("scanned", form.Count(), "records that were read for this page"),
	).Named("JobList"),
}

func readListQuery(r Request) (jobs.Page, error) {
	query, err := r.Query()
	if err != nil || query == nil {
		return jobs.Page{}, err
	}
	return ParseListQuery(query)
}

func readListBody(r Request) (jobs.Page, error) {
	body, err := r.Body()
	if err != nil {
		return jobs.Page{}, err
	}
	return ParseListRequest(body)
}

func list(_ context.Context, c Call, p jobs.Page) (Answer, error) {
	if c.Caller.need(access.Read) != nil {
		if len(p.CreatedBy) > 0 && !slices.Equal(p.CreatedBy, []string{c.Caller.Name}) {
			return Answer{}, c.Caller.forbidden("the jobs of others need the scope %s", access.Read)
		}
		p.CreatedBy = []string{c.Caller.Name}
	}
	return Answer{List: &List{Page: p, from: c.Reader}}, nil
}

var countsDoc = form.Doc{
	Summary: "Count jobs by status and type",
	Query:   queries(countNames...),
	Answer:  form.Object(append(statusCounts(), form.Need("types", form.Map(form.Object(statusCounts()...)), "the types that have jobs"))...).Named("Counts"),
}

// statusCounts are the fields of [jobs.Counts].
func statusCounts() []form.Field {
	all := []form.Field{form.Need("total", form.Count(), "")}
	for _, name := range jobs.StatusNames() {
		all = append(all, form.Need(name, form.Count(), ""))
	}
	return all
}

func readCountsQuery(r Request) (jobs.Filter, error) {
	query, err := r.Query()
	if err != nil {
		return jobs.Filter{}, err
	}
	return ParseCountsQuery(query)
}

func readCountsBody(r Request) (jobs.Filter, error) {
	body, err := r.Body()
	if err != nil {
		return jobs.Filter{}, err
	}
	return ParseCountsRequest(body)
}

func count(ctx context.Context, c Call, f jobs.Filter) (Answer, error) {
	found, err := c.Reader.Counts(ctx, f)
	return Answer{JSON: &found}, err
}

// ofJob is the input of operations on one job.
type ofJob struct {
	JobRequest
	ref string // its name in the path; "" over NATS
}

// name is the name of the job in the request.
func (q *ofJob) name() string {
	switch {
	case q.ref != "":
		return q.ref
	case q.Seq != 0:
		return fmt.Sprint(q.Seq)
	}
	return q.ID.String()
}

// readPathID reads the name of a job in the path.
func readPathID(r Request) (q ofJob, err error) {
	q.ref = r.Param("id")
	q.ID, q.Seq, err = ParseRefText(q.ref)
	return q, err
}

func readJobPath(r Request) (ofJob, error) {
	if err := noQuery(r); err != nil {
		return ofJob{}, err
	}
	return readPathID(r)
}

func readJobPathOnly(r Request) (ofJob, error) {
	if err := pathOnly(r); err != nil {
		return ofJob{}, err
	}
	return readPathID(r)
}

func readJobBody(r Request) (q ofJob, err error) {
	body, err := r.Body()
	if err == nil {
		q.ID, q.Seq, err = ParseRef(body)
	}
	return q, err
}

func readGetPath(r Request) (q ofJob, err error) {
	query, err := r.Query()
	if err != nil {
		return q, err
	}
	var wait time.Duration
	if query != nil {
		if wait, err = ParseWaitQuery(query); err != nil {
			return q, err
		}
	}
	q, err = readPathID(r)
	q.Wait = wait
	return q, err
}

func readGetBody(r Request) (q ofJob, err error) {
	body, err := r.Body()
	if err == nil {
		q.JobRequest, err = ParseGetRequest(body)
	}
	return q, err
}

func readCancelPath(r Request) (ofJob, error) {
	body, err := bodyOnly(r)
	if err != nil {
		return ofJob{}, err
	}
	reason, err := ParseCancel(body)
	if err != nil {
		return ofJob{}, err
	}
	q, err := readPathID(r)
	q.Reason = reason
	return q, err
}

func readCancelBody(r Request) (q ofJob, err error) {
	body, err := r.Body()
	if err == nil {
		q.JobRequest, err = ParseCancelRequest(body)
	}
	return q, err
}

// find finds the job of a request.
func (c Call) find(ctx context.Context, q ofJob) (j *jobs.Job, err error) {
	if q.Seq != 0 {
		j, err = c.Reader.JobBySeq(ctx, q.Seq)
	} else {
		j, err = c.Reader.Job(ctx, q.ID)
	}
	if err == nil && j == nil {
		err = jobs.NoSuchJob(q.name())
	}
	if err == nil {
		jobs.About(ctx, j.ID.String())
	}
	return j, err
}

var getDoc = form.Doc{
	Summary: "Look at a job",
	Text:    "With `wait` the answer comes when the job has ended, or after that time with its state then.",
	Query:   queries("wait"),
	Answer:  jobForm,
}

func get(ctx context.Context, c Call, q ofJob) (Answer, error) {
	j, err := c.look(ctx, q)
	if err == nil && q.Wait > 0 && !j.Status.Ended() {
		j, err = c.await(ctx, j.ID, q.Wait)
	}
	if err != nil {
		return Answer{}, err
	}
	return Answer{JSON: job{j, c.Reader.Waiting(j)}}, nil
}

// events is the answer with the history of a job.
type events struct {
	*jobs.Job
	after, limit int
}

func (e events) AppendJSON(b []byte) []byte { return e.AppendEventsJSON(b, e.after, e.limit) }

var historyDoc = form.Doc{
	Summary: "List what has happened to a job",
	Text:    "The oldest event comes first.",
	Query:   queries(historyPageNames...),
	Answer: form.Object(form.Need("events", form.List(form.Object(
		form.Need("seq", form.Count(), "counts from 1"),
		form.Need("kind", form.Text(), "like started"),
		form.Need("at", form.Moment(), ""),
		form.Need("attempt", form.Count(), ""),
		form.May("progress", form.Whole(0, 100), ""),
		form.May("message", form.Text(), ""),
		form.May("error", form.Text(), ""),
		form.May("run_at", form.Moment(), "when it is to go on"),
		form.May("node", form.Text(), "who was at it"),
		form.May("actor", form.Text(), "who has done it by a request"),
	).Named("Event"), 0, 0), ""), form.Need("next_cursor", form.Text(), "of the next page; empty on the last one")),
}

var historyPageNames = []string{"limit", "cursor"}

// ofHistoryPage is the input of the operation history.
type ofHistoryPage struct {
	ofJob
	limit, after int
}

func readHistoryPage(r Request) (q ofHistoryPage, err error) {
	query, err := r.Query()
	if err != nil {
		return q, err
	}
	p := params{known: historyPageNames}
	if err := p.query(query); err != nil {
		return q, err
	}
	if q.limit = p.page.Limit; q.limit == 0 {
		q.limit = jobs.MaxHistory
	}
	if c := p.page.Cursor; c != "" {
		if q.after, err = strict.Int([]byte(c), 1, jobs.MaxHistory); err != nil {
			return q, jobs.Invalid("query/cursor", "is not a cursor of this list; take next_cursor of the page before")
		}
	}
	q.ofJob, err = readPathID(r)
	return q, err
}

func history(ctx context.Context, c Call, q ofHistoryPage) (Answer, error) {
	j, err := c.look(ctx, q.ofJob)
	return Answer{JSON: events{j, q.after, q.limit}}, err
}

var cancelDoc = form.Doc{
	Summary:  "Cancel a job",
	Text:     "A waiting job never starts; a running job is interrupted.",
	Body:     form.Object(form.May("reason", reasonForm, "stands in the job's error")),
	Optional: true,
	Example:  `{"reason":"ordered twice"}`,
	Answer:   jobForm,
	Codes:    []jobs.ErrorKind{jobs.Conflict},
}

func cancel(ctx context.Context, c Call, q ofJob) (Answer, error) {
	j, err := c.find(ctx, q)
	if err == nil {
		j, err = c.Changer.Cancel(ctx, c.Caller.Name, j, q.Reason)
	}
	return Answer{JSON: job{Job: j}}, err
}

var retryDoc = form.Doc{
	Summary: "Run a failed or cancelled job again",
	Text:    "It runs under its id, with fresh attempts. History and errors stay.",
	Answer:  jobForm,
	Codes:   []jobs.ErrorKind{jobs.Conflict, jobs.Duplicate, jobs.UnknownType},
}

func retry(ctx context.Context, c Call, q ofJob) (Answer, error) {
	j, err := c.find(ctx, q)
	if err == nil {
		j, err = c.Changer.Retry(ctx, c.Caller.Name, j)
	}
	return Answer{JSON: job{Job: j}}, err
}

var deleteDoc = form.Doc{
	Summary: "Delete a job that has ended, with its files",
	Codes:   []jobs.ErrorKind{jobs.Conflict},
}

func remove(ctx context.Context, c Call, q ofJob) (Answer, error) {
	j, err := c.find(ctx, q)
	if err == nil {
		err = c.Changer.Delete(ctx, j)
	}
	return Answer{}, err
}

package api

import (
	"context"
	"fmt"
	"time"

	"jobstream/jobs"
)

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
	return Answer{List: &List{Page: p, from: c.Reader}}, nil
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
	return j, err
}

func get(ctx context.Context, c Call, q ofJob) (Answer, error) {
	j, err := c.find(ctx, q)
	if err == nil && q.Wait > 0 && !j.Status.Ended() {
		j, err = c.await(ctx, j.ID, q.Wait)
	}
	if err != nil {
		return Answer{}, err
	}
	return Answer{JSON: job{j, c.Reader.Waiting(j)}}, nil
}

// events is the answer with the history of a job.
type events struct{ *jobs.Job }

func (e events) AppendJSON(b []byte) []byte { return e.AppendEventsJSON(b) }

func history(ctx context.Context, c Call, q ofJob) (Answer, error) {
	j, err := c.find(ctx, q)
	return Answer{JSON: events{j}}, err
}

func cancel(ctx context.Context, c Call, q ofJob) (Answer, error) {
	j, err := c.find(ctx, q)
	if err == nil {
		j, err = c.Changer.Cancel(ctx, c.Caller.Name, j, q.Reason)
	}
	return Answer{JSON: job{Job: j}}, err
}

func retry(ctx context.Context, c Call, q ofJob) (Answer, error) {
	j, err := c.find(ctx, q)
	if err == nil {
		j, err = c.Changer.Retry(ctx, c.Caller.Name, j)
	}
	return Answer{JSON: job{Job: j}}, err
}

func remove(ctx context.Context, c Call, q ofJob) (Answer, error) {
	j, err := c.find(ctx, q)
	if err == nil {
		err = c.Changer.Delete(ctx, j)
	}
	return Answer{}, err
}

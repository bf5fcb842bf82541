package api

import (
	"context"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/form"
	"jobstream/jobs/joblog"
)

// maxFollow is how long one request may follow a log.
const maxFollow = 24 * time.Hour

// ofLog is the input of the operation log.
type ofLog struct {
	ofJob
	joblog.Query
	follow bool // until the job ends
	ndjson bool
}

var logDoc = form.Doc{
	Summary: "Read the log of a job",
	Text:    "One line per entry: the moment, the attempt, the level or stream, the text. `Accept: application/x-ndjson` gives a JSON object per line.",
	Query:   queries(logNames...),
	Answer:  form.Content{"text/plain", "application/x-ndjson"},
}

var logNames = []string{"attempt", "tail", "follow"}

func readLogPath(r Request) (q ofLog, err error) {
	values, err := r.Query()
	if err != nil {
		return q, err
	}
	p := params{known: logNames}
	if err := p.query(values); err != nil {
		return q, err
	}
	q.Query, q.follow = p.log, p.follow
	for _, accepted := range r.Header("Accept") {
		q.ndjson = q.ndjson || strings.Contains(accepted, "application/x-ndjson")
	}
	q.ofJob, err = readPathID(r)
	return q, err
}

// readLog is the answer with the log of a job.
func readLog(ctx context.Context, c Call, q ofLog) (Answer, error) {
	j, err := c.look(ctx, q.ofJob)
	if err != nil {
		return Answer{}, err
	}
	l := &Log{NDJSON: q.ndjson}
	if !q.follow || j.Status.Ended() {
		all, err := c.Logs.Read(ctx, j.ID, q.Query)
		l.read = func(_ context.Context, yield func(*joblog.Entry) error) error {
			for i := range all {
				if err := yield(&all[i]); err != nil {
					return err
				}
			}
			return nil
		}
		return Answer{Log: l}, err
	}
	following, done, err := c.door.Wait(ctx, maxFollow)
	if err != nil {
		return Answer{}, err
	}
	l.read = func(reading context.Context, yield func(*joblog.Entry) error) error {
		defer done()
		defer context.AfterFunc(reading, done)()
		return c.follow(following, j.ID, q.Query, yield)
	}
	return Answer{Log: l}, nil
}

// follow reads a log until its job has ended, or the server stops or is started anew:
// then the entries of the job are no longer written to this log.
func (c Call) follow(ctx context.Context, id jobs.ID, q joblog.Query, yield func(*joblog.Entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	ended, waited := make(chan struct{}), make(chan struct{})
	defer func() { cancel(); <-waited }()
	go func() {
		defer close(waited)
		if j, err := c.Reader.Wait(ctx, id); err == nil && (j == nil || j.Status.Ended()) {
			close(ended)
			return
		}
		cancel()
	}()
	err := c.Logs.Follow(ctx, id, q, ended, yield)
	if ctx.Err() != nil {
		return nil // the time is over, or the server stops: what was sent is right
	}
	return err
}

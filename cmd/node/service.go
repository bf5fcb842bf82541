package node

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

// Endpoints are the requests of the NATS service: the same as REST, by the same
// checks.
func (b *Backend) Endpoints() []broker.Endpoint {
	return []broker.Endpoint{
		{Name: "submit", Handle: b.serveSubmit},
		{Name: "batch", Handle: b.serveBatch},
		{Name: "run", Handle: b.serveRun},
		{Name: "get", Handle: b.serveGet},
		{Name: "list", Handle: b.serveList},
		{Name: "counts", Handle: b.serveCounts},
		{Name: "cancel", Handle: b.serveCancel},
		{Name: "retry", Handle: b.serveRetry},
		{Name: "delete", Handle: b.serveDelete},
		{Name: "stats", Handle: b.serveStats},
		{Name: "pause", Handle: func(ctx context.Context, r *broker.Request) ([]byte, error) { return b.servePause(ctx, r, true) }},
		{Name: "resume", Handle: func(ctx context.Context, r *broker.Request) ([]byte, error) { return b.servePause(ctx, r, false) }},
	}
}

func (b *Backend) serveSubmit(ctx context.Context, r *broker.Request) ([]byte, error) {
	j, err := b.submitted(ctx, r)
	if err != nil {
		return nil, err
	}
	return oneJob(r, j, nil), nil
}

// oneJob is the answer of a request with one job; w is what that waits for, if anything.
func oneJob(r *broker.Request, j *jobs.Job, w *jobs.Waiting) (out []byte) {
	out, r.Omitted = j.AppendFitting(make([]byte, 0, 640+min(len(j.Payload)+len(j.Result), r.MaxAnswer)), w, r.MaxAnswer)
	return out
}

// submitted takes the job of a request.
func (b *Backend) submitted(ctx context.Context, r *broker.Request) (*jobs.Job, error) {
	s, err := api.ParseSubmission(r.Body)
	if err != nil {
		return nil, err
	}
	if s.Token, err = token(r); err != nil {
		return nil, err
	}
	j, _, err := b.Submit(ctx, s)
	return j, err
}

// token is that of a request's idempotency key, nil if it has none.
func token(r *broker.Request) (*jobs.Token, error) {
	keys := r.Header("Idempotency-Key")
	if err := api.CheckIdempotencyKey(keys); err != nil || len(keys) == 0 {
		return nil, err
	}
	return jobs.NewToken("service", keys[0], r.Body), nil
}

func (b *Backend) serveBatch(ctx context.Context, r *broker.Request) ([]byte, error) {
	subs, err := api.ParseBatch(r.Body)
	if err != nil {
		return nil, err
	}
	t, err := token(r)
	if err != nil {
		return nil, err
	}
	made, _, err := b.SubmitBatch(ctx, subs, t)
	if err != nil {
		return nil, err
	}
	out := api.AppendJobsJSON(nil, made)
	if len(out) <= r.MaxAnswer {
		return out, nil
	}
	r.Omitted = "payload" // the client has sent them
	short := make([]*jobs.Job, len(made))
	for i, j := range made {
		short[i] = j.Clone()
		short[i].Payload = nil
	}
	return api.AppendJobsJSON(out[:0], short), nil
}

// actor is who asks for what comes in here, see [jobs.Stamp]. Nobody has to log in.
const actor = "nats"

// maxRun is how long jobstream.run waits for the end of its job.
const maxRun = 5 * time.Minute

// serveRun takes a job and answers when it has ended; after five minutes, or when
// the server stops, with the job as it is.
func (b *Backend) serveRun(ctx context.Context, r *broker.Request) ([]byte, error) {
	j, err := b.submitted(ctx, r)
	if err != nil {
		return nil, err
	}
	// The job is there, whatever comes now: an error would make the client submit it
	// again.
	if now, err := b.serveWait(ctx, r, j, maxRun); err == nil {
		j = now
	}
	return oneJob(r, j, nil), nil
}

// serveWait waits until the job has ended, but not longer than d.
func (b *Backend) serveWait(ctx context.Context, r *broker.Request, j *jobs.Job, d time.Duration) (*jobs.Job, error) {
	if j.Status.Ended() || d == 0 {
		return j, nil
	}
	if err := r.Wait(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	now, err := b.Wait(ctx, j.ID)
	if err == nil && now == nil {
		err = jobs.NoSuchJob(j.ID.String())
	}
	return now, err
}

func (b *Backend) serveGet(ctx context.Context, r *broker.Request) ([]byte, error) {
	q, err := api.ParseGetRequest(r.Body)
	if err != nil {
		return nil, err
	}
	j, err := b.lookup(ctx, q.ID, q.Seq)
	if err == nil {
		j, err = b.serveWait(ctx, r, j, q.Wait)
	}
	if err != nil {
		return nil, err
	}
	return oneJob(r, j, b.Waiting(j)), nil
}

// lookup finds a job by its id, or by its sequence if that is not 0.
func (b *Backend) lookup(ctx context.Context, id jobs.ID, seq uint64) (j *jobs.Job, err error) {
	if seq != 0 {
		j, err = b.JobBySeq(ctx, seq)
	} else {
		j, err = b.Job(ctx, id)
	}
	if err == nil && j == nil {
		err = jobs.NoSuchJob(ref(id, seq))
	}
	return j, err
}

// ref is what a request named a job by.
func ref(id jobs.ID, seq uint64) string {
	if seq != 0 {
		return strconv.FormatUint(seq, 10)
	}
	return id.String()
}

// listEnd is room for what stands behind the jobs of a list.
const listEnd = 128

func (b *Backend) serveList(ctx context.Context, r *broker.Request) ([]byte, error) {
	page, err := api.ParseListRequest(r.Body)
	if err != nil {
		return nil, err
	}
	out, most := []byte(api.OpenListing), min(r.MaxAnswer, jobs.MaxPageBytes)-listEnd
	first := true
	found, err := b.List(ctx, page, func(j *jobs.Job) bool {
		if first {
			first = false
			out, r.Omitted = j.AppendFitting(out, nil, most-len(out))
			return true
		}
		if r.Omitted != "" {
			return false // it has a page for itself, so that it is clear whose fields are missing
		}
		before := len(out)
		if out = j.AppendJSON(append(out, ',')); len(out) > most {
			out = out[:before]
			return false
		}
		return true
	})
	if err != nil {
		return nil, inBody(err)
	}
	return api.AppendListEnd(out, &found), nil
}

func (b *Backend) serveCounts(ctx context.Context, r *broker.Request) ([]byte, error) {
	filter, err := api.ParseCountsRequest(r.Body)
	if err != nil {
		return nil, err
	}
	found, err := b.Counts(ctx, filter)
	if err != nil {
		return nil, err
	}
	return found.AppendJSON(nil), nil
}

func (b *Backend) serveCancel(ctx context.Context, r *broker.Request) ([]byte, error) {
	q, err := api.ParseCancelRequest(r.Body)
	if err != nil {
		return nil, err
	}
	j, err := b.lookup(ctx, q.ID, q.Seq)
	if err == nil {
		j, err = b.Cancel(ctx, actor, j, q.Reason)
	}
	if err != nil {
		return nil, err
	}
	return oneJob(r, j, nil), nil
}

// serveNamed looks up the job that a request with an id only is about.
func (b *Backend) serveNamed(ctx context.Context, r *broker.Request) (*jobs.Job, error) {
	id, seq, err := api.ParseRef(r.Body)
	if err != nil {
		return nil, err
	}
	return b.lookup(ctx, id, seq)
}

func (b *Backend) serveRetry(ctx context.Context, r *broker.Request) ([]byte, error) {
	j, err := b.serveNamed(ctx, r)
	if err == nil {
		j, err = b.Retry(ctx, actor, j)
	}
	if err != nil {
		return nil, err
	}
	return oneJob(r, j, nil), nil
}

func (b *Backend) serveDelete(ctx context.Context, r *broker.Request) ([]byte, error) {
	j, err := b.serveNamed(ctx, r)
	if err == nil {
		err = b.Delete(ctx, j)
	}
	if err != nil {
		return nil, err
	}
	return []byte("{}"), nil
}

func (b *Backend) serveStats(ctx context.Context, _ *broker.Request) ([]byte, error) {
	st, err := b.Stats(ctx)
	if err != nil {
		return nil, err
	}
	return st.AppendJSON(nil), nil
}

func (b *Backend) servePause(ctx context.Context, r *broker.Request, paused bool) ([]byte, error) {
	name, err := api.ParseTypeRequest(r.Body)
	if err != nil {
		return nil, err
	}
	t, err := b.SetPaused(ctx, actor, name, paused)
	if err != nil {
		return nil, err
	}
	return t.AppendJSON(nil), nil
}

// inBody names a list's parameters where a request of the service has them.
func inBody(err error) error {
	var e *jobs.Error
	if !errors.As(err, &e) {
		return err
	}
	moved := *e
	moved.Fields = slices.Clone(e.Fields)
	for i := range moved.Fields {
		moved.Fields[i].Pointer = "/" + strings.TrimPrefix(moved.Fields[i].Pointer, "query/")
	}
	return &moved
}

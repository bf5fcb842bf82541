package httpapi_test

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"testing"

	"jobstream/httpapi"
	"jobstream/jobs"
)

// backend is a Backend in memory. It admits, finds and lists for real; jobs
// just never run.
type backend struct {
	reg *jobs.Registry

	mu       sync.Mutex
	all      []*jobs.Job // all[i] has the sequence i+1
	err      error       // what every method returns, unless nil
	entered  chan struct{}
	release  chan struct{} // Submit waits for it, unless nil
	workers  int
	resizes  []jobs.Resize
	lastPage jobs.Page
}

// picky is a handler whose payloads need a "to".
type picky struct{ jobs.HandlerFunc }

func (picky) Check(payload json.RawMessage) error {
	var p struct{ To string }
	if json.Unmarshal(payload, &p) != nil || p.To == "" {
		return jobs.Invalid("/payload/to", "is required")
	}
	return nil
}

func newBackend() *backend {
	nothing := jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })
	return &backend{
		reg: jobs.NewRegistry(
			&jobs.Type{Name: "email", Handler: picky{nothing}, RetryCount: 3},
			&jobs.Type{Name: "cleanup", Handler: nothing},
		),
		workers: 10,
	}
}

func (b *backend) Submit(ctx context.Context, s *jobs.Submission) (*jobs.Job, error) {
	if b.release != nil {
		b.entered <- struct{}{}
		select {
		case <-b.release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := b.reg.Check(s); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return nil, b.err
	}
	m := &jobs.Message{
		Seq: uint64(len(b.all) + 1), At: jobs.Now(), ID: jobs.NewID(), Type: s.Type, Priority: s.Priority,
		Payload: s.Payload, Tags: s.Tags, RetryCount: s.RetryCount, Timeout: s.Timeout,
	}
	j := jobs.NewJob(m, b.reg.Lookup(s.Type), true)
	b.all = append(b.all, j)
	return j, nil
}

func (b *backend) find(match func(*jobs.Job) bool) (*jobs.Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.IndexFunc(b.all, match); i >= 0 && b.err == nil {
		return b.all[i], nil
	}
	return nil, b.err
}

func (b *backend) Job(_ context.Context, id jobs.ID) (*jobs.Job, error) {
	return b.find(func(j *jobs.Job) bool { return j.ID == id })
}

func (b *backend) JobBySeq(_ context.Context, seq uint64) (*jobs.Job, error) {
	return b.find(func(j *jobs.Job) bool { return j.Seq == seq })
}

func (b *backend) List(_ context.Context, p jobs.Page) (found []*jobs.Job, next string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastPage = p
	after := uint64(0)
	if p.Cursor != "" {
		if after, err = strconv.ParseUint(p.Cursor, 10, 64); err != nil {
			return nil, "", jobs.Invalid("query/cursor", "is not a cursor")
		}
	}
	limit := p.Limit
	if limit == 0 {
		limit = jobs.DefaultLimit
	}
	for _, j := range b.all {
		if j.Seq <= after || !p.Match(j) {
			continue
		}
		if len(found) == limit {
			return found, strconv.FormatUint(found[limit-1].Seq, 10), b.err
		}
		found = append(found, j)
	}
	return found, "", b.err
}

func (b *backend) Stats(context.Context) (jobs.Stats, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return jobs.Stats{MaxWorkers: b.workers, QueuedJobs: len(b.all)}, b.err
}

func (b *backend) Resize(ctx context.Context, r jobs.Resize) (jobs.Stats, error) {
	if err := b.reg.CheckResize(&r); err != nil {
		return jobs.Stats{}, err
	}
	b.mu.Lock()
	b.resizes = append(b.resizes, r)
	if r.MaxWorkers != nil {
		b.workers = *r.MaxWorkers
	}
	b.mu.Unlock()
	return b.Stats(ctx)
}

// put adds a job that was made elsewhere.
func (b *backend) put(j *jobs.Job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j.Seq = uint64(len(b.all) + 1)
	j.Key = j.Seq
	b.all = append(b.all, j)
}

func (b *backend) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// health is a Health that says what it is told.
type health map[string]error

func (h health) Check(context.Context) map[string]error { return h }

var _ httpapi.Backend = (*backend)(nil)

// submit adds a job the usual way.
func (b *backend) submit(t *testing.T, body string) *jobs.Job {
	t.Helper()
	s, err := jobs.ParseSubmission([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	j, err := b.Submit(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

package httpapi_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/api"
	"jobstream/jobs/changes"
	"jobstream/jobs/figures"
	"jobstream/jobs/intake"
)

// backend is an api.Backend in memory. It admits, finds, lists and changes jobs for
// real; they just never run.
type backend struct {
	*api.Operator
	reg     *jobs.Registry
	endings *intake.Waits

	mu       sync.Mutex
	all      []*jobs.Job // all[i] has the sequence i+1
	err      error       // what every method returns, unless nil
	entered  chan struct{}
	release  chan struct{} // Submit waits for it, unless nil
	workers  int
	resizes  []jobs.Resize
	lastPage jobs.Page
	tokens   map[[16]byte]made
	waiting  map[jobs.ID]*jobs.Waiting
	waits    chan struct{} // gets a token for every Wait, unless nil
	paused   map[string]bool
}

// made is what a token stands for.
type made struct {
	body [16]byte
	jobs []*jobs.Job
}

// picky is a handler whose payloads need a "to".
type picky struct{ jobs.HandlerFunc }

func (picky) Check(p *jobs.Payload) error {
	var read struct{ To string }
	if json.Unmarshal(p.JSON, &read) != nil || read.To == "" {
		return jobs.Invalid("/payload/to", "is required")
	}
	return nil
}

func newBackend() *backend {
	nothing := jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })
	b := &backend{
		reg: jobs.NewRegistry(
			&jobs.Type{Name: "email", Handler: picky{nothing}, RetryCount: 3},
			&jobs.Type{Name: "cleanup", Handler: nothing},
			&jobs.Type{Name: api.BulkType, Handler: nothing, Internal: true},
		),
		endings: intake.NewWaits(), workers: 10,
		tokens: make(map[[16]byte]made), waiting: make(map[jobs.ID]*jobs.Waiting), paused: make(map[string]bool),
	}
	b.Operator = api.NewOperator(api.OperatorOptions{
		Doer: byHand{b}, History: byHand{b}, Find: b.Job, Remove: b.remove, Waits: b.endings,
		Pin: func(*jobs.Job) (func(), bool) { return func() {}, true },
		Submit: func(_ context.Context, m *jobs.Message) (*jobs.Job, bool, error) {
			all, replayed, err := b.store(m.Token, m)
			if err != nil {
				return nil, false, err
			}
			return all[0], replayed, nil
		},
	})
	return b
}

func (b *backend) Submit(ctx context.Context, s *jobs.Submission) (*jobs.Job, bool, error) {
	if b.release != nil {
		b.entered <- struct{}{}
		select {
		case <-b.release:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	if err := b.reg.Check(s); err != nil {
		return nil, false, err
	}
	all, replayed, err := b.store(s.Token, message(s))
	if err != nil {
		return nil, false, err
	}
	return all[0], replayed, nil
}

func (b *backend) Check(s *jobs.Submission) error { return b.reg.Check(s) }

func (b *backend) Needs(string) access.Scope { return "" }

func (b *backend) Targets(typ string, _ json.RawMessage) []string { return []string{typ} }

func (b *backend) SubmitBatch(_ context.Context, subs []*jobs.Submission, token *jobs.Token) ([]*jobs.Job, bool, error) {
	if err := b.reg.CheckBatch(subs); err != nil {
		return nil, false, err
	}
	var all []*jobs.Message
	for _, s := range subs {
		all = append(all, message(s))
	}
	return b.store(token, all...)
}

func message(s *jobs.Submission) *jobs.Message {
	return &jobs.Message{
		ID: jobs.NewID(), Type: s.Type, Priority: s.Priority,
		Payload: s.Payload, Tags: s.Tags, RetryCount: s.RetryCount, Timeout: s.Timeout, Terms: s.Terms,
	}
}

// store makes jobs of messages, by the rules of tokens and unique keys.
func (b *backend) store(token *jobs.Token, all ...*jobs.Message) (list []*jobs.Job, replayed bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return nil, false, b.err
	}
	if token != nil {
		if known, ok := b.tokens[token.Key]; ok && known.body != token.Body {
			return nil, false, &jobs.Error{Kind: jobs.IdempotencyMismatch, Detail: "the key has another body"}
		} else if ok {
			return known.jobs, true, nil
		}
	}
	for _, m := range all {
		if err := b.taken(m); err != nil {
			return nil, false, err
		}
		m.Seq, m.At = uint64(len(b.all)+1), jobs.Now()
		j := jobs.NewJob(m, b.reg.Lookup(m.Type), true)
		b.all = append(b.all, j)
		list = append(list, j)
	}
	if token != nil {
		b.tokens[token.Key] = made{token.Body, list}
	}
	return list, false, nil
}

func (b *backend) taken(m *jobs.Message) error {
	for _, j := range b.all {
		if m.Terms != nil && j.Terms != nil && m.Terms.UniqueKey != "" && m.Terms.UniqueKey == j.Terms.UniqueKey && !j.Status.Ended() {
			return &jobs.Error{Kind: jobs.Duplicate, Detail: "the unique key is taken", JobID: j.ID}
		}
	}
	return nil
}

// Wait waits for the end of a job.
func (b *backend) Wait(ctx context.Context, id jobs.ID) (*jobs.Job, error) {
	if b.waits != nil {
		b.waits <- struct{}{}
	}
	return b.endings.Wait(ctx, id, intake.Ended, func() (*jobs.Job, error) { return b.Job(context.WithoutCancel(ctx), id) })
}

func (b *backend) Waiting(j *jobs.Job) *jobs.Waiting {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting[j.ID]
}

// become replaces a job by one that f has changed.
func (b *backend) become(j *jobs.Job, f func(j *jobs.Job)) *jobs.Job {
	b.mu.Lock()
	defer b.mu.Unlock()
	j = j.Clone()
	f(j)
	b.all[j.Key-1] = j
	if j.Status.Ended() {
		b.endings.Committed(&jobs.Commit{Changes: []jobs.Change{{After: j}}})
	}
	return j
}

// end ends a job; kind is one that does.
func (b *backend) end(j *jobs.Job, kind jobs.Kind, text string) *jobs.Job {
	return b.become(j, func(j *jobs.Job) {
		jobs.Apply(j, &jobs.Event{Kind: kind, Run: j.Run, Attempt: max(j.Attempt, 1), At: jobs.Now(), Error: text})
	})
}

// byHand is the backend as the tracker under an operator.
type byHand struct{ *backend }

func (b byHand) byKeys(keys []uint64) (list []*jobs.Job, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.all {
		if slices.Contains(keys, j.Key) {
			list = append(list, j)
		}
	}
	return list, b.err
}

func (b byHand) Do(_ context.Context, c jobs.Command) (jobs.Effect, error) {
	switch c := c.(type) {
	case jobs.Cancel:
		return b.cancel(c)
	case jobs.Retry:
		return b.retry(c)
	}
	return jobs.Effect{}, fmt.Errorf("%T is not known here", c)
}

func (b byHand) cancel(c jobs.Cancel) (r jobs.Effect, err error) {
	list, err := b.byKeys(c.Keys)
	for _, j := range list {
		r.Changed = append(r.Changed, b.end(j, jobs.KindCancelled, c.Reason))
	}
	return r, err
}

func (b byHand) retry(c jobs.Retry) (r jobs.Effect, err error) {
	list, err := b.byKeys(c.Keys)
	for _, j := range list {
		if err := b.taken(&jobs.Message{Terms: j.Terms}); err != nil {
			wrong, _ := jobs.AsError(err)
			r.Refused = append(r.Refused, jobs.Refusal{ID: j.ID, Err: wrong})
			continue
		}
		r.Changed = append(r.Changed, b.become(j, func(j *jobs.Job) {
			j.Rerun(c.At)
			j.Enqueue(j.Key, jobs.Now())
		}))
	}
	return r, err
}

func (b byHand) Count(f jobs.Filter) (n int, err error) {
	err = b.Scan(context.Background(), f, func(*jobs.Job) error { n++; return nil })
	return n, err
}

func (b byHand) Scan(_ context.Context, f jobs.Filter, yield func(*jobs.Job) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.all {
		if f.Match(j) {
			if err := yield(j); err != nil {
				return err
			}
		}
	}
	return b.err
}

// remove leaves a gap that no id leads to.
func (b *backend) remove(_ context.Context, ended []*jobs.Job) (deleted int, freed int64, err error) {
	for _, j := range ended {
		b.become(j, func(j *jobs.Job) { *j = jobs.Job{Key: j.Key} })
		deleted++
	}
	return deleted, 0, nil
}

func (b *backend) Disabled(context.Context) ([]jobs.DisabledURL, error) { return nil, b.err }

func (b *backend) Counts(ctx context.Context, f jobs.Filter) (c jobs.Counts, err error) {
	err = byHand{b}.Scan(ctx, f, func(j *jobs.Job) error { c.Add(j.Type, j.Status, 1); return nil })
	return c, err
}

func (b *backend) Types(ctx context.Context) (all []api.TypeInfo, err error) {
	for _, name := range b.reg.Names() {
		t, err := b.Type(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, *t)
	}
	return all, nil
}

func (b *backend) Type(_ context.Context, name string) (*api.TypeInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.reg.Lookup(name)
	if b.err != nil || t == nil || t.Internal {
		return nil, cmp.Or[error](b.err, jobs.NoSuchType(name))
	}
	return &api.TypeInfo{Type: t, Paused: b.paused[name]}, nil
}

func (b *backend) SetPaused(ctx context.Context, _, name string, paused bool) (*api.TypeInfo, error) {
	if _, err := b.Type(ctx, name); err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.paused[name] = paused
	b.mu.Unlock()
	return b.Type(ctx, name)
}

func (b *backend) Failures(context.Context, jobs.FailurePage) (jobs.FailureList, error) {
	return jobs.FailureList{}, b.err
}

func (b *backend) Tags(context.Context, string, string, int) ([]string, string, error) {
	return nil, "", b.err
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

func (b *backend) List(_ context.Context, p jobs.Page, yield func(*jobs.Job) bool) (l jobs.Listing, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastPage = p
	after := uint64(0)
	if p.Cursor != "" {
		if after, err = strconv.ParseUint(p.Cursor, 10, 64); err != nil {
			return l, jobs.Invalid("query/cursor", "is not a cursor")
		}
	}
	l.ShowScanned = p.Scans()
	limit := p.Limit
	if limit == 0 {
		limit = jobs.DefaultLimit
	}
	for _, j := range b.all {
		if j.Seq <= after || !p.Match(j) {
			continue
		}
		if l.Scanned == limit || !yield(j) {
			l.Next = strconv.FormatUint(after, 10)
			break
		}
		l.Scanned++
		after = j.Seq
	}
	return l, b.err
}

func (b *backend) Stats(context.Context) (api.Stats, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return api.Stats{MaxWorkers: b.workers, QueuedJobs: len(b.all)}, b.err
}

func (b *backend) Resize(ctx context.Context, r jobs.Resize) (api.Stats, error) {
	if err := b.reg.CheckResize(&r); err != nil {
		return api.Stats{}, err
	}
	b.mu.Lock()
	b.resizes = append(b.resizes, r)
	if r.MaxWorkers != nil {
		b.workers = *r.MaxWorkers
	}
	b.mu.Unlock()
	return b.Stats(ctx)
}

func (b *backend) PauseAll(ctx context.Context, paused bool) (api.Stats, error) {
	st, err := b.Stats(ctx)
	st.Paused = paused
	return st, err
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

// health is a Health with a fixed answer.
type health map[string]error

func (h health) Check(context.Context) map[string]error { return h }

// everything is all parts of a backend but schedules and artifacts.
type everything interface {
	api.Submitter
	api.Reader
	api.Changer
	api.Types
	api.Workers
}

// behind is a backend with one thing for all of its parts.
func behind(b everything) *api.Backend {
	feed := changes.New(noPast{}, func() string { return "" })
	feed.Close() // whoever follows gets the last event at once
	return &api.Backend{Submitter: b, Reader: b, Changer: b, Types: b, Workers: b, Changes: feed, Figures: figures.New(), Metrics: http.NotFoundHandler()}
}

// submit adds a job the usual way.
func (b *backend) submit(t *testing.T, body string) *jobs.Job {
	t.Helper()
	s, err := api.ParseSubmission([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	j, _, err := b.Submit(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// noPast is the past of a tracker without commits.
type noPast struct{}

func (noPast) Number() uint64 { return 0 }

func (noPast) EndedSince(jobs.EndedPlace, int, int) (jobs.Ends, error) {
	return jobs.Ends{Whole: true}, nil
}

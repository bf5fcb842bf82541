package intake_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/intake"
	"jobstream/jobs/jobstest"
)

// ledger is a tracker in memory, as far as batches and tokens go.
type ledger struct {
	mu     sync.Mutex
	tokens map[jobs.Token][]*jobs.Job
	open   map[jobs.Token]bool // the batch is stored and not complete
	stored []*jobs.Batch
	err    error
	told   func(*jobs.Commit)
}

func (l *ledger) Recall(t *jobs.Token) ([]*jobs.Job, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.err
	}
	return l.tokens[*t], nil
}

func (l *ledger) Do(_ context.Context, c jobs.Command) (e jobs.Effect, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return e, l.err
	}
	b := c.(jobs.Reserve).Batch
	if b.Token != nil {
		if l.open[*b.Token] {
			return e, jobs.ErrUnderway
		}
		if e.Known = l.tokens[*b.Token]; e.Known != nil {
			return e, nil
		}
		l.open[*b.Token] = true
	}
	l.stored = append(l.stored, b)
	go l.told(&jobs.Commit{Answers: []jobs.Answer{{Kind: jobs.BatchStored, ID: b.ID, Batch: b}}})
	return e, nil
}

// hall is a submitter of batches with what a test needs around it.
type hall struct {
	*intake.Submitter
	*ledger
	inbox *inbox
	t     *testing.T
}

func inHall(t *testing.T, size, scheduled int, f func(h *hall)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &hall{t: t, inbox: &inbox{}, ledger: &ledger{tokens: make(map[jobs.Token][]*jobs.Job), open: make(map[jobs.Token]bool)}}
		h.Submitter = intake.NewSubmitter(intake.SubmitterOptions{
			Inbox: h.inbox, Ledger: h.ledger, Registry: jobs.NewRegistry(&jobs.Type{Name: "a", RetryCount: 3, Handler: jobstest.Picky{HandlerFunc: jobstest.Nothing}}),
			QueueSize: size, MaxScheduled: scheduled, Timeout: 5 * time.Second, Healthy: func() error { return nil },
		}, 0, 0)
		h.told = h.Committed
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		f(h)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

type submittedBatch struct {
	made     []*jobs.Job
	replayed bool
	err      error
}

// submit submits n jobs in the background; change may change them.
func (h *hall) submit(ctx context.Context, n int, token *jobs.Token, change func(int, *jobs.Submission)) <-chan submittedBatch {
	answer := make(chan submittedBatch, 1)
	var subs []*jobs.Submission
	for i := range n {
		s := good()
		if change != nil {
			change(i, s)
		}
		subs = append(subs, s)
	}
	go func() {
		made, replayed, err := h.SubmitBatch(ctx, subs, token)
		answer <- submittedBatch{made, replayed, err}
	}()
	synctest.Wait()
	return answer
}

// commits makes messages durable, and with the last one its batch complete.
func (h *hall) commits(ms ...*jobs.Message) {
	c := &jobs.Commit{}
	for _, m := range ms {
		c.Changes = append(c.Changes, jobs.Change{After: jobs.NewJob(m, &jobs.Type{Name: "a"}, true)})
		if m.BatchEnd != (jobs.ID{}) {
			c.Answers = append(c.Answers, jobs.Answer{Kind: jobs.BatchDone, ID: m.BatchEnd})
		}
	}
	h.Committed(c)
	synctest.Wait()
}

func (h *hall) published(n int) []*jobs.Message {
	h.t.Helper()
	ms, _ := h.inbox.take()
	if len(ms) != n {
		h.t.Fatalf("%d messages were published, want %d", len(ms), n)
	}
	return ms
}

// A batch is stored first and then published. It is answered when all of it is durable,
// in its order.
func TestSubmitBatch(t *testing.T) {
	inHall(t, 10, 10, func(h *hall) {
		answer := h.submit(h.t.Context(), 3, nil, func(i int, s *jobs.Submission) { s.Tags = []string{fmt.Sprint(i)} })
		ms := h.published(3)
		if len(h.stored) != 1 || h.stored[0].ID != ms[0].ID || len(h.stored[0].Messages) != 3 {
			t.Fatalf("stored: %+v", h.stored)
		}
		for i, m := range ms {
			if last := m.BatchEnd == h.stored[0].ID; m.Tags[0] != fmt.Sprint(i) || last != (i == 2) || !h.Checked(m.ID) {
				t.Errorf("message %d: %+v", i, m)
			}
		}
		h.commits(ms[1])
		h.commits(ms[0])
		if len(answer) != 0 {
			t.Fatalf("answered without its last job: %+v", <-answer)
		}
		h.commits(ms[2])
		a := <-answer
		if a.err != nil || a.replayed || len(a.made) != 3 {
			t.Fatalf("%+v", a)
		}
		for i, j := range a.made {
			if j.ID != ms[i].ID {
				t.Errorf("job %d is another one", i)
			}
		}
		time.Sleep(time.Hour)
		h.published(0)
	})
}

// A batch gets in as a whole or not at all. A refused one leaves no trace.
func TestSubmitBatchAllOrNone(t *testing.T) {
	inHall(t, 4, 2, func(h *hall) {
		later := func(i int, s *jobs.Submission) {
			if i < 3 {
				s.Terms = &jobs.Terms{RunAt: jobs.Now().Add(time.Hour)}
			}
		}
		twins := func(_ int, s *jobs.Submission) { s.Terms = &jobs.Terms{UniqueKey: "k"} }
		wrong := func(i int, s *jobs.Submission) {
			if i == 1 {
				s.Type = "b"
			}
		}
		for name, tt := range map[string]struct {
			n      int
			change func(int, *jobs.Submission)
			ledger error
			want   string
		}{
			"too many for the queue":  {5, nil, nil, "queue_full"},
			"too many scheduled ones": {4, later, nil, "queue_full"},
			"one key twice":           {2, twins, nil, "invalid_request /jobs/1/unique_key"},
			"an unknown type":         {3, wrong, nil, "unknown_type /jobs/1/type"},
			"a key is taken":          {4, nil, &jobs.Error{Kind: jobs.Duplicate}, "duplicate"},
			"it cannot be stored":     {4, nil, errors.New("no space left"), "unavailable"},
		} {
			for range 3 {
				h.err = tt.ledger
				a := <-h.submit(h.t.Context(), tt.n, nil, tt.change)
				if got := jobstest.Failure(t, a.err); got != tt.want || a.made != nil && tt.ledger == nil {
					t.Fatalf("%s: %q (%v), want %q", name, got, a.err, tt.want)
				}
			}
			h.err = nil
		}
		if len(h.stored) != 0 {
			t.Fatalf("%d batches are stored", len(h.stored))
		}
		h.published(0)
		// There is room for as much as ever.
		answer := h.submit(h.t.Context(), 6, nil, func(i int, s *jobs.Submission) {
			if i < 2 {
				later(i, s)
			}
		})
		h.commits(h.published(6)...)
		if a := <-answer; a.err != nil {
			t.Error(a.err)
		}
	})
}

// Messages of a batch that the queue refuses are published again, with growing waits,
// until all are in.
func TestBatchIsPublishedAgain(t *testing.T) {
	inHall(t, 10, 10, func(h *hall) {
		h.inbox.err = errors.New("no connection")
		begin := time.Now()
		answer := h.submit(h.t.Context(), 2, nil, nil)
		h.published(0)
		h.inbox.mu.Lock()
		h.inbox.err = nil
		h.inbox.mu.Unlock()
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		ms := h.published(2)
		h.commits(ms[0]) // the second one is lost
		time.Sleep(2100 * time.Millisecond)
		synctest.Wait()
		again := h.published(2)
		if again[0].ID != ms[0].ID || again[1].ID != ms[1].ID || again[1].BatchEnd != ms[0].ID {
			t.Fatal("the messages are others")
		}
		h.commits(again[1])
		if a := <-answer; a.err != nil || len(a.made) != 2 {
			t.Fatalf("%+v", a)
		}
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("it took %s", took)
		}
		time.Sleep(time.Hour)
		h.published(0)

		// The caller gets an answer after five seconds; the batch goes on.
		begin = time.Now()
		answer = h.submit(h.t.Context(), 2, nil, nil)
		a := <-answer
		if took := time.Since(begin); jobstest.Failure(t, a.err) != "unavailable" || took > 6*time.Second {
			t.Fatalf("%v after %s", a.err, took)
		}
		ms, _ = h.inbox.take()
		time.Sleep(time.Hour)
		more, _ := h.inbox.take()
		if n := len(more) / 2; n < 58 || n > 70 {
			t.Errorf("published %d times in an hour", n)
		}
		h.commits(ms[0], ms[1])
		time.Sleep(time.Hour)
		h.published(0)
	})
}

// A batch of an earlier process is completed.
func TestResume(t *testing.T) {
	inHall(t, 1, 1, func(h *hall) {
		b := &jobs.Batch{ID: jobs.NewID(), Messages: []*jobs.Message{
			{ID: jobs.NewID(), Type: "a", Priority: 3}, {ID: jobs.NewID(), Type: "a", Priority: 3}, {ID: jobs.NewID(), Type: "a", Priority: 3},
		}}
		b.Messages[2].BatchEnd = b.ID
		h.Resume([]*jobs.Batch{b})
		synctest.Wait()
		ms := h.published(3)
		same := slices.EqualFunc(ms, b.Messages, func(x, y *jobs.Message) bool { return x.ID == y.ID && x.BatchEnd == y.BatchEnd })
		if !same || h.Checked(ms[0].ID) {
			t.Errorf("%+v", ms)
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		h.commits(h.published(3)...)
		time.Sleep(time.Hour)
		h.published(0)
	})
}

// Equal batches are one: later ones wait for the first that is on its way.
func TestSubmitBatchToken(t *testing.T) {
	inHall(t, 100, 100, func(h *hall) {
		token := jobs.NewToken("http", "k", []byte("body"))
		first := h.submit(h.t.Context(), 2, token, nil)
		var twins []<-chan submittedBatch
		for range 10 {
			twins = append(twins, h.submit(h.t.Context(), 2, token, nil))
		}
		ms := h.published(2)
		if len(h.stored) != 1 {
			t.Fatalf("%d batches are stored", len(h.stored))
		}
		h.commits(ms[0])
		for _, twin := range twins {
			if len(twin) != 0 {
				t.Fatalf("a twin was answered before the batch was complete: %+v", <-twin)
			}
		}
		h.mu.Lock()
		h.open[*token] = false
		for _, m := range ms {
			h.tokens[*token] = append(h.tokens[*token], jobs.NewJob(m, &jobs.Type{Name: "a"}, true))
		}
		h.mu.Unlock()
		h.commits(ms[1])
		if a := <-first; a.err != nil || a.replayed || a.made[1].ID != ms[1].ID {
			t.Errorf("%+v", a)
		}
		for _, twin := range append(twins, h.submit(h.t.Context(), 2, token, nil)) {
			if a := <-twin; a.err != nil || !a.replayed || len(a.made) != 2 || a.made[0].ID != ms[0].ID {
				t.Errorf("a twin: %+v", a)
			}
		}
		h.published(0)
		h.err = &jobs.Error{Kind: jobs.IdempotencyMismatch}
		if a := <-h.submit(h.t.Context(), 3, token, nil); jobstest.Failure(t, a.err) != "idempotency_mismatch" {
			t.Errorf("another batch with its key: %+v", a)
		}
	})
	// It does not wait for ever.
	inHall(t, 100, 100, func(h *hall) {
		token := jobs.NewToken("http", "k", nil)
		h.open[*token] = true
		begin := time.Now()
		a := <-h.submit(h.t.Context(), 2, token, nil)
		if took := time.Since(begin); jobstest.Failure(t, a.err) != "unavailable" || took > 6*time.Second {
			t.Errorf("%v after %s", a.err, took)
		}
		h.published(0)
	})
}

// A caller that leaves does not stop its batch.
func TestSubmitBatchOfACallerWhoGoes(t *testing.T) {
	inHall(t, 10, 10, func(h *hall) {
		gone := errors.New("the client hung up")
		ctx, cancel := context.WithCancelCause(h.t.Context())
		answer := h.submit(ctx, 2, nil, nil)
		cancel(gone)
		if a := <-answer; !errors.Is(a.err, gone) {
			t.Errorf("%+v", a)
		}
		ms := h.published(2)
		h.commits(ms...)
		time.Sleep(time.Hour)
		h.published(0)
	})
}

// TestBatchOfTooLarge: a batch with a payload that the queue never takes is
// refused before it is stored.
func TestBatchOfTooLarge(t *testing.T) {
	s := intake.NewSubmitter(intake.SubmitterOptions{
		Registry:  jobs.NewRegistry(&jobs.Type{Name: "a", Handler: jobstest.Nothing}),
		QueueSize: 10, MaxPayload: 100, Healthy: func() error { t.Error("it went on"); return nil },
	}, 0, 0)
	small := &jobs.Submission{Type: "a", Priority: 3, Payload: []byte(`{}`)}
	large := &jobs.Submission{Type: "a", Priority: 3, Payload: []byte(`"` + strings.Repeat("x", 100) + `"`)}
	_, _, err := s.SubmitBatch(t.Context(), []*jobs.Submission{small, large}, nil)
	if f := jobstest.Failure(t, err); f != "payload_too_large /jobs/1/payload" {
		t.Errorf("error %q (%v)", f, err)
	}
}

package intake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"jobstream/jobs"
)

// SubmitBatch submits all of these jobs or none. The returned jobs are durable and in
// the order of subs. replayed says that they are those that the token made before.
// Errors are those of [Submitter.Submit]. With [jobs.Unavailable], or if ctx ends, the
// whole batch may or may not get in.
func (s *Submitter) SubmitBatch(ctx context.Context, subs []*jobs.Submission, token *jobs.Token) (made []*jobs.Job, replayed bool, err error) {
	if err := s.o.Registry.CheckBatch(subs); err != nil {
		return nil, false, err
	}
	if err := uniqueWithin(subs); err != nil {
		return nil, false, err
	}
	for i, sub := range subs {
		if err := s.fits(sub); err != nil {
			return nil, false, within(i, err)
		}
	}
	if known, err := s.recall(token); known != nil || err != nil {
		return s.forgotten(known, subs), true, err
	}
	if err := s.ready("", nil); err != nil {
		return nil, false, err
	}
	b := newBatch(subs, token)
	for i, sub := range subs {
		if len(sub.Inputs()) == 0 {
			continue
		}
		if b.Messages[i].Terms, err = s.o.Inputs.resolve(ctx, sub, s.o.Registry.Lookup(sub.Type), fmt.Sprintf("/jobs/%d", i)); err != nil {
			return nil, false, refusalOf(err)
		}
	}
	wait := newBatchWait(b)
	if err := s.admit(wait.admissions(b)...); err != nil {
		return nil, false, err
	}
	// A stored batch is published, whether or not anybody still waits.
	storing, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.Timeout)
	defer cancel()
	known, err := s.reserve(storing, b)
	if known != nil || err != nil {
		s.withdraw(b)
		if _, expected := jobs.AsError(err); err != nil && !expected {
			err = unavailable(err)
		}
		return s.forgotten(known, subs), known != nil, err
	}
	select {
	case <-wait.done:
		return wait.made, false, wait.err
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
}

// reserve stores a batch. If one with its token is on its way, it waits for the jobs of
// that.
func (s *Submitter) reserve(ctx context.Context, b *jobs.Batch) (known []*jobs.Job, err error) {
	for {
		completed := s.batches.completion() // before the command, so that none is missed
		e, err := s.o.Ledger.Do(ctx, jobs.Reserve{Stamp: jobs.By("submitter"), Batch: b})
		if !errors.Is(err, jobs.ErrUnderway) {
			return e.Known, err
		}
		select {
		case <-completed:
		case <-ctx.Done():
			return nil, unavailable(err)
		}
	}
}

// uniqueWithin returns an error if two jobs of a batch have one unique key.
func uniqueWithin(subs []*jobs.Submission) error {
	var keys map[string]int
	for i, sub := range subs {
		if sub.Terms == nil || sub.Terms.UniqueKey == "" {
			continue
		}
		if first, ok := keys[sub.Terms.UniqueKey]; ok {
			return jobs.Invalid(fmt.Sprintf("/jobs/%d/unique_key", i), fmt.Sprintf("is also that of /jobs/%d", first))
		}
		if keys == nil {
			keys = make(map[string]int)
		}
		keys[sub.Terms.UniqueKey] = i
	}
	return nil
}

// fits returns an error if the queue would refuse the payload of a submission, since a
// stored batch would never be complete then.
func (s *Submitter) fits(sub *jobs.Submission) *jobs.Error {
	if s.o.MaxPayload <= 0 || len(sub.Payload) <= s.o.MaxPayload {
		return nil
	}
	e := jobs.Invalid("/payload", fmt.Sprintf("has %d bytes; at most %d are allowed", len(sub.Payload), s.o.MaxPayload))
	e.Kind = jobs.PayloadTooLarge
	return e
}

// within is an error about the i-th submission of a batch.
func within(i int, e *jobs.Error) *jobs.Error {
	moved := make([]jobs.FieldError, len(e.Fields))
	for k, f := range e.Fields {
		moved[k] = jobs.FieldError{Pointer: fmt.Sprintf("/jobs/%d%s", i, f.Pointer), Detail: f.Detail}
	}
	in := jobs.InvalidFields(moved...)
	in.Kind = e.Kind
	return in
}

func newBatch(subs []*jobs.Submission, token *jobs.Token) *jobs.Batch {
	b := &jobs.Batch{Token: token, Messages: make([]*jobs.Message, len(subs))}
	for i, sub := range subs {
		b.Messages[i] = sub.Message()
	}
	b.ID = b.Messages[0].ID
	b.Messages[len(subs)-1].BatchEnd = b.ID
	return b
}

// batchWait collects the answers to a batch's messages. The submitter's lock guards it
// until done is closed.
type batchWait struct {
	made  []*jobs.Job
	index map[jobs.ID]int
	left  int
	err   error
	done  chan struct{}
}

func newBatchWait(b *jobs.Batch) *batchWait {
	n := len(b.Messages)
	w := &batchWait{made: make([]*jobs.Job, n), index: make(map[jobs.ID]int, n), left: n, done: make(chan struct{})}
	for i, m := range b.Messages {
		w.index[m.ID] = i
	}
	return w
}

func (w *batchWait) admissions(b *jobs.Batch) []admission {
	now := time.Now()
	queued := &waiter{since: now, caller: w}
	later := &waiter{since: now, caller: w, scheduled: true}
	all := make([]admission, len(b.Messages))
	for i, m := range b.Messages {
		all[i] = admission{m.ID, queued}
		if putsOff(m) {
			all[i].w = later
		}
	}
	return all
}

func (w *batchWait) answer(id jobs.ID, a answer) {
	w.made[w.index[id]] = a.job
	if a.err != nil && w.err == nil {
		w.err = a.err
	}
	if w.left--; w.left == 0 {
		close(w.done)
	}
}

// withdraw ends the waiting for a batch that was not stored.
func (s *Submitter) withdraw(b *jobs.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range b.Messages {
		s.answer(m.ID, answer{})
	}
}

// Resume adopts batches that an earlier process stored and did not complete.
func (s *Submitter) Resume(batches []*jobs.Batch) { s.batches.publishSoon(batches...) }

// batches are stored, and their messages are published until they are complete.
type batches struct {
	inbox jobs.Inbox
	wake  chan struct{} // has a token when there are some to publish

	mu        sync.Mutex
	pending   map[jobs.ID]*pendingBatch
	completed chan struct{} // closed when the next one is complete
}

// pendingBatch is a stored batch whose messages have to get into the queue.
type pendingBatch struct {
	*jobs.Batch
	next time.Time     // the next publication
	wait time.Duration // from then to the one after it
}

// The messages of a batch are published again if it is not complete after a while,
// because the queue may have refused some. The waits double from the shortest to the
// longest, since more messages do not make a slow queue faster.
const (
	republishAfter  = time.Second
	republishAtMost = time.Minute
)

func newBatches(inbox jobs.Inbox) *batches {
	return &batches{
		inbox: inbox, wake: make(chan struct{}, 1), pending: make(map[jobs.ID]*pendingBatch), completed: make(chan struct{}),
	}
}

// publishSoon has stored batches published until they are complete.
func (b *batches) publishSoon(stored ...*jobs.Batch) {
	b.mu.Lock()
	for _, one := range stored {
		b.pending[one.ID] = &pendingBatch{Batch: one, wait: republishAfter}
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// complete ends the publishing of a batch.
func (b *batches) complete(id jobs.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pending, id)
	b.awaken()
}

// giveUp ends all waits for a completion, as no more come.
func (b *batches) giveUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.awaken()
}

// awaken ends the waits for a completion. b.mu is locked.
func (b *batches) awaken() {
	close(b.completed)
	b.completed = make(chan struct{})
}

// completion returns a channel that is closed when the next batch is complete.
func (b *batches) completion() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.completed
}

// publish publishes the messages of pending batches whose moment has come. The id of a
// known job makes a repeated message harmless.
func (b *batches) publish(now time.Time) {
	for _, one := range b.ready(now) {
		for _, m := range one.Messages {
			if b.inbox.Submit(m, nil) != nil {
				break // the whole batch again, later
			}
		}
	}
}

// ready returns the batches to publish, and fixes when they are published again.
func (b *batches) ready(now time.Time) (all []*pendingBatch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range b.pending {
		if !now.Before(one.next) {
			one.next, one.wait = now.Add(one.wait), min(2*one.wait, republishAtMost)
			all = append(all, one)
		}
	}
	return all
}

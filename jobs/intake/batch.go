package intake

import (
	"context"
	"errors"
	"fmt"
	"jobstream/jobs"
	"time"
)

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
	if err := s.fits(subs); err != nil {
		return nil, false, err
	}
	if known, err := s.recall(token); known != nil || err != nil {
		return s.forgotten(known, subs), true, err
	}
	if err := s.o.Healthy(); err != nil {
		return nil, false, unavailable(err)
	}
	b := newBatch(subs, token)
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

// ErrUnderway is the error of [jobs.Reserve] for a token whose batch is stored and not
// complete.
var ErrUnderway error = &jobs.Error{Kind: jobs.Conflict, Detail: "the batch with this token is not complete yet"}

// reserve stores a batch. If one with its token is on its way, it waits for the jobs of
// that.
func (s *Submitter) reserve(ctx context.Context, b *jobs.Batch) (known []*jobs.Job, err error) {
	for {
		s.mu.Lock()
		completed := s.completed // before the command, so that no completion is missed
		s.mu.Unlock()
		e, err := s.o.Ledger.Do(ctx, jobs.Reserve{Stamp: jobs.By("submitter"), Batch: b})
		if !errors.Is(err, ErrUnderway) {
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
	var seen map[string]int
	for i, sub := range subs {
		if sub.Terms == nil || sub.Terms.UniqueKey == "" {
			continue
		}
		if first, ok := seen[sub.Terms.UniqueKey]; ok {
			return jobs.Invalid(fmt.Sprintf("/jobs/%d/unique_key", i), fmt.Sprintf("is also that of /jobs/%d", first))
		}
		if seen == nil {
			seen = make(map[string]int)
		}
		seen[sub.Terms.UniqueKey] = i
	}
	return nil
}

// fits returns an error if the queue would refuse a payload, since a stored batch would
// never be complete then.
func (s *Submitter) fits(subs []*jobs.Submission) error {
	for i, sub := range subs {
		if s.o.MaxPayload > 0 && len(sub.Payload) > s.o.MaxPayload {
			text := fmt.Sprintf("has %d bytes; at most %d are allowed", len(sub.Payload), s.o.MaxPayload)
			e := jobs.Invalid(fmt.Sprintf("/jobs/%d/payload", i), text)
			e.Kind = jobs.PayloadTooLarge
			return e
		}
	}
	return nil
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
func (s *Submitter) Resume(batches []*jobs.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range batches {
		s.pend(b)
	}
}

// pend makes Run publish a batch until it is complete. s.mu is locked.
func (s *Submitter) pend(b *jobs.Batch) {
	s.batches[b.ID] = &pendingBatch{Batch: b, wait: republishAfter}
	s.publishSoon()
}

// publishSoon makes Run publish batches. s.mu is locked.
func (s *Submitter) publishSoon() {
	select {
	case s.stored <- struct{}{}:
	default:
	}
}

// publishBatches publishes the messages of stored batches: at once, and again as long
// as the tracker has not found them complete. The id of a known job makes a repeated
// message harmless.
func (s *Submitter) publishBatches(now time.Time) {
	s.mu.Lock()
	var all []*pendingBatch
	for _, b := range s.batches {
		if !now.Before(b.next) {
			b.next, b.wait = now.Add(b.wait), min(2*b.wait, republishAtMost)
			all = append(all, b)
		}
	}
	s.mu.Unlock()
	for _, b := range all {
		for _, m := range b.Messages {
			if s.o.Inbox.Submit(m, nil) != nil {
				break // the whole batch again, later
			}
		}
	}
}

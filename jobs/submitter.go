package jobs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Submitter is the way into the queue for both doors: it checks a submission,
// admits it if the queue has room, sends it on its way, and answers when the
// tracker has made it durable.
type Submitter struct {
	o SubmitterOptions

	mu         sync.Mutex
	waiting    map[ID]*waiter
	inflight   int // admitted, not yet committed
	unfinished int // as of the last commit
	draining   bool
}

// SubmitterOptions are what a Submitter needs.
type SubmitterOptions struct {
	Inbox     Inbox
	Registry  *Registry
	QueueSize int           // pending, processing and retrying jobs; more are refused
	Timeout   time.Duration // how long a commit may take before the caller is told "unavailable"
	// Healthy says why nothing can be taken at the moment, or nil.
	Healthy func() error
}

type waiter struct {
	done  chan answer
	since time.Time
}

type answer struct {
	job *Job
	err error
}

// NewSubmitter makes a Submitter; unfinished is the number of jobs that the
// tracker knows and that have not ended.
func NewSubmitter(o SubmitterOptions, unfinished int) *Submitter {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	return &Submitter{o: o, waiting: make(map[ID]*waiter), unfinished: unfinished}
}

// Submit takes one job. When it returns a job, that is durable. Errors are
// [*Error]s: [UnknownType] and [InvalidRequest] for what the caller did wrong,
// [QueueFull], [ShuttingDown] and [Unavailable] for what the server can't do.
// If ctx ends first its error is returned, and the job may or may not get in.
func (s *Submitter) Submit(ctx context.Context, sub *Submission) (*Job, error) {
	if err := s.o.Registry.Check(sub); err != nil {
		return nil, err
	}
	if err := s.o.Healthy(); err != nil {
		return nil, unavailable(err)
	}
	id := NewID()
	w := &waiter{done: make(chan answer, 1), since: time.Now()}
	if err := s.admit(id, w); err != nil {
		return nil, err
	}
	m := &Message{
		ID: id, Type: sub.Type, Priority: sub.Priority, Payload: sub.Payload, Tags: sub.Tags,
		RetryCount: sub.RetryCount, Timeout: sub.Timeout,
	}
	if err := s.o.Inbox.Submit(m, func(err error) { s.resolve(id, answer{err: err}) }); err != nil {
		var known *Error // it may be too large, too
		if !errors.As(err, &known) {
			known = unavailable(err)
		}
		s.resolve(id, answer{err: known})
	}
	select {
	case a := <-w.done:
		return a.job, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func unavailable(err error) *Error {
	return &Error{Kind: Unavailable, Detail: err.Error(), RetryAfter: time.Second}
}

// admit lets a submission in, or says why not.
func (s *Submitter) admit(id ID, w *waiter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return &Error{Kind: ShuttingDown, Detail: "the server is shutting down and takes no new jobs", RetryAfter: 5 * time.Second}
	}
	if n := s.unfinished + s.inflight; n >= s.o.QueueSize {
		return &Error{
			Kind: QueueFull, RetryAfter: time.Second,
			Detail: fmt.Sprintf("%d jobs are unfinished and worker.queue_size is %d; try again later", n, s.o.QueueSize),
		}
	}
	s.inflight++
	s.waiting[id] = w
	return nil
}

// resolve answers one submission, if it still waits.
func (s *Submitter) resolve(id ID, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w, ok := s.waiting[id]; ok {
		delete(s.waiting, id)
		s.inflight--
		w.done <- a
	}
}

// Checked says whether id is a submission on its way that has been checked
// here; see status.Options.
func (s *Submitter) Checked(id ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.waiting[id]
	return ok
}

// Committed takes what a commit made true.
func (s *Submitter) Committed(c *Commit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unfinished = c.Unfinished
	for _, j := range c.Submitted {
		if w, ok := s.waiting[j.ID]; ok {
			delete(s.waiting, j.ID)
			s.inflight--
			w.done <- answer{job: j}
		}
	}
}

// Run gives up on submissions whose commit takes too long, until ctx ends.
func (s *Submitter) Run(ctx context.Context) error {
	tick := time.NewTicker(s.o.Timeout / 5)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.expire(now.Add(-s.o.Timeout))
		case <-ctx.Done():
			return nil
		}
	}
}

// expire answers those that have waited since before a moment. They may still
// become jobs: a message that is in the stream stays there.
func (s *Submitter) expire(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, w := range s.waiting {
		if w.since.After(before) {
			continue
		}
		delete(s.waiting, id)
		s.inflight--
		err := s.o.Healthy()
		if err == nil {
			err = fmt.Errorf("the job was not on disk after %s; it may or may not run", s.o.Timeout)
		}
		w.done <- answer{err: unavailable(err)}
	}
}

// Drain makes every further submission fail with [ShuttingDown].
func (s *Submitter) Drain() {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
}

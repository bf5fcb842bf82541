package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/access"
)

// Submitter is the way into the queue for both doors. It checks a submission, admits it
// if the queue has room, publishes it, and answers when the tracker has made it
// durable.
type Submitter struct {
	o       SubmitterOptions
	batches *batches

	mu         sync.Mutex
	waiting    map[jobs.ID]*waiter
	inflight   counts // admitted, not yet committed
	unfinished int    // as of the last commit
	scheduled  int    // likewise
	draining   bool
}

// counts are numbers of jobs by the bound that they fall under.
type counts struct{ queue, scheduled int }

// SubmitterOptions are the parts of a Submitter.
type SubmitterOptions struct {
	Inbox        jobs.Inbox
	Ledger       jobs.Ledger
	Registry     *jobs.Registry
	Inputs       *Inputs       // the files that submissions name
	QueueSize    int           // pending, processing and retrying jobs; more are refused
	MaxScheduled int           // scheduled jobs; more are refused
	MaxPayload   int           // bytes of a batched job's payload that the Inbox accepts; 0 = no bound
	Timeout      time.Duration // the longest wait for a commit, before the answer "unavailable"
	// Resubmit is after how long a single submission without a commit is published again,
	// and again after twice that time. A known id is a duplicate of itself. 0 = never.
	Resubmit time.Duration
	// Healthy returns why no job can be accepted at present, or nil.
	Healthy func() error
	// Room returns why nothing can be accepted that needs disk space, or nil. If it is nil
	// itself, there always is some.
	Room Room
}

// waiter is a submission on its way.
type waiter struct {
	since     time.Time
	scheduled bool // it counts as a scheduled job
	free      bool // it does not count
	caller    interface{ answer(jobs.ID, answer) }
}

// caller waits for a single submission.
type caller struct {
	waiter
	message  *jobs.Message // to be published again; nil = it is not
	again    time.Time     // when
	pause    time.Duration // until then
	answered answer
	done     chan struct{} // closed when the answer is there
}

func (c *caller) answer(_ jobs.ID, a answer) {
	c.answered = a
	close(c.done)
}

// admission is a message that asks for admission, and its waiter.
type admission struct {
	id jobs.ID
	w  *waiter
}

type answer struct {
	job      *jobs.Job
	replayed bool
	err      error
}

// NewSubmitter makes a Submitter. unfinished and scheduled are the tracker's numbers of
// such jobs, see [jobs.Commit].
func NewSubmitter(o SubmitterOptions, unfinished, scheduled int) *Submitter {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	return &Submitter{
		o: o, batches: newBatches(o.Inbox), waiting: make(map[jobs.ID]*waiter),
		unfinished: unfinished, scheduled: scheduled,
	}
}

// Check returns an [*jobs.Error] if Submit would refuse a submission for what is in it,
// whatever the state of the server. It does not look for the files of inputs.
func (s *Submitter) Check(sub *jobs.Submission) error {
	if err := s.o.Registry.Check(sub); err != nil {
		return err
	}
	if err := s.fits(sub); err != nil {
		return err
	}
	return nil
}

// Targets are the types of which a submission makes jobs: its own, and those of the jobs
// that it makes.
func (s *Submitter) Targets(typ string, payload json.RawMessage) []string {
	all := []string{typ}
	if t := s.o.Registry.Lookup(typ); t != nil {
		if h, ok := t.Handler.(interface {
			Targets(payload json.RawMessage) []string
		}); ok {
			all = append(all, h.Targets(payload)...)
		}
	}
	return all
}

// Needs is the scope that a submission of a type needs, besides submit; "" = none.
func (s *Submitter) Needs(typ string) access.Scope {
	if t := s.o.Registry.Lookup(typ); t != nil {
		return t.Needs
	}
	return ""
}

// Submit submits one job. A returned job is durable; replayed says that the
// submission's token made it before. Errors are [*jobs.Error]s. [jobs.UnknownType],
// [jobs.InvalidRequest], [jobs.Duplicate] and [jobs.IdempotencyMismatch] are mistakes
// of the caller. [jobs.QueueFull], [jobs.ShuttingDown] and [jobs.Unavailable] are
// states of the server. If ctx ends first its error is returned, and the job may or may
// not get in.
func (s *Submitter) Submit(ctx context.Context, sub *jobs.Submission) (j *jobs.Job, replayed bool, err error) {
	if err := s.o.Registry.Check(sub); err != nil {
		return nil, false, err
	}
	if known, err := s.recall(sub.Token); known != nil || err != nil {
		return first(s.forgotten(known, []*jobs.Submission{sub})), true, err
	}
	if err := s.ready(sub.Type, sub.Payload); err != nil {
		return nil, false, err
	}
	m := sub.Message()
	if len(sub.Inputs()) > 0 {
		if m.Terms, err = s.o.Inputs.resolve(ctx, sub, s.o.Registry.Lookup(sub.Type), ""); err != nil {
			return nil, false, refusalOf(err)
		}
	}
	return s.submit(ctx, m, waiter{scheduled: putsOff(m)})
}

// SubmitMessage publishes a message that makes a job by itself, past all bounds, and
// waits until the job is durable. If the job is known, it is returned, and replayed is
// true.
func (s *Submitter) SubmitMessage(ctx context.Context, m *jobs.Message) (j *jobs.Job, replayed bool, err error) {
	if err := s.ready(m.Type, m.Payload); err != nil {
		return nil, false, err
	}
	return s.submit(ctx, m, waiter{free: true})
}

// ready returns the reason why a job cannot be accepted at present, or nil.
func (s *Submitter) ready(typ string, payload json.RawMessage) error {
	if err := s.o.Healthy(); err != nil {
		return unavailable(err)
	}
	err := s.o.Room.Check()
	if err == nil {
		return nil
	}
	if t := s.o.Registry.Lookup(typ); t != nil {
		if h, ok := t.Handler.(jobs.Freer); ok && h.FreesSpace(payload) {
			return nil
		}
	}
	return err
}

// Room says whether there is disk space for more: the error is an [*jobs.Error] with the
// reason why not.
type Room func() error

// Check is the reason why there is no room, or nil. A nil Room has always room.
func (r Room) Check() error {
	if r == nil {
		return nil
	}
	return r()
}

// submit publishes a message and waits for its answer.
func (s *Submitter) submit(ctx context.Context, m *jobs.Message, w waiter) (j *jobs.Job, replayed bool, err error) {
	c := &caller{waiter: w, done: make(chan struct{})}
	c.since, c.caller = time.Now(), c
	if s.o.Resubmit > 0 {
		c.message, c.pause = m, s.o.Resubmit
		c.again = c.since.Add(c.pause)
	}
	if err := s.admit(admission{m.ID, &c.waiter}); err != nil {
		return nil, false, err
	}
	s.send(m)
	select {
	case <-c.done:
		return c.answered.job, c.answered.replayed, c.answered.err
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
}

// putsOff says whether the job will be a scheduled one.
func putsOff(m *jobs.Message) bool { return m.Terms != nil && m.Terms.RunAt > jobs.Now() }

func first(known []*jobs.Job) *jobs.Job {
	if len(known) == 0 {
		return nil
	}
	return known[0]
}

// recall looks a token up before its submission is published.
func (s *Submitter) recall(t *jobs.Token) ([]*jobs.Job, error) {
	if t == nil {
		return nil, nil
	}
	known, err := s.o.Ledger.Recall(t)
	var wrong *jobs.Error
	if err != nil && !errors.As(err, &wrong) {
		return nil, unavailable(err)
	}
	return known, err
}

// forgotten completes those of the known jobs whose records were deleted, from the
// submissions that ask for them again.
func (s *Submitter) forgotten(known []*jobs.Job, again []*jobs.Submission) []*jobs.Job {
	for i, j := range known {
		if j.Key == 0 && i < len(again) {
			known[i] = again[i].Message().Forgotten(j.ID, j.CreatedAt, s.o.Registry.Lookup(again[i].Type))
		}
	}
	return known
}

// send publishes a message whose waiter is registered.
func (s *Submitter) send(m *jobs.Message) {
	id := m.ID
	if err := s.o.Inbox.Submit(m, func(err error) { s.refused(id, err) }); err != nil {
		var known *jobs.Error // it may also be too large
		if !errors.As(err, &known) {
			known = unavailable(err)
		}
		s.resolve(id, answer{err: known})
	}
}

// refused answers a submission that the stream has refused. One that is published again has
// time: nobody may lead the stream at the moment.
func (s *Submitter) refused(id jobs.ID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w, ok := s.waiting[id]; ok {
		c, single := w.caller.(*caller)
		if e, known := jobs.AsError(err); single && c.message != nil && known && e.Kind == jobs.Unavailable {
			c.again = time.Now().Add(s.o.Resubmit / 4)
			return
		}
	}
	s.answer(id, answer{err: err})
}

// refusalOf is err for the caller, who sees no other error than [*jobs.Error].
func refusalOf(err error) error {
	if _, known := jobs.AsError(err); known {
		return err
	}
	return unavailable(err)
}

func unavailable(err error) *jobs.Error {
	return &jobs.Error{Kind: jobs.Unavailable, Detail: err.Error(), RetryAfter: time.Second}
}

// admit admits submissions, all or none, or returns why not.
func (s *Submitter) admit(all ...admission) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var more counts
	for _, a := range all {
		more.count(a.w, 1)
	}
	if err := s.room(more); err != nil {
		return err
	}
	s.inflight.queue += more.queue
	s.inflight.scheduled += more.scheduled
	for _, a := range all {
		s.waiting[a.id] = a.w
	}
	return nil
}

// count adds n submissions like w's.
func (c *counts) count(w *waiter, n int) {
	switch {
	case w.free:
	case w.scheduled:
		c.scheduled += n
	default:
		c.queue += n
	}
}

// room returns an error if there is no room for so many more jobs. s.mu is locked.
func (s *Submitter) room(more counts) error {
	if s.draining {
		return &jobs.Error{Kind: jobs.ShuttingDown, Detail: "the server is shutting down and takes no new jobs", RetryAfter: 5 * time.Second}
	}
	if n := s.unfinished + s.inflight.queue; more.queue > 0 && n+more.queue > s.o.QueueSize {
		return &jobs.Error{
			Kind: jobs.QueueFull, RetryAfter: time.Second,
			Detail: fmt.Sprintf("%d jobs are unfinished and worker.queue_size is %d; try again later", n, s.o.QueueSize),
		}
	}
	if n := s.scheduled + s.inflight.scheduled; more.scheduled > 0 && n+more.scheduled > s.o.MaxScheduled {
		return &jobs.Error{
			Kind: jobs.QueueFull, RetryAfter: time.Minute,
			Detail: fmt.Sprintf("%d jobs wait for their time and worker.max_scheduled is %d; try again later", n, s.o.MaxScheduled),
		}
	}
	return nil
}

// resolve answers one submission, if it still waits.
func (s *Submitter) resolve(id jobs.ID, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer(id, a)
}

// answer is resolve with s.mu locked.
func (s *Submitter) answer(id jobs.ID, a answer) {
	w, ok := s.waiting[id]
	if !ok {
		return
	}
	delete(s.waiting, id)
	s.inflight.count(w, -1)
	w.caller.answer(id, a)
}

// Checked says whether id is a submission on its way that this process has checked; see
// status.Options.
func (s *Submitter) Checked(id jobs.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.waiting[id]
	return ok
}

// Committed is a listener of commits.
func (s *Submitter) Committed(c *jobs.Commit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unfinished, s.scheduled = c.Load.Unfinished, c.Load.Scheduled
	for j := range c.Submitted() {
		s.answer(j.ID, answer{job: j})
	}
	for _, a := range c.Answers {
		switch a.Kind {
		case jobs.SubmissionRefused:
			s.answer(a.ID, answer{err: a.Err})
		case jobs.SubmissionReplayed:
			s.answer(a.ID, answer{job: a.Job, replayed: true})
		case jobs.BatchStored:
			s.batches.publishSoon(a.Batch)
		case jobs.BatchDone:
			s.batches.complete(a.ID)
		}
	}
}

// Run gives up submissions whose commit takes too long, and completes batches. When ctx
// ends it gives up all.
func (s *Submitter) Run(ctx context.Context) error {
	tick := time.NewTicker(s.o.Timeout / 5)
	defer tick.Stop()
	var again <-chan time.Time
	if s.o.Resubmit > 0 {
		often := time.NewTicker(s.o.Resubmit / 4)
		defer often.Stop()
		again = often.C
	}
	for {
		select {
		case now := <-tick.C:
			s.expire(now.Add(-s.o.Timeout))
			s.batches.publish(now)
		case now := <-again:
			s.resubmit(now)
		case <-s.batches.wake:
			s.batches.publish(time.Now())
		case <-ctx.Done():
			s.giveUp()
			return nil
		}
	}
}

// giveUp ends all waits, present and future, as no more commits come.
func (s *Submitter) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for id := range s.waiting {
		s.answer(id, answer{err: unavailable(errors.New("the queue was closed before the job was on disk; it may or may not run"))})
	}
	s.batches.giveUp()
}

// expire answers submissions that have waited since before a moment. They may still
// become jobs, because a message in the stream stays there.
func (s *Submitter) expire(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, w := range s.waiting {
		if w.since.After(before) {
			continue
		}
		err := s.o.Healthy()
		if err == nil {
			err = fmt.Errorf("the job was not on disk after %s; it may or may not run", s.o.Timeout)
		}
		s.answer(id, answer{err: unavailable(err)})
	}
}

// resubmit publishes again what a stream may have lost while it moved to another server. What
// is refused then is no answer to its caller, as the first message may be stored.
func (s *Submitter) resubmit(now time.Time) {
	var due []*jobs.Message
	s.mu.Lock()
	for _, w := range s.waiting {
		if c, ok := w.caller.(*caller); ok && c.message != nil && !c.again.After(now) {
			c.pause *= 2
			c.again = now.Add(c.pause)
			copied := *c.message
			copied.Again = true
			due = append(due, &copied)
		}
	}
	s.mu.Unlock()
	for _, m := range due {
		_ = s.o.Inbox.Submit(m, nil) // the next one may succeed
	}
}

// Drain makes every further submission fail with [jobs.ShuttingDown].
func (s *Submitter) Drain() {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
}

package status

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// Source reads both streams from given positions on and feeds a sink, until ctx
// ends. The broker is one.
type Source interface {
	Read(ctx context.Context, from jobs.Positions, sink jobs.Sink) error
}

// A batch of this size makes commits keep their spacing for a while, so that
// the pauses in a heavy load are not filled with commits of single jobs.
const (
	busy    = 64
	busyFor = 50 * time.Millisecond
)

// After a batch of this size the spacing is a multiple: whoever submits so much has
// so much on its way that it does not notice, and a job is cheaper the more share a
// commit.
const (
	large      = 600
	largeSpace = 4
)

// retryPause is the wait between tries of a commit that fails.
const retryPause = 500 * time.Millisecond

// Submitted takes a message of JOBS; see [jobs.Sink].
func (s *Store) Submitted(m *jobs.Message) {
	m.Checked = s.o.Checked != nil && s.o.Checked(m.ID)
	s.queue.submitted(m)
}

// Happened takes events of STATUS; see [jobs.Sink].
func (s *Store) Happened(seq uint64, events []jobs.Event) { s.queue.happened(seq, events) }

// Listen has listen called with every commit from now on: in order, one at a time, and
// each after those who have listened longer. listen runs while the next
// batch is folded; it must not block for long, as the projector waits then.
func (s *Store) Listen(listen func(*jobs.Commit)) {
	s.mu.Lock()
	s.listeners = append(s.listeners, listen)
	s.mu.Unlock()
}

// publish calls all listeners with a commit.
func (s *Store) publish(c *jobs.Commit) {
	s.mu.RLock()
	listeners := s.listeners
	s.mu.RUnlock()
	for _, listen := range listeners {
		listen(c)
	}
	s.published.Store(&c.Positions)
	s.wake()
}

// Run is the projector: it reads from the source, folds, commits, and calls those who
// listen. It returns nil when ctx has ended and what was read until then is committed; a
// source's error ends it, too.
func (s *Store) Run(ctx context.Context, source Source) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	begun := s.Positions()
	s.published.Store(&begun)
	read := make(chan error, 1)
	go func() { read <- source.Read(reading, s.Positions(), s) }()

	commits := make(chan *jobs.Commit, 8)
	publishing := make(chan struct{})
	go func() {
		defer close(publishing)
		for c := range commits {
			s.publish(c)
		}
	}()
	defer func() {
		close(commits)
		<-publishing
	}()

	tick := time.NewTicker(s.o.OutboxAge / 2)
	defer tick.Stop()
	var b batch
	var pace pace
	for {
		select {
		case <-s.queue.ready:
		case <-tick.C:
			if !s.outboxHasOld() {
				continue
			}
		case <-ctx.Done():
			s.queue.close()
			<-read // it ends because its context did
			s.queue.drain(&b)
			s.commit(context.WithoutCancel(ctx), &b, commits, true)
			return s.Health()
		case err := <-read:
			if ctx.Err() != nil {
				// It ended because ctx did: the other case would do as well.
				read <- err
				continue
			}
			s.queue.close()
			return fmt.Errorf("reading the streams: %w", err)
		}
		s.space(ctx, pace.wait(time.Now(), s.o.Spacing))
		s.queue.drain(&b)
		begun := time.Now()
		for !s.commit(ctx, &b, commits, false) {
			if ctx.Err() != nil {
				s.queue.close()
				<-read // it ends because its context did
				return s.Health()
			}
		}
		pace.done(begun, time.Now(), len(b.messages)+len(b.events))
		b.reset()
	}
}

// pace keeps commits apart while there is much to do. What comes meanwhile
// shares the next one; and while the disk syncs the tracker's file, it may keep
// the streams from writing theirs (ext4 does), so that commits without a pause
// between them bring next to nothing each.
type pace struct {
	begun, ended time.Time // of the last commit
	large        bool      // so was its batch
	busy         time.Time // when the last large one ended
}

// done records a commit of n messages and events.
func (p *pace) done(begun, ended time.Time, n int) {
	p.begun, p.ended, p.large = begun, ended, n >= large
	if n >= busy {
		p.busy = ended
	}
}

// wait is how long the next commit must wait: until spacing has passed since the
// last one's start, and half of it since its end; more after a large one.
func (p *pace) wait(now time.Time, spacing time.Duration) time.Duration {
	if now.Sub(p.busy) > busyFor {
		return 0
	}
	if p.large {
		spacing *= largeSpace
	}
	return max(spacing-now.Sub(p.begun), spacing/2-now.Sub(p.ended))
}

// space waits for d, but not beyond the end of ctx.
func (s *Store) space(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// commit makes one batch durable and passes on what it made true. False says
// that it failed and a pause is over: try again. With once it is tried once.
func (s *Store) commit(ctx context.Context, b *batch, commits chan<- *jobs.Commit, once bool) bool {
	publish := func(c *jobs.Commit) {
		commits <- c
		s.wake()
	}
	if len(b.tasks) > 0 {
		done := s.runTasks(b.tasks, publish)
		b.tasks = nil
		if done && b.empty() && s.Health() == nil {
			return true // their commit wrote all that there is
		}
	}
	poison, err := s.foldOnce(b, publish)
	if poison {
		err = s.isolate(b, err, publish)
	}
	if err == nil {
		if s.healthy.Swap(nil) != nil {
			s.log.Info("the tracker can write again")
		}
		return true
	}
	s.fail(err)
	if once {
		return true
	}
	t := time.NewTimer(retryPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

func (s *Store) fail(err error) {
	s.bits.Reset()
	err = fmt.Errorf("the tracker cannot write to %s: %w", s.o.Path, err)
	if s.healthy.Swap(&err) == nil {
		s.log.Error("the tracker cannot commit; nothing is accepted or finished until it can. Is the disk full or read-only?", "error", err)
	}
}

// fold runs one transaction over the batch; it changes nothing in memory unless
// the transaction is committed, so it may be repeated. rest are events that are left for
// the next one, as their jobs have so large payloads: only with them the position in
// STATUS moves.
func (s *Store) fold(b *batch, in input) (c *jobs.Commit, rest []jobs.Event, err error) {
	var f *fold
	begun, folded := false, false
	err = s.db.Update(func(tx *bbolt.Tx) error {
		begun, rest = true, nil
		f = s.newFold(tx, min(len(b.messages)+len(b.events), maxBatch), in)
		f.out.Outcomes = append(make([]jobs.Event, 0, len(b.events)), b.outcomes...) // nearly all of them are of that kind
		for i := range b.messages {
			m := &b.messages[i]
			if m.Seq <= f.pos.Jobs {
				continue
			}
			if err := f.submitted(m); err != nil {
				return err
			}
		}
		for i := range b.events {
			if f.read >= maxBatchBytes {
				rest = b.events[i:]
				break
			}
			if err := f.happened(&b.events[i]); err != nil {
				return err
			}
		}
		f.pos.Jobs = max(f.pos.Jobs, b.jobs)
		if len(rest) == 0 {
			f.pos.Status = max(f.pos.Status, b.status)
		}
		err := f.finish(f.pos)
		folded = err == nil
		return err
	})
	switch {
	case err != nil && begun && !folded && !errors.Is(err, boltfile.ErrDamaged):
		return nil, nil, &foldError{err}
	case err != nil:
		return nil, nil, err
	}
	return s.committed(f), rest, nil
}

// runTasks does commands in one transaction, and tells each what it has come to. If that
// fails, each is tried by itself. done says that all were committed.
func (s *Store) runTasks(tasks []*task, publish func(*jobs.Commit)) (done bool) {
	answers, c, err := s.doAll(tasks, s.input())
	if err != nil && len(tasks) > 1 {
		done = true
		for i := range tasks {
			done = s.runTasks(tasks[i:i+1], publish) && done
		}
		return done
	}
	if err != nil {
		s.log.Error("a command could not be committed", "command", fmt.Sprintf("%T", tasks[0].command), "error", err)
		tasks[0].done <- answer{err: unavailable(err)}
		return false
	}
	for i, t := range tasks {
		t.done <- answers[i]
	}
	publish(c)
	return true
}

// doAll is one transaction of commands. One that fails with a [*jobs.Error] has changed
// nothing, and the others count; any other error undoes all.
func (s *Store) doAll(tasks []*task, in input) (answers []answer, c *jobs.Commit, err error) {
	answers = make([]answer, len(tasks))
	var f *fold
	err = s.db.Update(func(tx *bbolt.Tx) error {
		f = s.newFold(tx, 0, in)
		for i, t := range tasks {
			a := answer{err: t.ctx.Err()}
			if a.err == nil { // else nobody waits for it any more
				a.effect, a.err = f.do(t.command)
				if _, known := asRefusal(a.err); a.err != nil && !known {
					return a.err
				}
			}
			answers[i] = a
		}
		return f.finish(f.pos)
	})
	if err != nil {
		s.bits.Reset()
		return nil, nil, err
	}
	return answers, s.committed(f), nil
}

// committed brings what is kept in memory up to date with a transaction.
func (s *Store) committed(f *fold) *jobs.Commit {
	if f.out.Number != 0 {
		s.number.Store(f.out.Number)
	}
	s.rebuild.Store(f.rebuild)
	s.liveMu.Lock()
	for _, w := range f.order {
		if w.old != nil && w.old.Seq != w.job.Seq {
			s.live.Remove(w.old.Seq)
		}
		if inQueue(w.job) {
			s.live.Add(w.job.Seq)
		} else {
			s.live.Remove(w.job.Seq)
		}
	}
	f.out.Load.Queued = s.live.Len()
	s.liveMu.Unlock()
	s.recent.update(f.order)
	s.gone.remember(f.removed, f.in.now)
	s.mu.Lock()
	for name, c := range f.counters {
		s.counters[name] = c
	}
	s.mu.Unlock()
	f.out.Load.Unfinished, f.out.Load.Scheduled = s.Totals()
	s.position.Store(f.out.Positions.Jobs)
	s.statusPosition.Store(f.out.Positions.Status)
	return &f.out
}

// taskLook is how often a task that waits for its turn looks whether there will
// be one.
const taskLook = 250 * time.Millisecond

// Do does a command on the writer, which must be running; see [jobs.Doer]. While the
// tracker cannot commit it fails with an [*jobs.Error] of kind Unavailable, and the
// command is not begun later.
func (s *Store) Do(ctx context.Context, c jobs.Command) (e jobs.Effect, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.Health(); err != nil {
		return e, unavailable(err)
	}
	t := &task{ctx: ctx, command: c, done: make(chan answer, 1)}
	if !s.queue.push(t) {
		return e, boltfile.ErrClosed
	}
	tick := time.NewTicker(taskLook)
	defer tick.Stop()
	for {
		select {
		case a := <-t.done:
			return a.effect, a.err
		case <-ctx.Done():
			return e, ctx.Err()
		case <-tick.C:
			if err := s.Health(); err != nil {
				return e, unavailable(err)
			}
		}
	}
}

// Prepare does a command before Run is there to do it; nothing is published.
func (s *Store) Prepare(c jobs.Command) (jobs.Effect, error) {
	answers, _, err := s.doAll([]*task{{ctx: context.Background(), command: c}}, s.input())
	if err != nil {
		return jobs.Effect{}, err
	}
	return answers[0].effect, answers[0].err
}

func unavailable(err error) *jobs.Error {
	return &jobs.Error{Kind: jobs.Unavailable, Detail: err.Error(), RetryAfter: time.Second}
}

// WaitFor returns once the committed positions have reached at least pos.
func (s *Store) WaitFor(ctx context.Context, pos jobs.Positions) error {
	return s.waitFor(ctx, pos, s.Positions)
}

// WaitPublished returns once the listeners have been called with all commits up to pos; see
// [Store.Run], which must have begun.
func (s *Store) WaitPublished(ctx context.Context, pos jobs.Positions) error {
	return s.waitFor(ctx, pos, func() jobs.Positions { return *s.published.Load() })
}

func (s *Store) waitFor(ctx context.Context, pos jobs.Positions, reached func() jobs.Positions) error {
	return s.until(ctx, "the tracker to catch up", func() bool {
		have := reached()
		return have.Jobs >= pos.Jobs && have.Status >= pos.Status
	})
}

// until waits for what becomes true with a commit, or is announced by wake.
func (s *Store) until(ctx context.Context, what string, ok func() bool) error {
	for {
		ch := s.wait()
		if ok() {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		}
	}
}

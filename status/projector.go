package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/replica"
	"jobstream/status/boltfile"
	"jobstream/status/index"
)

// Source reads both streams from given positions on, and feeds a sink until ctx ends.
// The broker is one.
type Source interface {
	Read(ctx context.Context, from jobs.Positions, sink jobs.Sink) error
}

// retryPause is the wait between tries of a commit that fails.
const retryPause = 500 * time.Millisecond

// Projector is the one goroutine that writes, in [Projector.Run]. It folds the messages
// of the streams and the commands that have queued up, in one transaction. Its fields
// belong to that goroutine, unless a comment says otherwise.
type Projector struct {
	db            *boltfile.File
	latest        *Latest
	commits       *Commits
	notifications *Notifications

	path     string
	registry *jobs.Registry
	checked  func(jobs.ID) bool
	spacing  time.Duration
	webhooks jobs.Webhooks
	log      *slog.Logger

	inbox   *inbox                // any goroutine fills it
	healthy atomic.Pointer[error] // any goroutine reads it
	share   share                 // any goroutine
	writing sync.Mutex            // between two that change the file
	bits    index.Cache
	encoder encoder
	gone    goneJobs
	refused refusals

	onFold func(any) // a message or an event: tests break folds with it; nil otherwise
}

// Submitted takes a message of JOBS; see [jobs.Sink].
func (p *Projector) Submitted(m *jobs.Message) {
	m.Checked = p.checked != nil && p.checked(m.ID)
	p.inbox.submitted(m)
}

// Happened takes events of STATUS; see [jobs.Sink].
func (p *Projector) Happened(seq uint64, events []jobs.Event) { p.inbox.happened(seq, events) }

// Run is the projector: it reads from the source, folds, commits, and publishes. It
// returns nil when ctx has ended and everything read until then is committed. An error
// of the source ends it, too, and so does [replica.ErrDeposed]. It may be called
// again after [Replica.Lead] or [Replica.Resume].
func (p *Projector) Run(ctx context.Context, source Source) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	begun := p.latest.Positions()
	p.commits.published.Store(&begun)
	read := make(chan error, 1)
	go func() { read <- source.Read(reading, p.latest.Positions(), p) }()

	commits := make(chan *jobs.Commit, 8)
	publishing := make(chan struct{})
	go func() {
		defer close(publishing)
		for c := range commits {
			p.commits.publish(c)
		}
	}()
	defer func() {
		close(commits)
		<-publishing
	}()

	tick := time.NewTicker(p.notifications.age / 2)
	defer tick.Stop()
	var b batch
	var pace pace
	for {
		select {
		case <-p.inbox.ready:
		case <-tick.C:
			if !p.notifications.outboxHasOld() {
				continue
			}
		case <-ctx.Done():
			p.inbox.close()
			<-read // it ends because its context did
			p.inbox.drain(&b)
			p.commit(context.WithoutCancel(ctx), &b, commits, true)
			return p.Health()
		case err := <-read:
			if ctx.Err() != nil {
				// It ended because ctx did: the other case would do as well.
				read <- err
				continue
			}
			p.inbox.close()
			return fmt.Errorf("reading the streams: %w", err)
		}
		p.space(ctx, pace.wait(time.Now(), p.spacing))
		p.inbox.drain(&b)
		begun := time.Now()
		for !p.commit(ctx, &b, commits, false) {
			if ctx.Err() != nil || errors.Is(p.Health(), replica.ErrDeposed) {
				stop()
				p.inbox.close()
				<-read // it ends because its context did
				return p.Health()
			}
		}
		pace.done(begun, time.Now(), len(b.messages)+len(b.events))
		b.reset()
	}
}

// space waits for d, but not beyond the end of ctx.
func (p *Projector) space(ctx context.Context, d time.Duration) {
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

// commit makes one batch durable and publishes the commits. False means that it failed
// and a pause is over: the caller tries again. With once there is only one try.
func (p *Projector) commit(ctx context.Context, b *batch, commits chan<- *jobs.Commit, once bool) bool {
	publish := func(c *jobs.Commit) {
		commits <- c
		p.commits.wake()
	}
	if len(b.tasks) > 0 {
		done := p.runTasks(b.tasks, publish)
		b.tasks = nil
		if done && b.empty() && p.Health() == nil {
			return true // their commit wrote all that there is
		}
	}
	poison, err := p.foldOnce(b, publish)
	if poison {
		err = p.isolate(b, err, publish)
	}
	if err == nil {
		if p.healthy.Swap(nil) != nil {
			p.log.Info("the tracker can write again")
		}
		return true
	}
	p.fail(err)
	if once {
		return true
	}
	if errors.Is(err, replica.ErrDeposed) {
		return false
	}
	t := time.NewTimer(retryPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

func (p *Projector) fail(err error) {
	p.bits.Reset()
	if errors.Is(err, replica.ErrDeposed) {
		p.healthy.Store(&err)
		return
	}
	err = fmt.Errorf("the tracker cannot write to %s: %w", p.path, err)
	if p.healthy.Swap(&err) == nil {
		p.log.Error("the tracker cannot commit; nothing is accepted or finished until it can. Is the disk full or read-only?", "error", err)
	}
}

// fold runs one transaction over the batch. It changes nothing in memory unless the
// transaction is committed, so it may be repeated. rest are events left for the next
// transaction, because the payloads of their jobs are so large. The position in STATUS
// moves only with them.
func (p *Projector) fold(b *batch, in input) (c *jobs.Commit, rest []jobs.Event, err error) {
	var f *fold
	err = p.change(func(tx *boltfile.Tx) (*jobs.Commit, error) {
		rest = nil
		f = p.newFold(tx, min(len(b.messages)+len(b.events), maxBatch), in)
		f.out.Outcomes = append(make([]jobs.Event, 0, len(b.events)), b.outcomes...) // nearly all of them are of that kind
		for i := range b.messages {
			m := &b.messages[i]
			if m.Seq <= f.pos.Jobs {
				continue
			}
			if err := f.submitted(m); err != nil {
				return nil, err
			}
		}
		for i := range b.events {
			if f.records.payloadBytes >= maxBatchBytes {
				rest = b.events[i:]
				break
			}
			if err := f.happened(&b.events[i]); err != nil {
				return nil, err
			}
		}
		f.pos.Jobs = max(f.pos.Jobs, b.jobs)
		if len(rest) == 0 {
			f.pos.Status = max(f.pos.Status, b.status)
		}
		return &f.out, f.finish()
	})
	if err != nil {
		return nil, nil, err
	}
	return p.committed(f.result(), f.began), rest, nil
}

// committed applies a committed transaction to what is kept in memory.
func (p *Projector) committed(r *result, began time.Time) *jobs.Commit {
	p.latest.update(r)
	p.gone.remember(r.removed, r.commit.At)
	if !p.share.alone() { // then submissions are published again
		p.refused.remember(r.commit.Answers, r.commit.At)
	}
	r.commit.Took = time.Since(began)
	return r.commit
}

// renew forgets what the projector knows of its last run.
func (p *Projector) renew() {
	p.bits.Reset()
	p.healthy.Store(nil)
}

// Health is nil, or why the last commit failed. Nothing new becomes durable until one
// succeeds.
func (p *Projector) Health() error {
	if p := p.healthy.Load(); p != nil {
		return *p
	}
	return nil
}

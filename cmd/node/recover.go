package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync/atomic"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/status"
)

// The tracker is right. The streams are a transport that may have gone back, lost parts
// or vanished. So a start after anything but a clean stop makes the transport anew from
// the tracker:
//
//  1. Lanes are deleted and made afresh; streams that do not load are repaired (the
//     broker does that; see broker.Options.Rebuild).
//  2. JOBS is purged up to the tracker's position. That also lifts its sequence if it
//     has gone back: no committed sequence is ever used twice. If only the process
//     died, and JOBS provably has every message that is needed, this and step 6 are
//     left out.
//  3. STATUS is history and stays. If it has gone back, so does the position in it.
//  4. Everything beyond the positions in both streams is folded.
//  5. Jobs that were running have lost their worker, unless that is elsewhere. Then it has
//     its lease still, and the pool adopts it.
//  6. Every unfinished job whose message was purged is published again.
//  7. The outbox is published again, while everything else goes on.
//
// Each step may be interrupted and repeated.

// recovery is one start's view of streams and tracker, and the steps that bring them
// together. The goroutine that starts the core owns it; the tail calls restore later.
type recovery struct {
	o         *coreOptions
	node      string // name of this node
	store     *status.Store
	broker    *broker.Broker // set by openBroker
	log       *slog.Logger
	sameBoot  bool   // the last start was in the same run of the operating system
	intact    bool   // after a crash: JOBS has all needed messages
	survivors uint64 // after a crash: the last sequence in JOBS
}

// openBroker starts the broker. clean says that the last stop was clean and nothing has
// changed since.
func (r *recovery) openBroker(ctx context.Context) (clean bool, err error) {
	mark, marked, sameBoot, err := r.store.RemoveClean(bootID(r.o.Recovery.BootFile))
	if err != nil {
		return false, err
	}
	r.sameBoot = sameBoot
	if r.broker, err = r.openBrokerOnce(ctx, !marked); err != nil {
		return false, err
	}
	if !marked {
		return false, nil
	}
	why, err := r.strayed(ctx, mark)
	if err != nil {
		return false, err
	}
	if why == "" {
		return true, nil
	}
	r.log.Warn("the streams are not as the last stop left them; making them anew from the tracker", "reason", why)
	r.broker.Close()
	r.broker, err = r.openBrokerOnce(ctx, true)
	return false, err
}

func (r *recovery) openBrokerOnce(ctx context.Context, rebuild bool) (*broker.Broker, error) {
	o := r.o.brokerOptions(r.node)
	o.Rebuild = rebuild
	// A message that a client published before streams and tracker agree could get
	// a used sequence, and be purged.
	o.HoldPort = true
	return broker.Open(ctx, o)
}

// brokerOptions are those of the broker of the node with this name.
func (o *coreOptions) brokerOptions(node string) broker.Options {
	return broker.Options{
		Identify: identifier(o.Keyring), Surface: surface(o.registry),
		Dir: o.dirs.Broker, Node: node, Host: o.nats.host, Port: o.nats.port, TLS: o.Broker.TLS,
		SyncInterval: o.Broker.Sync, SyncAlways: o.Broker.SyncAlways, QueueSize: o.Bounds.Queue,
		MaxConns: o.Bounds.Conns, MaxPayload: o.maxPayload(), Lease: o.Workers.Lease, Cluster: o.Broker.Cluster, Trace: o.traceNotifications(), Logger: o.Logger,
	}
}

// strayed is the difference of the streams from the state of a clean stop; "" if there
// is none.
func (r *recovery) strayed(ctx context.Context, mark status.Clean) (string, error) {
	inJobs, err := r.broker.Streams.Jobs(ctx)
	if err != nil {
		return "", err
	}
	inStatus, err := r.broker.Streams.Status(ctx)
	if err != nil {
		return "", err
	}
	floor, unfinished := r.store.Floor()
	switch {
	case inJobs.Last < mark.Jobs:
		return fmt.Sprintf("JOBS ends at %d, not %d", inJobs.Last, mark.Jobs), nil
	case inStatus.Last < mark.Status:
		return fmt.Sprintf("STATUS ends at %d, not %d", inStatus.Last, mark.Status), nil
	case unfinished > 0 && inJobs.First > floor:
		return fmt.Sprintf("JOBS begins at %d, but a job at %d is unfinished", inJobs.First, floor), nil
	case int(inJobs.Msgs) < unfinished:
		return fmt.Sprintf("JOBS has %d messages for %d unfinished jobs", inJobs.Msgs, unfinished), nil
	}
	return "", nil
}

// recover brings the queue to the state of the tracker. The streams are aligned, and
// the projector runs.
func (r *recovery) recover(ctx context.Context, clean bool) error {
	if clean {
		if err := r.catchUp(ctx); err != nil {
			return err
		}
		_, _, err := r.interrupted(ctx) // workers elsewhere go on through a stop
		return err
	}
	begun := time.Now()
	old := r.store.Positions()
	notified, err := r.store.Unnotified()
	if err != nil {
		return err
	}
	isNew := r.store.New()
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	_, queued := r.store.Floor()
	if err := r.broker.Streams.SetSlack(ctx, queued); err != nil {
		return err
	}
	upTo, err := r.lift(ctx, old.Jobs)
	if err != nil {
		return err
	}
	lost, failed, err := r.interrupted(ctx)
	if err != nil {
		return err
	}
	again := 0
	if !r.intact {
		if again, err = r.republish(ctx, upTo); err != nil {
			return err
		}
	}
	state, err := r.broker.Streams.Jobs(ctx)
	if err != nil {
		return err
	}
	if !r.o.again { // else none of the jobs has done any harm
		r.survivors = state.Last
	}
	if isNew {
		if _, err := r.store.Do(ctx, jobs.EndRebuild{Stamp: jobs.By(starting)}); err != nil {
			return err
		}
	}
	if again+lost+notified > 0 || isNew && r.store.Positions() != old {
		said, count := "recovered after a stop that was not clean", "lost their worker"
		if r.o.again {
			said, count = "recovered what the broker had", "interrupted"
		}
		r.log.Info(said, "queued again", again, count, lost,
			"failed for it", failed, "notifying again", notified, "took", time.Since(begun).Round(time.Millisecond))
	}
	return nil
}

// starting is the actor of a start's commands.
const starting = "start"

// interrupted ends the attempts that were running here. In a process that has died each
// of their jobs may be the killer, and that counts. A process that lives has interrupted
// them itself. The tracker must have caught up, as the streams may hold the ends of
// some. After a clean stop these are the jobs of types that are not remote any more.
func (r *recovery) interrupted(ctx context.Context) (lost, failed int, err error) {
	var keys []uint64
	err = atWork(r.store, func(j *jobs.Job) bool {
		if !leased(r.o.registry, j) {
			keys = append(keys, j.Key)
		}
		return true
	})
	if err != nil || len(keys) == 0 {
		return 0, 0, err
	}
	var c jobs.Command = jobs.Lose{Stamp: jobs.By(starting), Keys: keys, MaxLost: r.o.Workers.MaxLost}
	if r.o.again {
		c = jobs.Release{Stamp: jobs.By(starting), Keys: keys, Why: "the broker was started anew"}
	}
	e, err := r.store.Do(ctx, c)
	for _, j := range e.Changed {
		if j.Status.Ended() {
			failed++
		}
	}
	return len(e.Changed), failed, err
}

// atWork calls f with each processing job, until it returns false.
func atWork(store *status.Store, f func(*jobs.Job) bool) error {
	keys, err := store.Running()
	for i := 0; i < len(keys) && err == nil; i++ {
		var j *jobs.Job
		if j, err = store.Find(keys[i]); j != nil && j.Status == jobs.Processing && !f(j) {
			break
		}
	}
	return err
}

// leased says whether the worker of a processing job is elsewhere.
func leased(r *jobs.Registry, j *jobs.Job) bool {
	t := r.Lookup(j.Type)
	return t != nil && (t.Remote || t.HandsOver || jobs.OfMember(j.Node) && t.Anywhere())
}

// adopted are the jobs whose workers are elsewhere and have them still.
func (c *core) adopted() (iter.Seq[*jobs.Job], error) {
	count := 0
	err := atWork(c.Store, func(j *jobs.Job) bool {
		if leased(c.o.registry, j) {
			count++
		}
		return true
	})
	if err != nil || count == 0 {
		return nil, err
	}
	c.log.Info("workers elsewhere have jobs; their leases go on", "jobs", count)
	return func(yield func(*jobs.Job) bool) {
		// The tracker has just read all of them. A job that it cannot read once more is
		// found when its message is delivered.
		_ = atWork(c.Store, func(j *jobs.Job) bool { return !leased(c.o.registry, j) || yield(j) })
	}, nil
}

// lift raises the sequence of JOBS above all that the tracker knows, if the tracker was
// rebuilt from the other streams and JOBS was lost, too. Otherwise new jobs would get
// sequences of old ones. It returns the sequence up to which JOBS has been purged.
func (r *recovery) lift(ctx context.Context, purged uint64) (uint64, error) {
	if !r.store.New() {
		return purged, nil
	}
	highest, err := r.store.HighestKey()
	if err != nil {
		return purged, err
	}
	state, err := r.broker.Streams.Jobs(ctx)
	if err != nil || state.Last >= highest {
		return purged, err
	}
	return highest, r.broker.Streams.PurgeJobs(ctx, highest)
}

// alignStreams brings streams and positions together before anything reads or writes
// the streams.
func (r *recovery) alignStreams(ctx context.Context) error {
	pos := r.store.Positions()
	if r.store.New() {
		if err := r.seed(ctx); err != nil {
			return err
		}
	}
	inStatus, err := r.broker.Streams.Status(ctx)
	if err != nil {
		return err
	}
	if inStatus.Last < pos.Status {
		r.log.Warn("STATUS has gone back", "from", pos.Status, "to", inStatus.Last)
		pos.Status = inStatus.Last
		if _, err := r.store.Prepare(jobs.Rewind{Stamp: jobs.By(starting), To: pos}); err != nil {
			return err
		}
	}
	if r.intact, err = r.jobsIntact(ctx); err != nil || r.intact {
		return err
	}
	if pos.Jobs > 0 {
		return r.broker.Streams.PurgeJobs(ctx, pos.Jobs)
	}
	return nil
}

// maxGaps is how many missing messages jobsIntact checks.
const maxGaps = 1_000_000

// jobsIntact says whether JOBS has the message of every unfinished job. Only within one
// run of the operating system can that be known. Then everything that the dead process
// wrote is in the files, synced or not. Missing messages were removed as a whole: an
// older copy ends too early, and a lost block leaves a gap.
func (r *recovery) jobsIntact(ctx context.Context) (bool, error) {
	if !r.sameBoot {
		return false, nil
	}
	state, err := r.broker.Streams.Jobs(ctx)
	if err != nil {
		return false, err
	}
	floor, unfinished := r.store.Floor()
	if state.Last < r.store.Positions().Jobs || unfinished > 0 && (state.Msgs == 0 || state.First > floor) {
		return false, nil
	}
	gaps, all, err := r.broker.Streams.JobsGaps(ctx, maxGaps)
	if err != nil || !all {
		return false, err
	}
	missing, highest := r.store.Live(gaps)
	return !missing && highest <= state.Last, nil
}

// seed fills a new tracker with the ended jobs from the notifications.
func (r *recovery) seed(ctx context.Context) error {
	var some []*jobs.Job
	total := 0
	flush := func() error {
		if len(some) == 0 {
			return nil
		}
		total += len(some)
		_, err := r.store.Prepare(jobs.Seed{Stamp: jobs.By(starting), Ended: some})
		some = some[:0]
		return err
	}
	err := r.broker.Reader.Kept(ctx, func(body []byte) error {
		j := &jobs.Job{}
		if err := json.Unmarshal(body, j); err == nil { // others publish there, too
			some = append(some, j)
		}
		if len(some) < 1000 {
			return nil
		}
		return flush()
	})
	if err = errors.Join(err, flush()); err != nil {
		return fmt.Errorf("rebuild the tracker from notifications: %w", err)
	}
	if total > 0 {
		r.log.Warn("there was no tracker; rebuilding it from what the streams still hold", "ended jobs", total)
	}
	return nil
}

// catchUp waits until the tracker has folded the streams to their ends.
func (r *recovery) catchUp(ctx context.Context) error {
	pos, err := ends(ctx, r.store, r.broker)
	if err != nil {
		return err
	}
	if err := r.store.WaitFor(ctx, pos); err != nil {
		now := r.store.Positions()
		return fmt.Errorf("JOBS is read up to %d of %d, and STATUS up to %d of %d: %w", now.Jobs, pos.Jobs, now.Status, pos.Status, err)
	}
	return nil
}

// republishWindow is how many republished messages may be on their way.
const republishWindow = 8192

// republish publishes every unfinished job again whose message is at or below upTo, in
// the order of submission.
func (r *recovery) republish(ctx context.Context, upTo uint64) (count int, err error) {
	if upTo == 0 {
		return 0, nil
	}
	state, err := r.broker.Streams.Jobs(ctx)
	if err != nil {
		return 0, err
	}
	var refusal atomic.Pointer[error]
	refused := func(err error) { refusal.CompareAndSwap(nil, &err) }
	err = r.store.Unfinished(ctx, func(some []*jobs.Job) error {
		for _, j := range some {
			if j.Seq > upTo {
				continue
			}
			if err := r.broker.Inbox.Submit(j.Again(), refused); err != nil {
				return err
			}
			count++
		}
		if err := r.broker.Flush(); err != nil {
			return err
		}
		if p := refusal.Load(); p != nil {
			return *p
		}
		if count <= republishWindow {
			return nil
		}
		return r.store.WaitFor(ctx, jobs.Positions{Jobs: state.Last + uint64(count-republishWindow)})
	})
	if err == nil {
		err = r.awaitRepublished(ctx, state.Last+uint64(count), &refusal)
	}
	if err != nil {
		return count, fmt.Errorf("put unfinished jobs back into the queue: %w", err)
	}
	return count, nil
}

// awaitRepublished waits until the tracker has folded JOBS up to seq, or a
// message was refused.
func (r *recovery) awaitRepublished(ctx context.Context, seq uint64, refusal *atomic.Pointer[error]) error {
	for {
		short, cancel := context.WithTimeout(ctx, time.Second)
		err := r.store.WaitFor(short, jobs.Positions{Jobs: seq})
		cancel()
		if err == nil {
			return nil
		}
		if p := refusal.Load(); p != nil {
			return *p
		}
		if ctx.Err() != nil {
			return err
		}
	}
}

// restore publishes the messages again that somebody else has removed from JOBS.
func (r *recovery) restore(ctx context.Context, upTo uint64) error {
	count, err := r.republish(ctx, upTo)
	if err != nil {
		return err
	}
	r.log.Warn("messages of unfinished jobs were removed from the JOBS stream; they have been published again", "jobs", count)
	return nil
}

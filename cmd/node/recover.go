package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/status"
)

// The tracker is what is true; the streams are a transport that may have gone
// back, lost parts or vanished. So a start after anything but a clean stop makes
// the transport anew from the tracker:
//
//  1. Lanes are deleted and made afresh; streams that do not load are repaired
//     (the broker does that, told by Rebuild).
//  2. JOBS is purged up to the tracker's position, which also lifts its sequence
//     if that has gone back: no committed sequence is ever used twice. If only the
//     process died and JOBS provably has every message that is needed, this and
//     step 6 are left out.
//  3. STATUS is history and stays; if it has gone back, so does the position in it.
//  4. What both streams hold beyond the positions is folded.
//  5. Jobs that were running have lost their worker.
//  6. Every unfinished job whose message went with the purge is published again.
//  7. The outbox is published again, while everything else goes on.
//
// Each step may be interrupted and done again.

// openBroker starts the broker. clean says that everything is as a clean stop
// left it.
func (n *Core) openBroker(ctx context.Context) (clean bool, err error) {
	mark, marked, sameBoot, err := n.Store.RemoveClean(bootID())
	if err != nil {
		return false, err
	}
	n.sameBoot = sameBoot
	if n.Broker, err = n.openBrokerOnce(ctx, !marked); err != nil {
		return false, err
	}
	if !marked {
		return false, nil
	}
	why, err := n.strayed(ctx, mark)
	if err != nil {
		return false, err
	}
	if why == "" {
		return true, nil
	}
	n.log.Warn("the streams are not as the last stop left them; making them anew from the tracker", "reason", why)
	n.Broker.Close()
	n.Broker, err = n.openBrokerOnce(ctx, true)
	return false, err
}

func (n *Core) openBrokerOnce(ctx context.Context, rebuild bool) (*broker.Broker, error) {
	return broker.Open(ctx, broker.Options{
		Dir: n.o.Dirs.Broker, Node: n.name, Host: n.o.Host, Port: n.o.Port,
		SyncInterval: n.o.Sync, SyncAlways: n.o.SyncAlways, QueueSize: n.o.QueueSize,
		MaxConns: n.o.MaxConns, MaxPayload: n.o.MaxPayload, Lease: n.o.Lease, Rebuild: rebuild, Logger: n.log,
		// What a client published before streams and tracker agree could get a
		// sequence that was given before, and be purged.
		HoldPort: true,
	})
}

// strayed says how the streams differ from what a clean stop left, "" if they
// don't.
func (n *Core) strayed(ctx context.Context, mark status.Clean) (string, error) {
	inJobs, err := n.Broker.Streams.Jobs(ctx)
	if err != nil {
		return "", err
	}
	inStatus, err := n.Broker.Streams.Status(ctx)
	if err != nil {
		return "", err
	}
	floor, unfinished := n.Store.Floor()
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

// recover makes the queue what the tracker says it is. The streams are aligned,
// and the projector runs.
func (n *Core) recover(ctx context.Context, clean bool) error {
	if clean {
		return n.catchUp(ctx)
	}
	begun := time.Now()
	old := n.Store.Positions()
	notified, err := n.Store.Unnotified()
	if err != nil {
		return err
	}
	isNew := n.Store.New()
	if err := n.catchUp(ctx); err != nil {
		return err
	}
	_, queued := n.Store.Floor()
	if err := n.Broker.Streams.SetSlack(ctx, queued); err != nil {
		return err
	}
	upTo, err := n.lift(ctx, old.Jobs)
	if err != nil {
		return err
	}
	lost, failed, err := n.takeBack(ctx)
	if err != nil {
		return err
	}
	again := 0
	if !n.intact {
		if again, err = n.republish(ctx, upTo); err != nil {
			return err
		}
	}
	state, err := n.Broker.Streams.Jobs(ctx)
	if err != nil {
		return err
	}
	if !n.o.Again { // else none of the jobs has done any harm
		n.survivors = state.Last
	}
	if isNew {
		if _, err := n.Store.Do(ctx, jobs.EndRebuild{Stamp: jobs.By(starting)}); err != nil {
			return err
		}
	}
	if again+lost+notified > 0 || isNew && n.Store.Positions() != old {
		said, count := "recovered after a stop that was not clean", "lost their worker"
		if n.o.Again {
			said, count = "recovered what the broker had", "interrupted"
		}
		n.log.Info(said, "queued again", again, count, lost,
			"failed for it", failed, "notifying again", notified, "took", time.Since(begun).Round(time.Millisecond))
	}
	return nil
}

// starting is the actor of what a start commands.
const starting = "start"

// takeBack ends what was running. In a process that has died each job may be what
// killed it, and that counts; one that lives on has interrupted them itself. The
// tracker must have caught up: the streams may hold the end of some.
func (n *Core) takeBack(ctx context.Context) (lost, failed int, err error) {
	keys, err := n.Store.Running()
	if err != nil || len(keys) == 0 {
		return 0, 0, err
	}
	var c jobs.Command = jobs.Lose{Stamp: jobs.By(starting), Keys: keys, MaxLost: n.o.MaxLost}
	if n.o.Again {
		c = jobs.Release{Stamp: jobs.By(starting), Keys: keys, Why: "the broker was started anew"}
	}
	e, err := n.Store.Do(ctx, c)
	for _, j := range e.Changed {
		if j.Status.Ended() {
			failed++
		}
	}
	return len(e.Changed), failed, err
}

// lift raises the sequence of JOBS above all that the tracker knows, if it was
// rebuilt from the other streams and JOBS was lost, too: else new jobs would get
// sequences that stand for old ones. It returns up to where JOBS has been purged.
func (n *Core) lift(ctx context.Context, purged uint64) (uint64, error) {
	if !n.Store.New() {
		return purged, nil
	}
	highest, err := n.Store.HighestKey()
	if err != nil {
		return purged, err
	}
	state, err := n.Broker.Streams.Jobs(ctx)
	if err != nil || state.Last >= highest {
		return purged, err
	}
	return highest, n.Broker.Streams.PurgeJobs(ctx, highest)
}

// alignStreams brings streams and positions together before anything reads or
// writes them.
func (n *Core) alignStreams(ctx context.Context) error {
	pos := n.Store.Positions()
	if n.Store.New() {
		if err := n.seed(ctx); err != nil {
			return err
		}
	}
	inStatus, err := n.Broker.Streams.Status(ctx)
	if err != nil {
		return err
	}
	if inStatus.Last < pos.Status {
		n.log.Warn("STATUS has gone back", "from", pos.Status, "to", inStatus.Last)
		pos.Status = inStatus.Last
		if _, err := n.Store.Prepare(jobs.Rewind{Stamp: jobs.By(starting), To: pos}); err != nil {
			return err
		}
	}
	if n.intact, err = n.jobsIntact(ctx); err != nil || n.intact {
		return err
	}
	if pos.Jobs > 0 {
		return n.Broker.Streams.PurgeJobs(ctx, pos.Jobs)
	}
	return nil
}

// maxGaps is how many missing messages jobsIntact looks at.
const maxGaps = 1_000_000

// jobsIntact says whether JOBS has the message of every unfinished job. That
// can be told only within one run of the operating system: then whatever the
// dead process wrote is in the files, synced or not, and what is not there was
// taken away as a whole: an older copy ends too early, a lost block leaves a gap.
func (n *Core) jobsIntact(ctx context.Context) (bool, error) {
	if !n.sameBoot {
		return false, nil
	}
	state, err := n.Broker.Streams.Jobs(ctx)
	if err != nil {
		return false, err
	}
	floor, unfinished := n.Store.Floor()
	if state.Last < n.Store.Positions().Jobs || unfinished > 0 && (state.Msgs == 0 || state.First > floor) {
		return false, nil
	}
	gaps, all, err := n.Broker.Streams.JobsGaps(ctx, maxGaps)
	if err != nil || !all {
		return false, err
	}
	missing, highest := n.Store.Live(gaps)
	return !missing && highest <= state.Last, nil
}

// seed takes into a new tracker what the notifications know of ended jobs.
func (n *Core) seed(ctx context.Context) error {
	var some []*jobs.Job
	total := 0
	flush := func() error {
		if len(some) == 0 {
			return nil
		}
		total += len(some)
		_, err := n.Store.Prepare(jobs.Seed{Stamp: jobs.By(starting), Ended: some})
		some = some[:0]
		return err
	}
	err := n.Broker.Reader.Kept(ctx, func(body []byte) error {
		j := &jobs.Job{}
		if err := json.Unmarshal(body, j); err == nil { // else it is somebody else's message
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
		n.log.Warn("there was no tracker; rebuilding it from what the streams still hold", "ended jobs", total)
	}
	return nil
}

// catchUp waits until the tracker has folded what the streams hold.
func (n *Core) catchUp(ctx context.Context) error {
	pos, err := n.ends(ctx)
	if err != nil {
		return err
	}
	return n.Store.WaitFor(ctx, pos)
}

// republishWindow is how many messages may be on their way back into the queue.
const republishWindow = 8192

// republish publishes every unfinished job again whose message is at or below a
// sequence, in the order in which they came.
func (n *Core) republish(ctx context.Context, upTo uint64) (count int, err error) {
	if upTo == 0 {
		return 0, nil
	}
	state, err := n.Broker.Streams.Jobs(ctx)
	if err != nil {
		return 0, err
	}
	var refusal atomic.Pointer[error]
	refused := func(err error) { refusal.CompareAndSwap(nil, &err) }
	err = n.Store.Unfinished(ctx, func(some []*jobs.Job) error {
		for _, j := range some {
			if j.Seq > upTo {
				continue
			}
			if err := n.Broker.Inbox.Submit(j.Again(), refused); err != nil {
				return err
			}
			count++
		}
		if err := n.Broker.Flush(); err != nil {
			return err
		}
		if p := refusal.Load(); p != nil {
			return *p
		}
		if count <= republishWindow {
			return nil
		}
		return n.Store.WaitFor(ctx, jobs.Positions{Jobs: state.Last + uint64(count-republishWindow)})
	})
	if err == nil {
		err = n.awaitRepublished(ctx, state.Last+uint64(count), &refusal)
	}
	if err != nil {
		return count, fmt.Errorf("put unfinished jobs back into the queue: %w", err)
	}
	return count, nil
}

// awaitRepublished waits until the tracker has folded JOBS up to seq, or a
// message was refused.
func (n *Core) awaitRepublished(ctx context.Context, seq uint64, refusal *atomic.Pointer[error]) error {
	for {
		short, cancel := context.WithTimeout(ctx, time.Second)
		err := n.Store.WaitFor(short, jobs.Positions{Jobs: seq})
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

// restore publishes again what somebody else has taken out of JOBS while jobstream runs.
func (n *Core) restore(ctx context.Context, upTo uint64) error {
	count, err := n.republish(ctx, upTo)
	if err != nil {
		return err
	}
	n.log.Warn("messages of unfinished jobs were removed from the JOBS stream; they have been published again", "jobs", count)
	return nil
}

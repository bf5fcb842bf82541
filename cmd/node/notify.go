package node

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/status"
)

// notifier publishes the ends in the tracker's outbox, in order. It reads them from the
// file piece by piece, so commits never wait for it. While the stream cannot be
// written, or clients read slowly, an end costs 8 bytes in the file and no memory.
type notifier struct {
	store  *status.Store
	outbox *status.Outbox
	stream jobs.Notifier
	tracer Tracer // nil: none
	log    *slog.Logger
	wake   chan struct{} // holds a token when there may be something to publish
}

func newNotifier(store *status.Store, stream jobs.Notifier, t Tracer, log *slog.Logger) *notifier {
	return &notifier{store: store, outbox: store.Outbox(), stream: stream, tracer: t, log: log, wake: make(chan struct{}, 1)}
}

// committed wakes the notifier if jobs have ended.
func (n *notifier) committed(c *jobs.Commit) {
	for range c.Ended() {
		n.signal()
		return
	}
}

func (n *notifier) signal() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// The pauses between tries.
const (
	notifyAgain       = 100 * time.Millisecond
	notifyAgainAtMost = 5 * time.Second
)

// run publishes until ctx ends. The rest stays in the outbox.
func (n *notifier) run(ctx context.Context) error {
	pause := notifyAgain
	for ctx.Err() == nil {
		count, err := n.next(ctx)
		if err == nil && count > 0 {
			pause = notifyAgain
			continue
		}
		wake, again := n.wake, (<-chan time.Time)(nil)
		if err != nil && ctx.Err() == nil {
			n.log.Warn("notifications could not be stored; trying again", "jobs", count, "error", err)
			wake, again = nil, time.After(pause)
			pause = min(2*pause, notifyAgainAtMost)
		}
		select {
		case <-wake:
		case <-again:
		case <-ctx.Done():
		}
	}
	return nil
}

// next publishes a piece of the outbox, and returns its number of jobs.
func (n *notifier) next(ctx context.Context) (count int, err error) {
	ended, err := n.outbox.Read()
	if err == nil && len(ended) > 0 {
		since := time.Now()
		if err = n.stream.Notify(ctx, ended); err == nil && n.tracer != nil {
			n.tracer.Notified(ended, since)
		}
	}
	if err == nil {
		n.outbox.Stored()
	}
	return len(ended), err
}

// caughtUp waits until all ends committed so far are notified.
func (n *notifier) caughtUp(ctx context.Context) error {
	number := n.store.Number()
	n.signal()
	return n.store.WaitNotified(ctx, number)
}

// logFailures logs the jobs that have failed for good, one line each. The logger bounds
// their rate.
func (c *core) logFailures(commit *jobs.Commit) {
	for j := range commit.Ended() {
		if j.Status == jobs.Failed {
			c.log.Warn("a job failed", j.LogAttr(), "error", firstLine(j.Error))
		}
	}
}

// firstLine is the first line of a text, shortened.
func firstLine(text string) string {
	const longest = 300
	line, _, more := strings.Cut(strings.TrimSpace(text), "\n")
	if len(line) > longest {
		line, more = strings.ToValidUTF8(line[:longest], ""), true
	}
	if more {
		line += " …"
	}
	return line
}

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"jobstream/jobs"
)

// notice is the ended jobs of one commit, to be told to the world; or, with
// reached, a question to close when everything before it has been told.
type notice struct {
	number  uint64
	ended   []*jobs.Job
	reached chan struct{}
}

// maxNotices is how many jobs are notified in one go at most.
const maxNotices = 8192

// runNotifier publishes notifications commit by commit, in order, and tells the
// tracker how far they are stored. What cannot be stored is tried again: it
// stands in the tracker's outbox until it is.
func (n *node) runNotifier(ctx context.Context) error {
	for {
		select {
		case first := <-n.notify:
			n.notifyAll(ctx, first)
		case <-ctx.Done():
			return nil
		}
	}
}

// notifyAll takes what has queued up behind first as well.
func (n *node) notifyAll(ctx context.Context, first notice) {
	all, asked := first, []chan struct{}{first.reached}
	for len(all.ended) < maxNotices {
		select {
		case more := <-n.notify:
			all.ended = append(all.ended, more.ended...)
			all.number = max(all.number, more.number)
			asked = append(asked, more.reached)
			continue
		default:
		}
		break
	}
	n.logFailures(all.ended)
	pause := 100 * time.Millisecond
	for len(all.ended) > 0 {
		err := n.broker.Notify(ctx, all.ended)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		n.log.Warn("notifications could not be stored; trying again", "jobs", len(all.ended), "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, 5*time.Second)
	}
	if all.number > 0 {
		n.store.Notified(all.number)
	}
	for _, ch := range asked {
		if ch != nil {
			close(ch)
		}
	}
}

// logFailures logs the jobs that have failed for good, a line each; the logger sees to
// it that thousands are not.
func (n *node) logFailures(ended []*jobs.Job) {
	for _, j := range ended {
		if j.Status == jobs.Failed {
			n.log.Warn("a job failed", "type", j.Type, "job", j.ID, "attempts", j.Attempt, "error", firstLine(j.Error))
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

// awaitNotified waits until everything that was committed so far is notified.
func (n *node) awaitNotified(ctx context.Context) error {
	reached := make(chan struct{})
	select {
	case n.notify <- notice{reached: reached}:
	case <-ctx.Done():
		return fmt.Errorf("notifications are stuck: %w", ctx.Err())
	}
	select {
	case <-reached:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("notifications could not be stored: %w", ctx.Err())
	}
}

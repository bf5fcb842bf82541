package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
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

// maxNoticeBytes is how much memory the jobs that wait to be notified may take, about:
// while clients read slowly, or the stream is stuck, commits wait for room.
const maxNoticeBytes = 32 << 20

// noticeRoom bounds the bytes of the notices that wait.
type noticeRoom struct {
	mu    sync.Mutex
	taken int
	freed chan struct{} // holds a token when some have been given back
}

// take waits for room for so many bytes, or for the end; what is too large by itself
// gets in when nothing else waits.
func (r *noticeRoom) take(n int, end <-chan struct{}) {
	for {
		r.mu.Lock()
		if r.taken == 0 || r.taken+n <= maxNoticeBytes {
			r.taken += n
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		select {
		case <-r.freed:
		case <-end:
			return
		}
	}
}

func (r *noticeRoom) give(n int) {
	r.mu.Lock()
	r.taken = max(r.taken-n, 0)
	r.mu.Unlock()
	select {
	case r.freed <- struct{}{}:
	default:
	}
}

// bytes is about how much memory the jobs of a notice take.
func (n *notice) bytes() (size int) {
	for _, j := range n.ended {
		size += j.SizeHint()
	}
	return size
}

// noticeEnds hands over what ended with a commit.
func (n *node) noticeEnds(c *jobs.Commit) {
	told := notice{number: c.Number, ended: slices.Collect(c.Ended())}
	if len(told.ended) == 0 {
		return
	}
	n.noticed.take(told.bytes(), n.stopped)
	select {
	case n.notify <- told:
	case <-n.stopped: // nobody takes it any more; the outbox keeps it for the next start
	}
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
	defer func() { n.noticed.give(all.bytes()) }()
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

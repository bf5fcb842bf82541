package client

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// Bounds of what a task says on its way.
const (
	reportEvery = 100 * time.Millisecond
	maxLine     = 8 << 10   // bytes of a line, as in the server's log
	maxLines    = 1000      // of one report
	reportBytes = 512 << 10 // of its lines
	waitBytes   = 4 << 20   // of the lines that wait; more are dropped
)

// reports are what a task has to say while it runs: progress, lines for the log, and the
// checkpoint. One goroutine sends them, from the first one on.
type reports struct {
	wake chan struct{} // has an element: there is something to send
	done chan struct{} // closed: no more is sent
	sent chan struct{} // closed when the goroutine has ended; nil without one

	mu      sync.Mutex
	closed  bool
	percent int
	message string
	more    bool // percent and message are to be sent
	lines   []jobs.LogLine
	bytes   int             // of the lines
	dropped int             // lines
	saved   json.RawMessage // the checkpoint that was sent last
}

func (r *reports) init() {
	r.wake, r.done = make(chan struct{}, 1), make(chan struct{})
}

// report is what is to be sent now.
type report struct{ jobs.Progress }

func (r *report) empty() bool {
	return r.Percent < 0 && r.Message == nil && len(r.Log) == 0 && r.Checkpoint == nil
}

// Report passes progress on; see [jobs.Host].
func (t *task) Report(percent int, message string) {
	r := &t.said
	r.mu.Lock()
	defer r.mu.Unlock()
	message = jobs.Shorten(message, jobs.MaxMessage)
	if r.closed || percent == r.percent && message == r.message && !r.unsaved(t.task.Left()) {
		return
	}
	r.percent, r.message, r.more = percent, message, true
	t.sendLater()
}

// Log appends a line to the job's log; see [jobs.Host].
func (t *task) Log(level jobs.Level, stream, text string) {
	r := &t.said
	r.mu.Lock()
	defer r.mu.Unlock()
	switch text = jobs.Shorten(text, maxLine); {
	case r.closed:
		return
	case r.bytes+len(text) > waitBytes:
		r.dropped++
		return
	}
	r.lines = append(r.lines, jobs.LogLine{Level: level, Stream: stream, Text: text})
	r.bytes += len(text)
	t.sendLater()
}

// unsaved says whether a checkpoint is to be sent. r.mu is locked.
func (r *reports) unsaved(left json.RawMessage) bool {
	return len(left) > 0 && (len(r.saved) == 0 || &left[0] != &r.saved[0])
}

// sendLater wakes the goroutine that sends, or starts it. r.mu is locked.
func (t *task) sendLater() {
	r := &t.said
	if r.sent == nil {
		r.sent = make(chan struct{})
		go t.send()
	}
	wake(r.wake)
}

// send sends what there is, until the task has ended.
func (t *task) send() {
	r := &t.said
	defer close(r.sent)
	for {
		select {
		case <-r.wake:
		case <-r.done:
			return
		}
		r.mu.Lock()
		p := r.next(t.task.Left())
		if len(r.lines) > 0 {
			wake(r.wake)
		}
		r.mu.Unlock()
		if !p.empty() && !t.tell(&p.Progress) {
			return
		}
		timer := time.NewTimer(reportEvery)
		select {
		case <-timer.C:
		case <-r.done:
		}
		timer.Stop()
	}
}

// next removes the next report. r.mu is locked.
func (r *reports) next(left json.RawMessage) (p report) {
	p.Percent = -1
	if r.more {
		message := r.message
		p.Percent, p.Message, r.more = r.percent, &message, false
	}
	if r.unsaved(left) {
		p.Checkpoint, r.saved = left, left
	}
	n, size := 0, 0
	for n < min(len(r.lines), maxLines) && (n == 0 || size+len(r.lines[n].Text) <= reportBytes) {
		size += len(r.lines[n].Text)
		n++
	}
	p.Log, r.lines = r.lines[:n:n], r.lines[n:]
	r.bytes -= size
	if len(r.lines) == 0 && r.dropped > 0 {
		text := fmt.Sprintf("%d lines were dropped here, because the server could not take them as fast", r.dropped)
		r.lines, r.bytes, r.dropped = []jobs.LogLine{{Level: jobs.LevelWarn, Text: text}}, len(text), 0
	}
	return p
}

// close ends the reports. What is being sent is waited for.
func (r *reports) close() {
	r.mu.Lock()
	r.closed = true
	sent := r.sent
	r.mu.Unlock()
	close(r.done)
	if sent != nil {
		<-sent
	}
}

// flush sends what is left after the end, with this checkpoint. It returns false if there
// is no lease any more.
func (t *task) flush(checkpoint json.RawMessage) bool {
	for {
		t.said.mu.Lock()
		p := t.said.next(checkpoint)
		t.said.mu.Unlock()
		switch {
		case p.empty():
			return true
		case !t.tell(&p.Progress):
			return false
		}
	}
}

// tell sends a report on progress. It returns false if there is no lease any more.
func (t *task) tell(p *jobs.Progress) bool {
	sent := time.Now()
	answer, err := t.w.tell("worker.progress", api.AppendProgress(nil, t.lease.Token, p))
	if e, known := jobs.AsError(err); err != nil && known && (e.Kind == jobs.LeaseLost || e.Kind == jobs.NotFound) {
		t.revoke(t.whyLost())
		return false
	}
	if err != nil { // reports on progress are no duty; the end of the job is
		t.w.log.Warn("what a job has reported is lost", t.lease.Job.LogAttr(), "error", err)
		return true
	}
	if b, err := api.ReadBeats(answer); err == nil {
		t.w.renewed([]string{t.lease.Token}, sent, &b)
	}
	return !t.gone.Load()
}

package pool

import (
	"encoding/json"
	"sync"
	"time"

	"jobstream/jobs"
)

// progressThrottle passes progress on at most ten times a second, and less often if the
// record is large, since each report rewrites it. While the attempt runs the last
// report is never lost.
type progressThrottle struct {
	size    int // about the size of the lists that a report rewrites
	reports int
	mu      sync.Mutex
	last    time.Time
	percent int
	message string
	more    bool // there is a checkpoint to report, too
	timer   *time.Timer
	stopped bool
	saved   json.RawMessage // the checkpoint that was reported last
}

const (
	progressEvery = 100 * time.Millisecond
	progressBytes = 80 << 10 // bytes that the reports of one attempt may write in a second
	lineBytes     = 40       // bytes of a list entry in a record, besides its text
)

// listBytes is about the size of the errors and the history in the record.
func listBytes(j *jobs.Job) (n int) {
	for i := range j.Errors {
		n += lineBytes + len(j.Errors[i].Error)
	}
	for i := range j.History {
		n += lineBytes + len(j.History[i].Text)
	}
	return n
}

// every is the time from one report to the next. t.mu is locked.
func (t *progressThrottle) every() time.Duration {
	return max(progressEvery, time.Duration(t.size)*time.Second/progressBytes)
}

// Report passes progress on; see [jobs.Host].
func (x *execution) Report(percent int, message string) {
	x.progress.mu.Lock()
	defer x.progress.mu.Unlock()
	x.reportLocked(percent, message)
}

// report passes on what a worker elsewhere reports.
func (x *execution) report(p *jobs.Progress) {
	t := &x.progress
	t.mu.Lock()
	defer t.mu.Unlock()
	percent, message := t.percent, t.message
	if p.Percent >= 0 {
		percent = min(p.Percent, 100)
	}
	if p.Message != nil {
		message = *p.Message
	}
	t.more = t.more || p.Checkpoint != nil
	x.reportLocked(percent, message)
}

// reportFiles passes on the files that a worker elsewhere has left, at once.
func (x *execution) reportFiles(files []jobs.Artifact) {
	t := &x.progress
	t.mu.Lock()
	defer t.mu.Unlock()
	e := x.event(jobs.KindProgress)
	e.At = jobs.Now()
	e.Progress, e.Message = t.percent, t.message
	e.SetFiles(files)
	x.p.o.Recorder.Record(&e)
}

// now is the latest percentage.
func (t *progressThrottle) now() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.percent
}

// reportLocked is Report. x.progress.mu is locked.
func (x *execution) reportLocked(percent int, message string) {
	t := &x.progress
	if t.stopped || percent == t.percent && message == t.message && !t.more {
		return
	}
	t.percent, t.message = percent, jobs.Shorten(message, jobs.MaxMessage)
	if t.timer != nil {
		return // the waiting one will send it
	}
	if wait := t.every() - time.Since(t.last); wait > 0 {
		t.timer = time.AfterFunc(wait, x.sendProgress)
		return
	}
	x.recordProgress()
}

func (x *execution) sendProgress() {
	x.progress.mu.Lock()
	defer x.progress.mu.Unlock()
	x.progress.timer = nil
	if !x.progress.stopped {
		x.recordProgress()
	}
}

// recordProgress records the latest report. x.progress.mu is locked.
func (x *execution) recordProgress() {
	t := &x.progress
	t.last = time.Now()
	if t.reports == 0 {
		t.size = listBytes(x.job)
	}
	if t.reports++; t.reports <= jobs.MaxProgress {
		t.size += lineBytes + len(t.message)
	}
	e := x.event(jobs.KindProgress)
	e.At = jobs.Now()
	e.Progress, e.Message = t.percent, t.message
	t.more = false
	if left := x.task.Left(); len(left) > 0 && (len(t.saved) == 0 || &left[0] != &t.saved[0]) {
		t.size += len(left) - len(t.saved)
		e.Checkpoint, t.saved = left, left
	}
	x.p.o.Recorder.Record(&e)
}

// stop ends the reports, and returns the message of a deferred one.
func (t *progressThrottle) stop() (deferred string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.timer != nil {
		t.timer.Stop()
		deferred = t.message
	}
	return deferred
}

package pool

import (
	"sync"

	"jobstream/jobs"
)

// jobLog is the log of one attempt. It opens with its first entry, because most attempts
// have none.
type jobLog struct {
	mu     sync.Mutex
	w      jobs.LogWriter
	closed bool
}

// Log appends to the job's log; see [jobs.Host]. An attempt that was given up has none.
func (x *execution) Log(level jobs.Level, stream, text string) {
	l := &x.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || x.p.o.Logs == nil {
		return
	}
	if l.w == nil {
		l.w = x.p.o.Logs.Open(x.job, x.attempt)
	}
	l.w.Log(level, stream, text)
}

// pause closes the file until the next entry: many attempts elsewhere may live for long.
func (l *jobLog) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.w != nil {
		l.w.Close()
		l.w = nil
	}
}

// close ends the log.
func (l *jobLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.w != nil {
		l.w.Close()
	}
}

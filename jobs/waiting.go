package jobs

import (
	"strconv"
)

// The stable codes of [Waiting]: the reasons why a job does not run.
const (
	WaitScheduled     = "scheduled"      // its time has not come
	WaitBackoff       = "backoff"        // its next attempt's time has not come
	WaitQueueFull     = "queue_full"     // its time has come, but the queue has no room
	WaitNoWorker      = "no_worker"      // no worker runs its type, here or elsewhere
	WaitTypePaused    = "type_paused"    // its type is paused
	WaitWorkersPaused = "workers_paused" // the server starts no jobs
	WaitTypeLimit     = "type_limit"     // its type runs as many as it may
	WaitKeyLimit      = "key_limit"      // others with its concurrency key have their turn
	WaitRateLimit     = "rate_limit"     // its type has started as many lately as it may
	WaitTargetBusy    = "target_busy"    // what does the work of its type takes nothing more for now
	WaitAllBusy       = "all_busy"       // all workers are running
	WaitQueue         = "queue"          // others come first
	WaitStarting      = "starting"       // it is on its way
)

// Waiting is the reason why an unfinished job does not run.
type Waiting struct {
	Reason   string // one of the codes
	Until    Time   // the earliest end of that, if it is known
	Detail   string // for people
	Position int    // its place in its lane, from 1; 0 = unknown, or not in a lane
}

// AppendJSON appends {"reason":"…","until":"…","detail":"…","position":n}. All but the
// reason may be missing.
func (w *Waiting) AppendJSON(b []byte) []byte {
	b = append(b, `{"reason":`...)
	b = AppendString(b, w.Reason)
	if w.Until != 0 {
		b = append(b, `,"until":`...)
		b = appendTime(b, w.Until)
	}
	if w.Detail != "" {
		b = append(b, `,"detail":`...)
		b = AppendString(b, w.Detail)
	}
	if w.Position > 0 {
		b = append(b, `,"position":`...)
		b = strconv.AppendInt(b, int64(w.Position), 10)
	}
	return append(b, '}')
}

// AppendWaiting appends the job resource like AppendJSON, and then what the job waits
// for; w may be nil.
func (j *Job) AppendWaiting(b []byte, w *Waiting) []byte {
	b = j.AppendJSON(b)
	if w == nil {
		return b
	}
	b = append(b[:len(b)-1], `,"waiting":`...) // in place of the closing brace
	return append(w.AppendJSON(b), '}')
}

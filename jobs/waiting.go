package jobs

import (
	"strconv"
)

// Why a job is not running: the stable codes of [Waiting].
const (
	WaitScheduled  = "scheduled"   // its time has not come
	WaitBackoff    = "backoff"     // its next attempt's time has not come
	WaitQueueFull  = "queue_full"  // its time has come, but the queue has no room
	WaitNoWorker   = "no_worker"   // nobody runs its type here
	WaitTypePaused = "type_paused" // its type is paused
	WaitTypeLimit  = "type_limit"  // as many of its type run as may
	WaitKeyLimit   = "key_limit"   // others with its concurrency key have their turn
	WaitRateLimit  = "rate_limit"  // as many of its type have started lately as may
	WaitAllBusy    = "all_busy"    // all workers are running
	WaitQueue      = "queue"       // others are before it
	WaitStarting   = "starting"    // it is on its way
)

// Waiting says what an unfinished job that does not run waits for.
type Waiting struct {
	Reason   string // one of the codes
	Until    Time   // when that is over at the earliest, if it is known
	Detail   string // for people
	Position int    // its place in its lane, from 1; 0 = not known, or not in a lane
}

// AppendJSON appends {"reason":"…","until":"…","detail":"…","position":n}, of
// which all but the reason may be left out.
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

// AppendWaiting appends the job resource as AppendJSON does, with what the job
// waits for behind it; w may be nil.
func (j *Job) AppendWaiting(b []byte, w *Waiting) []byte {
	b = j.AppendJSON(b)
	if w == nil {
		return b
	}
	b = append(b[:len(b)-1], `,"waiting":`...) // instead of the closing brace
	return append(w.AppendJSON(b), '}')
}

package jobs

import (
	"math"
	"time"
)

// DueBefore is the moment at which the start was due that follows the first n entries of
// the job's history. A first attempt is due at the job's submission, or when its delay or
// its schedule says. One that was put off or failed before has a moment of its own. An
// attempt that was given back is due at once.
func (j *Job) DueBefore(n int) Time {
	const never = Time(math.MaxInt64)
	queued := never // it may have been brought forward
	for i := n - 1; i >= 0; i-- {
		switch h := &j.History[i]; h.Kind {
		case KindProgress:
		case KindRevised:
			if h.Due != 0 {
				return min(h.Due, queued)
			}
		case KindQueued:
			queued = min(queued, h.At)
		case KindSubmitted:
			if queued != never && (j.Terms == nil || j.Terms.RunAt == 0) {
				return queued // a retry by hand has removed the moment
			}
			return min(j.firstDue(), queued)
		case KindRetrying, KindSnoozed, KindLost:
			return min(max(h.At, h.Due), queued)
		default:
			return min(h.At, queued)
		}
	}
	return min(j.firstDue(), queued)
}

// firstDue is the moment at which the job's first attempt is due.
func (j *Job) firstDue() Time {
	if j.Terms == nil {
		return j.CreatedAt
	}
	return max(j.CreatedAt, j.Terms.RunAt, j.Terms.ScheduledFor)
}

// WaitsSince is the moment from which on an unfinished job waits that does not run: the
// one at which its next start is due.
func (j *Job) WaitsSince() Time { return j.DueBefore(len(j.History)) }

// Waited is the time from the moment at which the job's last start was due to that
// start. ok is false if it has not started, or its history does not have that any more.
func (j *Job) Waited() (wait time.Duration, ok bool) {
	for i := len(j.History) - 1; i >= 0; i-- {
		if h := &j.History[i]; h.Kind == KindStarted {
			return max(h.At.Sub(j.DueBefore(i)), 0), true // two clocks may be at odds
		}
	}
	return 0, false
}

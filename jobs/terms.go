package jobs

import (
	"time"
)

// Terms are what a job asks for beyond the ordinary: most jobs have none, and
// pay nothing for them. Terms are never changed once they stand in a [Job] or a
// [Message]: whoever needs others makes a copy.
type Terms struct {
	// RunAt is before when the job must not start; 0 = it may at once.
	RunAt Time
	// ExpiresAt is by when it must have started: else it is cancelled.
	ExpiresAt Time
	// Deadline is by when it must have ended, over all attempts: else it fails.
	Deadline Time
	// UniqueKey belongs to one unfinished job at a time.
	UniqueKey string
	// ConcurrencyKey bounds how many jobs of its type run at the same time with
	// this key, see [Type.ConcurrencyPerKey]; the keys take turns.
	ConcurrencyKey string
	// Schedule is the name of the schedule that made the job, and ScheduledFor the
	// moment that it made it for.
	Schedule     string
	ScheduledFor Time
}

// Bounds of terms.
const (
	MaxKey   = 256                       // bytes of a unique, concurrency or idempotency key
	MaxDelay = 10 * 365 * 24 * time.Hour // of a start put off, or of an expiry
)

// Place says where the message of an unfinished job is.
type Place uint8

// The places.
const (
	// InQueue: in JOBS, where a worker gets it.
	InQueue Place = iota
	// Due: nowhere. It is published again at the job's DueAt, 0 = as soon as
	// possible; see [jobstream/jobs/intake.Releaser].
	Due
	// Held: nowhere. Other jobs with its concurrency key have to end first.
	Held
)

// Keyed says whether the job shares a concurrency key.
func (j *Job) Keyed() bool { return j.ConcurrencyKey() != "" }

// ConcurrencyKey is the key that the job shares, "" if none.
func (j *Job) ConcurrencyKey() string {
	if j.Terms == nil {
		return ""
	}
	return j.Terms.ConcurrencyKey
}

// LimitAt is the next moment at which the job's expiry or deadline ends it, 0 if
// there is none. An expiry counts until the first attempt has started.
func (j *Job) LimitAt() Time {
	if j.Terms == nil || j.Status.Ended() {
		return 0
	}
	at := j.Terms.Deadline
	if e := j.Terms.ExpiresAt; e != 0 && j.unstarted() && (at == 0 || e < at) {
		at = e
	}
	return at
}

// unstarted says whether no attempt of this run has begun.
func (j *Job) unstarted() bool {
	return j.Attempt == 0 && (j.Status == Scheduled || j.Status == Pending)
}

// Expire ends a job whose expiry or deadline has passed, unless it is running:
// then its worker does. It reports whether it did.
func (j *Job) Expire(now Time) bool {
	at := j.LimitAt()
	if at == 0 || now < at || j.Status == Processing {
		return false
	}
	e := &Event{Run: j.Run, Attempt: j.Attempt, At: max(now, at)}
	if at == j.Terms.ExpiresAt && j.unstarted() {
		e.Kind, e.Error = KindCancelled, ExpiredReason+": it had not started by "+at.String()
		j.end(e, Cancelled)
	} else {
		e.Kind, e.Error = KindFailed, DeadlineReason+" at "+at.String()
		j.end(e, Failed)
		j.Errors = append(j.Errors, AttemptError{Attempt: j.Attempt, Error: e.Error, At: e.At})
	}
	j.Error = e.Error
	j.touch(e.At)
	return true
}

// What the errors of jobs begin with that ran out of time.
const (
	ExpiredReason  = "expired"
	DeadlineReason = "deadline exceeded"
)

// Rerun makes an ended job wait for another run with fresh attempts: its history
// and its errors stay. What bounded it in time is gone, as that has passed.
func (j *Job) Rerun(at Time) {
	j.Run++
	j.Status, j.Place = Pending, Due
	j.Attempt, j.Failures, j.Lost = 0, 0, 0
	j.Progress, j.Message, j.Error = 0, "", ""
	j.Result, j.Artifact = nil, nil
	j.DueAt, j.StartedAt, j.EndedAt = 0, 0, 0
	if j.Terms != nil {
		t := *j.Terms
		t.RunAt, t.ExpiresAt, t.Deadline = 0, 0, 0
		j.Terms = &t
	}
	j.remember(HistoryEntry{Kind: KindRerun, At: at})
	j.touch(at)
}

// Enqueue notes that the job's message is in the queue again, under a new
// sequence. It reports whether it is to be: a copy that was published at the end
// of an earlier wait, and comes late, does not end the present one.
func (j *Job) Enqueue(seq uint64, at Time) bool {
	if j.Place == Held || j.Place == Due && at < j.DueAt {
		return false
	}
	if j.Status == Scheduled {
		j.Due(at)
	}
	j.Place, j.Seq = InQueue, seq
	return true
}

// Due notes that a scheduled job waits no longer for its time.
func (j *Job) Due(at Time) {
	j.Status, j.DueAt = Pending, 0
	j.remember(HistoryEntry{Kind: KindQueued, At: at})
	j.touch(at)
}

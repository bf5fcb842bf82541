package jobs

import (
	"time"
)

// Terms are the special wishes of a job. Most jobs have none, and pay nothing for them.
// Terms of a [Job] or a [Message] are never changed; change a copy.
type Terms struct {
	// RunAt is the earliest start; 0 = at once.
	RunAt Time
	// ExpiresAt is the latest start of the first attempt: after it the job is
	// cancelled.
	ExpiresAt Time
	// Deadline is the latest end, over all attempts: after it the job fails.
	Deadline Time
	// UniqueKey belongs to one unfinished job at a time.
	UniqueKey string
	// ConcurrencyKey bounds how many jobs of its type run at the same time with
	// this key, see [Type.ConcurrencyPerKey]; the keys take turns.
	ConcurrencyKey string
	// Schedule is the name of the schedule that made the job, and ScheduledFor the
	// moment of it.
	Schedule     string
	ScheduledFor Time
	// Inputs are the files that the job gets, each name once.
	Inputs []Input
	// CallbackURL is notified of the job's end; "" = none. See [Callback].
	CallbackURL string
	// Trace is where the job was submitted in a trace.
	Trace Trace
}

// Bounds of terms.
const (
	MaxKey   = 256                       // bytes of a unique, concurrency or idempotency key
	MaxDelay = 10 * 365 * 24 * time.Hour // of a delayed start, or of an expiry
)

// Place is where the message of an unfinished job is.
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

// Places are numbers of jobs by [Place].
type Places [Held + 1]int

// Keyed says whether the job shares a concurrency key.
func (j *Job) Keyed() bool { return j.ConcurrencyKey() != "" }

// ConcurrencyKey is the key that the job shares; "" for none.
func (j *Job) ConcurrencyKey() string {
	if j.Terms == nil {
		return ""
	}
	return j.Terms.ConcurrencyKey
}

// LimitAt is the next moment at which the job's expiry or deadline ends it; 0 for none.
// An expiry counts until the first attempt has started.
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

// Expire ends a job whose expiry or deadline has passed, and reports whether it did. A
// running job is left to its worker.
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

// The beginnings of the errors of jobs whose time ran out.
const (
	ExpiredReason  = "expired"
	DeadlineReason = "deadline exceeded"
)

// Rerun starts a new run of an ended job, with fresh attempts. Its history and its
// errors stay. Its limits in time have passed and are removed.
func (j *Job) Rerun(at Time) {
	j.Run++
	j.Status, j.Place = Pending, Due
	j.Attempt, j.Failures, j.Lost = 0, 0, 0
	j.Progress, j.Message, j.Error = 0, "", ""
	j.Result, j.Artifact, j.Artifacts, j.Permanent = nil, nil, nil, false
	j.DueAt, j.StartedAt, j.EndedAt = 0, 0, 0
	if j.Terms != nil {
		t := *j.Terms
		t.RunAt, t.ExpiresAt, t.Deadline = 0, 0, 0
		j.Terms = &t
	}
	j.remember(HistoryEntry{Kind: KindRerun, At: at})
	j.touch(at)
}

// Sign adds the principal to the last entry of the history that has made this change by
// hand.
func (j *Job) Sign(actor string) { j.History[len(j.History)-1].Actor = actor }

// Enqueue records that the job's message is in the queue again, under a new sequence,
// and reports whether that counts. A late copy from an earlier wait does not end the
// present one.
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

// Due records that a scheduled job no longer waits for its time.
func (j *Job) Due(at Time) {
	j.Status, j.DueAt = Pending, 0
	j.remember(HistoryEntry{Kind: KindQueued, At: at})
	j.touch(at)
}

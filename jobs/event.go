package jobs

import (
	"encoding/json"
	"fmt"
)

// Kind is the kind of an [Event].
type Kind uint8

// The kinds of events. There is no Event of KindSubmitted, because a [Message] is the
// submission.
const (
	KindSubmitted Kind = iota + 1
	KindStarted
	KindProgress
	KindCompleted
	KindFailed
	KindRetrying
	KindReleased // handed back unfinished by a stopping server; uses no attempt
	KindLost     // its worker died, or a lease ended; uses no attempt
	KindCancelled
	KindSnoozed // put off by its handler; uses no attempt
	KindQueued  // its time has come; in no Event
	KindRerun   // somebody has retried it; in no Event
	KindRevised // somebody has changed it; in no Event
)

var kindNames = [...]string{
	"", "submitted", "started", "progress", "completed", "failed", "retrying", "released", "lost", "cancelled",
	"snoozed", "queued", "rerun", "revised",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseKind is the inverse of String.
func ParseKind(name string) (Kind, bool) {
	for i := 1; i < len(kindNames); i++ {
		if kindNames[i] == name {
			return Kind(i), true
		}
	}
	return 0, false
}

// EndsAttempt says whether an event of this kind ends an attempt. Its commit settles the
// delivery of the attempt.
func (k Kind) EndsAttempt() bool {
	switch k {
	case KindCompleted, KindFailed, KindRetrying, KindReleased, KindLost, KindCancelled, KindSnoozed:
		return true
	}
	return false
}

// Event is something that happened to a job while it ran. Events may repeat, and may
// arrive before the job's submission; [Apply] copes. Every event has Type, Priority,
// Seq, CreatedAt and MaxAttempts, so that a tracker can be rebuilt from events alone.
type Event struct {
	Kind        Kind
	ID          ID
	Seq         uint64 // of the delivered message in JOBS
	Type        string
	Priority    Priority
	CreatedAt   Time
	MaxAttempts int

	Run       int
	Attempt   int
	At        Time
	StartedAt Time // of the attempt
	Node      string

	Progress int
	Message  string
	Error    string
	Due      Time // for retrying, lost and snoozed
	Lost     int  // for lost, and for failed after too many of them
	Result   json.RawMessage
	Artifact *Artifact // the first file; nil = none
	// Artifacts are all files, if there are several; see [Event.SetFiles].
	Artifacts []Artifact
	// Checkpoint is the attempt's checkpoint for the next one; nil for none. See
	// [Task.SetCheckpoint].
	Checkpoint json.RawMessage
	Permanent  bool // for failed: no retry can mend it
}

// Size is about the memory of the event's own texts, in bytes.
func (e *Event) Size() int {
	n := len(e.Result) + len(e.Error) + len(e.Message) + len(e.Checkpoint)
	for i := range e.Artifacts {
		n += TextSize(ArtifactFields, &e.Artifacts[i])
	}
	return n
}

// SetFiles sets the files that the job leaves.
func (e *Event) SetFiles(files []Artifact) {
	e.Artifact, e.Artifacts = nil, nil
	if len(files) > 0 {
		e.Artifact = &files[0]
	}
	if len(files) > 1 {
		e.Artifacts = files
	}
}

// files are all files of SetFiles.
func (e *Event) files() []Artifact {
	if e.Artifact != nil && len(e.Artifacts) == 0 {
		return []Artifact{*e.Artifact}
	}
	return e.Artifacts
}

// Stub is the record for an event whose submission is unknown. It contains everything
// that a rebuilt tracker can still know about the job.
func (e *Event) Stub() *Job {
	j := &Job{
		ID: e.ID, Key: e.Seq, Seq: e.Seq, Type: e.Type, Priority: e.Priority,
		Status: Pending, Run: max(e.Run, 1), MaxAttempts: e.MaxAttempts,
		CreatedAt: e.CreatedAt, UpdatedAt: e.CreatedAt,
	}
	j.remember(HistoryEntry{Kind: KindSubmitted, At: e.CreatedAt})
	return j
}

// Apply folds e into j and reports whether that changed it. It is the state machine of
// a job:
//
//	scheduled → pending → processing → completed | failed | cancelled | retrying (→ processing …)
//
// It is idempotent, and repeats of earlier events change nothing. The run counts first,
// then the attempt, then the execution by its start, then the phase within that. An ended
// job never changes.
func Apply(j *Job, e *Event) bool {
	if !apply(j, e) {
		return false
	}
	switch {
	case e.Kind == KindCompleted:
		j.Checkpoint = nil
	case len(e.Checkpoint) > 0:
		j.Checkpoint = e.Checkpoint
	}
	return true
}

func apply(j *Job, e *Event) bool {
	if j.Status.Ended() || e.Run != j.Run {
		return false
	}
	between := e.between(j)
	if e.Attempt <= j.Failures && e.Kind != KindCancelled && !between {
		return false
	}
	if e.StartedAt != 0 && e.StartedAt < j.StartedAt {
		return false // of an earlier execution, whose worker may still be at it
	}
	switch e.Kind {
	case KindStarted:
		return j.start(e)
	case KindProgress:
		return j.advance(e)
	case KindCompleted:
		j.end(e, Completed)
		j.Progress = 100
		j.Error = ""
	case KindFailed:
		if between {
			j.note(e)
		} else {
			j.fail(e)
		}
		j.end(e, Failed)
	case KindRetrying:
		j.fail(e)
		j.Status = Retrying
		j.DueAt = e.Due
		j.Progress, j.Message = 0, ""
		j.remember(HistoryEntry{Kind: KindRetrying, At: e.At, Attempt: e.Attempt, Text: e.Error, Node: e.Node, Due: e.Due})
	case KindReleased:
		return j.release(e)
	case KindLost:
		return j.lose(e)
	case KindSnoozed:
		return j.snooze(e)
	case KindCancelled:
		j.end(e, Cancelled)
		j.Error = e.Error
	default:
		return false
	}
	j.touch(e.At)
	return true
}

// start begins attempt e.Attempt, or the same one again after a worker died.
func (j *Job) start(e *Event) bool {
	if j.Status == Processing && j.Attempt == e.Attempt && e.StartedAt <= j.StartedAt {
		return false
	}
	if j.Attempt == e.Attempt && j.Status != Processing && e.StartedAt <= j.StartedAt {
		return false // a repeat from an execution that was released, lost or snoozed later
	}
	j.Status = Processing
	j.Attempt = e.Attempt
	// The attempts before it have failed, even if the events that said so were lost.
	// Otherwise the next one would count from the last known failure, and its events
	// would look like repeats.
	j.Failures = max(j.Failures, e.Attempt-1)
	j.StartedAt = e.StartedAt
	j.Node = e.Node
	j.DueAt = 0
	j.Progress, j.Message = 0, ""
	j.Artifact, j.Artifacts = nil, nil
	j.remember(HistoryEntry{Kind: KindStarted, At: e.StartedAt, Attempt: e.Attempt, Node: e.Node})
	j.touch(e.At)
	return true
}

// ran makes sure that the attempt of an event has begun, since a recorder drops the
// start of a short attempt. It reports whether that changes j.
func (j *Job) ran(e *Event) bool {
	return e.StartedAt != 0 && j.start(&Event{Kind: KindStarted, Attempt: e.Attempt, At: e.StartedAt, StartedAt: e.StartedAt, Node: e.Node})
}

func (j *Job) advance(e *Event) bool {
	began := j.ran(e)
	if !j.runs(e) {
		return began
	}
	left := j.attach(e) || len(e.Checkpoint) > 0 && e.At > j.UpdatedAt
	if j.Progress == e.Progress && j.Message == e.Message || j.reportedSince(e.At) {
		if left {
			j.touch(e.At)
		}
		return left || began
	}
	j.Progress, j.Message = e.Progress, e.Message
	h := HistoryEntry{Kind: KindProgress, At: e.At, Attempt: e.Attempt, Progress: e.Progress, Text: e.Message}
	j.thinOut()
	j.remember(h)
	j.touch(e.At)
	return true
}

// attach keeps the files that an execution has left so far, so that another server finds
// them. They only become more, and are the job's once it has completed.
func (j *Job) attach(e *Event) bool {
	if len(e.files()) <= len(j.Files()) {
		return false
	}
	j.Artifact, j.Artifacts = e.Artifact, e.Artifacts
	return true
}

// reportedSince says whether the present execution has reported progress after at. A report
// from then is a repeat.
func (j *Job) reportedSince(at Time) bool {
	n := len(j.History)
	return n > 0 && j.History[n-1].Kind == KindProgress && j.History[n-1].At > at
}

// between says whether e fails j between attempts: the time of j ran out before the
// next one began.
func (e *Event) between(j *Job) bool {
	return e.Kind == KindFailed && e.StartedAt == 0 && e.Attempt == j.Attempt && j.Status != Processing
}

func (j *Job) fail(e *Event) {
	j.ran(e)
	j.Attempt = e.Attempt
	j.Failures = e.Attempt
	j.Artifact, j.Artifacts = nil, nil
	j.note(e)
}

// note keeps the error of an event.
func (j *Job) note(e *Event) {
	j.Error = e.Error
	if len(j.Errors) >= MaxErrors {
		j.Errors = append(j.Errors[:0:0], j.Errors[1:]...)
	}
	j.Errors = append(j.Errors, AttemptError{Attempt: e.Attempt, Error: e.Error, At: e.At})
}

func (j *Job) end(e *Event, to Status) {
	if e.Kind == KindCompleted {
		j.ran(e)
		j.Attempt = e.Attempt
	}
	j.Status = to
	j.EndedAt = e.At
	j.Permanent = e.Permanent
	j.DueAt = 0
	if e.Kind != KindCancelled {
		j.Result = e.Result
	}
	j.Artifact, j.Artifacts = e.Artifact, e.Artifacts
	if e.Message != "" {
		j.Message = e.Message
	}
	if e.Lost > j.Lost {
		j.Lost = e.Lost
	}
	j.remember(HistoryEntry{Kind: e.Kind, At: e.At, Attempt: e.Attempt, Text: e.Error, Node: e.Node})
}

// runs says whether the execution of e is the one that runs.
func (j *Job) runs(e *Event) bool {
	return j.Status == Processing && j.Attempt == e.Attempt && j.StartedAt == e.StartedAt
}

// leave drops what an execution has reported that ends without a result.
func (j *Job) leave(message string) {
	j.Progress, j.Message = 0, message
	j.Artifact, j.Artifacts = nil, nil
}

// lose ends the execution of e because its lease is over. The same attempt is made
// later.
func (j *Job) lose(e *Event) bool {
	j.ran(e)
	if !j.runs(e) {
		return false
	}
	j.Status, j.DueAt, j.Lost = Retrying, e.Due, max(j.Lost, e.Lost)
	j.leave("")
	j.remember(HistoryEntry{Kind: KindLost, At: e.At, Attempt: e.Attempt, Text: e.Error, Node: e.Node, Due: e.Due})
	j.touch(e.At)
	return true
}

// release puts the execution of e, and no other, back to pending.
func (j *Job) release(e *Event) bool {
	if !j.runs(e) {
		return false
	}
	j.Status = Pending
	j.leave("")
	j.remember(HistoryEntry{Kind: KindReleased, At: e.At, Attempt: e.Attempt, Text: e.Error, Node: e.Node})
	j.touch(e.At)
	return true
}

// snooze puts off the execution of e. The same attempt is made later.
func (j *Job) snooze(e *Event) bool {
	j.ran(e)
	if !j.runs(e) {
		return false
	}
	j.Status, j.Place, j.DueAt = Scheduled, Due, e.Due
	j.leave(e.Message)
	j.remember(HistoryEntry{Kind: KindSnoozed, At: e.At, Attempt: e.Attempt, Text: e.Message, Node: e.Node, Due: e.Due})
	j.touch(e.At)
	return true
}

// Cancel ends a job that has not ended, for a reason. The commit interrupts its worker.
func (j *Job) Cancel(at Time, reason string) bool {
	return Apply(j, &Event{Kind: KindCancelled, Run: j.Run, Attempt: j.Attempt, At: max(at, j.StartedAt), Error: reason})
}

// Lose records the death of a processing job's worker. The job waits again, or fails
// after the maxLost-th time. It reports whether j changed.
func (j *Job) Lose(at Time, maxLost int) bool {
	if j.Status != Processing {
		return false
	}
	j.Lost++
	text := fmt.Sprintf("the worker died while it ran this job (%d of %d)", j.Lost, maxLost)
	j.remember(HistoryEntry{Kind: KindLost, At: at, Attempt: j.Attempt, Text: text, Node: j.Node})
	j.touch(at)
	if j.Lost < maxLost {
		j.Status = Pending
		j.leave("")
		return true
	}
	return Apply(j, &Event{Kind: KindFailed, Run: j.Run, Attempt: j.Attempt, At: at, Node: j.Node, Lost: j.Lost, Error: TooOftenLost(j.Lost)})
}

// TooOftenLost is the error of a job that has lost n workers.
func TooOftenLost(n int) string {
	return fmt.Sprintf("its worker died %d times while running it (worker.max_lost)", n)
}

// Release puts a processing job back after its worker was interrupted, which does not
// count against the job. It reports whether j changed.
func (j *Job) Release(at Time, why string) bool {
	return Apply(j, &Event{
		Kind: KindReleased, Run: j.Run, Attempt: j.Attempt, StartedAt: j.StartedAt, At: at, Node: j.Node, Error: why,
	})
}

func (j *Job) touch(at Time) { j.UpdatedAt = max(j.UpdatedAt, at) }

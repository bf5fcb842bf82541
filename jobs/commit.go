package jobs

import (
	"iter"
	"time"
)

// Commit is one transaction of the tracker: a numbered list of changes. It belongs to
// its listener only during the call; the jobs are shared.
type Commit struct {
	// Number counts the commits with changes, without a gap, for the life of the
	// tracker's file. It is 0 if nothing changed.
	Number    uint64
	At        Time
	Took      time.Duration // from the beginning of the fold until it was on disk
	Positions Positions     // up to which both streams are folded
	Changes   []Change
	// Outcomes are the ends of attempts that have been folded now. Repeats are among
	// them, which changed nothing.
	Outcomes []Event
	Answers  []Answer
	Load     Load
}

// Change is the change of one job in a commit.
type Change struct {
	Before *Job // nil: the job is new
	After  *Job // nil: its record was deleted
}

// Ended says whether the job ended with this change.
func (c *Change) Ended() bool {
	return c.After != nil && c.After.Status.Ended() && (c.Before == nil || !c.Before.Status.Ended())
}

// Submitted says whether the job is new, has a new message, or was known only from
// events before.
func (c *Change) Submitted() bool {
	was, is := c.Before, c.After
	return is != nil && (was == nil || was.Seq != is.Seq || was.Payload == nil && is.Payload != nil)
}

// due is the moment at which this change requires another look at the job (see
// [Agenda]); 0 = none.
func (c *Change) due() (at Time) {
	was, is := c.Before, c.After
	if is == nil || is.Status.Ended() {
		return 0
	}
	if is.Place == Due && (was == nil || was.Place != Due || was.DueAt != is.DueAt || was.Seq != is.Seq || was.Priority != is.Priority) {
		at = max(is.DueAt, 1)
	}
	limit := is.LimitAt()
	// While it ran, its worker watched the limit, which may have passed meanwhile.
	if limit != 0 && (was == nil || was.LimitAt() != limit || was.Status == Processing && is.Status != Processing) {
		if at == 0 || limit < at {
			at = limit
		}
	}
	return at
}

// Ended are the jobs that ended with this commit.
func (c *Commit) Ended() iter.Seq[*Job] { return c.those((*Change).Ended) }

// Submitted are the jobs that were submitted, see [Change.Submitted].
func (c *Commit) Submitted() iter.Seq[*Job] { return c.those((*Change).Submitted) }

func (c *Commit) those(which func(*Change) bool) iter.Seq[*Job] {
	return func(yield func(*Job) bool) {
		for i := range c.Changes {
			if which(&c.Changes[i]) && !yield(c.Changes[i].After) {
				return
			}
		}
	}
}

// Due is the earliest moment at which this commit requires another look at a job; 0 =
// none.
func (c *Commit) Due() (first Time) {
	for i := range c.Changes {
		if at := c.Changes[i].due(); at != 0 && (first == 0 || at < first) {
			first = at
		}
	}
	return first
}

// Answer is the result of a batch, or of a submission that made no job.
type Answer struct {
	Kind  AnswerKind
	ID    ID     // of the message, or of the batch
	Err   *Error // the reason of a refusal
	Job   *Job   // the job of the first submission, for a repeat
	Batch *Batch // the stored one
}

// AnswerKind is the kind of an [Answer].
type AnswerKind uint8

// The kinds of answers.
const (
	SubmissionRefused  AnswerKind = iota + 1
	SubmissionReplayed            // its job existed already
	BatchStored                   // its messages may be published
	BatchDone                     // all of its jobs exist
)

// Load is the amount of work after a commit.
type Load struct {
	Unfinished int // pending, processing and retrying jobs
	Scheduled  int // jobs whose time is to come
	Queued     int // messages in JOBS that are still needed
	Callbacks  int // of these, those of callbacks
}

// Ends are a piece of the log of ends: what has ended since some commit.
type Ends struct {
	// Jobs come in the order of the commits that stored their ends. They are as the
	// records are now, so one may run again. Those that were deleted are left out.
	Jobs []EndedJob
	Next EndedPlace // where the next piece begins
	// Whole says that there is no more. Number is that of the last commit then.
	Whole  bool
	Number uint64
	// Floor is the last commit that the log does not have any more, FloorAt its moment;
	// both are 0 if it has all.
	Floor   uint64
	FloorAt Time
}

// EndedJob is a job whose end was stored by the commit with this number.
type EndedJob struct {
	Number uint64
	*Job
}

// EndedPlace is a place in the log of ends: before the job with this index among those
// of a commit, or before the next commit if that has none.
type EndedPlace struct {
	Number uint64
	Index  int
}

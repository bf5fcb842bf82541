package jobs

import (
	"context"
	"time"
)

// What the domain needs from the technologies around it. The broker implements
// Queue, EventLog, Inbox and Notifier and feeds a Sink; the status tracker
// implements Tracker and is such a Sink.

// Delivery hands one queued message to this process, under a lease.
type Delivery struct {
	Lane Lane
	Seq  uint64 // its place in JOBS
	Ref  string // what Queue knows this delivery by
}

// Queue hands out deliveries lane by lane. None of its methods waits for an
// answer; what gets lost is made good by the lease's end.
type Queue interface {
	// Pull asks for up to n more deliveries of a lane; they come to the Receiver
	// that the lanes were opened with, as soon as there are any.
	Pull(lane Lane, n int) error
	// Ack ends a delivery for good. The queue may put that off for a part of the
	// lease.
	Ack(d Delivery) error
	// Nak gives a delivery back, to come again after delay.
	Nak(ref string, delay time.Duration) error
	// Extend renews the lease of a delivery.
	Extend(ref string) error
}

// Receiver takes what a Queue hands out. Calls come one at a time and must not
// block for long.
type Receiver interface {
	Deliver(d Delivery)
	// PullEnded says that of what was pulled for a lane n deliveries will not come
	// (the request ran out): ask again.
	PullEnded(lane Lane, n int)
}

// EventLog takes what happens to jobs. Append returns when the events are on
// their way, not when they are stored: whoever must know that they count waits
// for the tracker's commit, and appends them again if it does not come.
type EventLog interface {
	Append(events []Event) error
}

// Inbox takes submissions into the queue. Submit returns when the message is on
// its way; refused is called later, at most once, if the queue does not take
// it: with an *Error, [QueueFull] if it is full. That a message is in is heard
// from the tracker's commit.
type Inbox interface {
	Submit(m *Message, refused func(error)) error
}

// Notifier tells the world about ended jobs. Notify returns when the
// notifications are stored in their stream.
type Notifier interface {
	Notify(ctx context.Context, ended []*Job) error
}

// Positions are the sequences up to which a tracker has folded the streams.
type Positions struct {
	Jobs   uint64 // in JOBS
	Status uint64 // in STATUS
}

// Sink takes what stands in the streams, each stream in its order but the two
// in any. A call may block: that holds its stream up.
type Sink interface {
	// Submitted hands over a message of JOBS. m is the sink's for the time of the call,
	// what it points to for good.
	Submitted(m *Message)
	// Happened hands over the events of one message of STATUS; seq is its sequence.
	Happened(seq uint64, events []Event)
}

// Tracker is the committed truth as the pool looks it up.
type Tracker interface {
	// Find returns the job that owns the message seq of JOBS; nil if none does (any
	// more). The job is shared: it must not be changed.
	Find(seq uint64) (*Job, error)
}

// Refusal says why the job with this id was not changed.
type Refusal struct {
	ID  ID
	Err *Error
}

// Ledger keeps what a [jobstream/jobs/intake.Submitter] has to know before it submits, and does [Reserve].
type Ledger interface {
	Doer
	// Recall returns the jobs that a token stands for, nil if it is new, or an
	// *Error of kind [IdempotencyMismatch]. Of one whose record was deleted it knows
	// ID and CreatedAt only, and the Key is 0; see [Message.Forgotten].
	Recall(t *Token) ([]*Job, error)
}

// Agenda knows which jobs wait for a moment, and does [Expire].
type Agenda interface {
	Doer
	// Due returns up to limit of the jobs whose message has to be published by now:
	// first those that count as unfinished already, since these need no room, then
	// up to scheduled others. Of both those come first that are due first. next is
	// the first moment after now at which more are due, 0 = none.
	Due(now Time, limit, scheduled int) (due []*Job, next Time, err error)
	// Whole returns a job of Due with its payload, which Due may leave out so that
	// thousands of large ones are not in memory together; nil if it is gone.
	Whole(j *Job) (*Job, error)
	// Overdue lists jobs that should have started or ended by now and are not running,
	// a bounded number, and returns when it has to be called next (0 = nothing is
	// bounded in time).
	Overdue(now Time) (keys []uint64, next Time, err error)
}

package jobs

import (
	"context"
	"time"
)

// The interfaces between the domain and the technologies. The broker implements Queue,
// EventLog, Inbox and Notifier, and feeds a Sink. The tracker implements Tracker, and
// is such a Sink.

// Delivery is one queued message in the hands of this process, under a lease.
type Delivery struct {
	Lane Lane
	Seq  uint64 // its place in JOBS
	Ref  string // the Queue's name for this delivery
}

// Queue hands out deliveries, lane by lane. None of its methods waits for an answer.
// The end of a lease makes good for anything that gets lost.
type Queue interface {
	// Pull asks for up to n more deliveries of a lane. They come to the Receiver that
	// the lanes were opened with, as soon as there are any.
	Pull(lane Lane, n int) error
	// Ack ends a delivery for good. The queue may defer that for a part of the lease.
	Ack(d Delivery) error
	// Nak gives a delivery back, to come again after delay.
	Nak(ref string, delay time.Duration) error
	// Extend renews the lease of a delivery.
	Extend(ref string) error
}

// Receiver takes the deliveries of a Queue. Calls come one at a time and must not block
// for long.
type Receiver interface {
	Deliver(d Delivery)
	// PullEnded says that a request ran out: of those pulled for a lane, n deliveries
	// will not come. Ask again.
	PullEnded(lane Lane, n int)
}

// EventLog takes the events of jobs. Append returns when the events are on their way,
// not when they are stored. A caller that needs them waits for the tracker's commit,
// and appends them again if it does not come.
type EventLog interface {
	Append(events []Event) error
}

// Inbox takes submissions into the queue. Submit returns when the message is on its
// way. refused is called later, at most once, if the queue does not take it: with an
// *Error, which is [QueueFull] if the queue is full. The tracker's commit confirms that
// a message is in.
type Inbox interface {
	Submit(m *Message, refused func(error)) error
}

// Notifier publishes the ends of jobs. Notify returns when the notifications are stored
// in their stream.
type Notifier interface {
	Notify(ctx context.Context, ended []*Job) error
}

// Positions are the sequences up to which a tracker has folded the streams.
type Positions struct {
	Jobs   uint64 // in JOBS
	Status uint64 // in STATUS
}

// Sink takes the contents of the streams. Each stream comes in its order, the two in
// any. A call may block, which blocks its stream.
type Sink interface {
	// Submitted hands over a message of JOBS. The sink owns m during the call, and its
	// contents for ever.
	Submitted(m *Message)
	// Happened hands over the events of one message of STATUS; seq is its sequence.
	Happened(seq uint64, events []Event)
}

// Tracker is the committed truth, as the pool reads it.
type Tracker interface {
	// Find returns the job that owns the message seq of JOBS; nil if there is none (any
	// more). The job is shared and must not be changed.
	Find(seq uint64) (*Job, error)
}

// Refusal is the reason why the job with this id was not changed.
type Refusal struct {
	ID  ID
	Err *Error
}

// Ledger answers a [jobstream/jobs/intake.Submitter] before it submits, and does
// [Reserve].
type Ledger interface {
	Doer
	// Recall returns the jobs of a token, nil if it is new, or an *Error of kind
	// [IdempotencyMismatch]. A job whose record was deleted has ID and CreatedAt only,
	// and the Key 0; see [Message.Forgotten].
	Recall(t *Token) ([]*Job, error)
}

// Agenda lists the jobs that wait for a moment, and does [Expire].
type Agenda interface {
	Doer
	// Due returns up to limit of the jobs whose messages must be published by now. Jobs
	// that count as unfinished already come first, as they need no room; then up to
	// scheduled others. Both parts are in the order of their moments. next is the first
	// later moment with more of them; 0 = none.
	Due(now Time, limit, scheduled int) (due []*Job, next Time, err error)
	// Whole returns a job of Due with its payload, or nil if it is gone. Due may leave
	// payloads out, so that thousands of large ones are not in memory together.
	Whole(j *Job) (*Job, error)
	// Overdue lists a bounded number of jobs that should have started or ended by now
	// and are not running. It returns when to call it next; 0 = no job has such a
	// limit.
	Overdue(now Time) (keys []uint64, next Time, err error)
}

// Logs keep the log entries of jobs.
type Logs interface {
	// Open begins the entries of an attempt.
	Open(j *Job, attempt int) LogWriter
}

// LogWriter appends to the log of a job; see [Task.Log]. It may be used by several
// goroutines. Entries that it cannot store are lost.
type LogWriter interface {
	Log(level Level, stream, text string)
	// Close ends the entries of the attempt. Later ones are lost.
	Close()
}

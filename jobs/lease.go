package jobs

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"
)

// Leases are the work of workers elsewhere. A worker asks for jobs of remote types and
// gets a lease for each: the right to work on one execution of the job. The lease ends
// unless the worker beats. Then the job goes to another worker, and whatever the first
// one reports is refused.
//
// A worker registers nowhere, and every call is complete in itself. The name of a worker
// may be "". All methods may be called from any goroutine. Their errors are [*Error]s:
// [NotFound] for a token that is none or whose job was deleted, [LeaseLost] with
// [Error.State], [ShuttingDown] and [Unavailable] with RetryAfter. A token says nothing
// about who presents it.
type Leases interface {
	// Next waits for jobs and leases them. It returns as soon as it has one, with what
	// else is ready, and with none when a.Wait is over or ctx has ended. The start of
	// each is on disk. Errors are [UnknownType], [TooMany] and ShuttingDown too.
	Next(ctx context.Context, a *Ask) ([]Lease, error)
	// Beat renews leases. It refuses none: those that are lost are listed.
	Beat(ctx context.Context, worker string, tokens []string) (Beats, error)
	// Progress reports on an execution and renews its lease. If the job was cancelled,
	// the answer says so. A checkpoint that is no JSON or too large is [InvalidRequest].
	Progress(ctx context.Context, token string, p *Progress) (Beats, error)
	// Done completes jobs and returns when that is on disk. There is an ending for each
	// of them, in their order.
	Done(ctx context.Context, of []Done) []Ending
	// Fail ends an execution with an error, and returns when that is on disk. The job
	// is retried while it has attempts left.
	Fail(ctx context.Context, token string, f *Failure) Ending
	// Release gives a job back, which uses up no attempt. It returns when that is on
	// disk.
	Release(ctx context.Context, token string, g *GiveBack) Ending
	// Attach stores a file that becomes the job's by Done, and renews the lease. The same
	// file again changes nothing; another one with its name is a [Conflict].
	Attach(ctx context.Context, token, name, contentType string, content io.Reader) (*Artifact, error)
	// Job is the job of a lease that has not ended, as it was started.
	Job(ctx context.Context, token string) (*Job, error)
	// AtWork lists who works here, and who has asked for work lately: the server's own
	// pool first, then the others by name.
	AtWork() []Worker
}

// Ask is a worker's request for jobs.
type Ask struct {
	Types  []string      // 1 to MaxAskTypes, all of them remote
	Max    int           // 1 to MaxAsk jobs
	Wait   time.Duration // 0 to MaxAskWait
	Worker string        // its name; "" = none
	// Member says that the worker is a member of the cluster, so that it may have jobs of
	// types that the server does itself; see [Type.Anywhere].
	Member bool
	// Gone says that nobody reads the answer any more. It is called before the ask gets
	// a job. nil = the end of the context says so.
	Gone func() bool
}

// Bounds of asks.
const (
	MaxAsk        = 100 // jobs of one ask
	MaxAskTypes   = 100
	MaxAskWait    = time.Minute
	MaxAskBytes   = 1 << 20 // payloads and checkpoints of one answer; the first job always fits
	MaxAsks       = 10_000  // that wait at a time
	MaxLeases     = 1000    // that one named worker holds
	MaxWorkerName = 64      // bytes
)

// ValidWorkerName says whether s can be the name of a worker: letters, digits, _, -, @ and #.
func ValidWorkerName(s string) bool {
	return s != "" && len(s) <= MaxWorkerName && !strings.ContainsFunc(s, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune("_-@#", r)
	})
}

// memberMark stands in the names of workers that are members, between the member's and what
// makes it another worker after each start. No name of a node has it.
const (
	memberMark = "#w-"
	maxStart   = 8 // bytes of what differs with each start
)

// MemberWorker is the name under which a member works. start has up to 8 bytes, and differs
// with each start.
func MemberWorker(member, start string) string {
	return member[:min(len(member), MaxWorkerName-len(memberMark)-maxStart)] + memberMark + start
}

// WorkingMember is the member that works under a name of [MemberWorker], or the first bytes of
// a long name; "" = it is no such name.
func WorkingMember(worker string) string {
	name, _, ok := strings.Cut(worker, memberMark)
	if !ok {
		return ""
	}
	return name
}

// OfMember reports whether the node of an execution is a worker that is a member.
func OfMember(node string) bool { return strings.Contains(node, memberMark) }

// Bounds of [Type.Lease].
const (
	MinLease = 5 * time.Second
	MaxLease = time.Hour
)

// Lease is the right to work on one execution of a job.
type Lease struct {
	// Token names the execution. Nobody can guess it, so it does not belong into logs.
	Token string
	// Span is how long the lease lasts without a beat. The worker counts from the
	// moment at which it sent its ask or its last beat.
	Span time.Duration
	// Fence grows with every execution of the job. A store that refuses lower ones is
	// safe from workers that have lost their lease and do not know it.
	Fence int64
	// Deadline is when the execution times out.
	Deadline Time
	Attempt  int
	// Trace is where the execution is in a trace; see [Task.Trace].
	Trace Trace
	// Job is the record as the execution found it, with the checkpoint of the one
	// before. It is shared.
	Job *Job
}

// Beats is the answer to beats.
type Beats struct {
	// Span is the shortest one of the leases, counted from this beat.
	Span time.Duration
	// Lost are the tokens whose lease has ended, or that are none. Their workers stop
	// and throw the work away.
	Lost []string
	// Cancelled are the tokens whose job was cancelled or has met its deadline, and the
	// reasons. Their workers stop.
	Cancelled map[string]string
}

// Progress is a worker's report on an execution. All fields may be missing.
type Progress struct {
	Percent    int     // 0 to 100; below 0 = as it was
	Message    *string // nil = as it was
	Log        []LogLine
	Checkpoint json.RawMessage // for the next execution; nil = as it was
}

// LogLine is a line for the job's log.
type LogLine struct {
	Level  Level
	Stream string // stdout or stderr, of a program; "" = none
	Text   string
}

// Done completes the job of a lease.
type Done struct {
	Token  string
	Result json.RawMessage // nil = none
}

// Failure is the error of an execution.
type Failure struct {
	Error     string
	Permanent bool // no retry can mend it
	// RetryAfter is the least wait before a retry, if it is longer than the backoff of
	// the type. 0 to MaxDelay.
	RetryAfter time.Duration
	// Busy says that the worker's target takes nothing more for RetryAfter: no job of the
	// type starts before, see [BusyFailed].
	Busy bool
}

// GiveBack returns a job to the queue.
type GiveBack struct {
	Delay  time.Duration // until it is started again, at most MaxDelay
	Reason string
	// Busy says that the worker's target takes nothing more for Delay: no job of the type
	// starts before, see [Busy].
	Busy bool
}

// Ending is how a call has ended an execution.
type Ending struct {
	Status   Status // of the job now
	RunAt    Time   // when a retrying or scheduled one is due
	Repeated bool   // an equal call had ended the execution before
	Err      error  // why the call was refused; nothing else is set then
}

// LeaseState is the state of the job of a lost lease.
type LeaseState struct {
	Status  Status
	Attempt int
	Error   string // the last one
}

// Worker is one that works, or has asked for work lately.
type Worker struct {
	Name  string
	Node  string   // where it has asked, or runs
	Local bool     // it is the pool of the server
	Types []string // for which it has asked
	Seen  Time     // its last call
	Work  []AtWork
}

// AtWork is an execution of a worker.
type AtWork struct {
	ID       ID
	Type     string
	Since    Time
	Progress int // percent
}

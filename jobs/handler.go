package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Handler does the work of a job type.
//
// Handle runs one attempt. It must return when ctx ends. The cause of that is
// [ErrTimeout], [ErrShutdown], [ErrCancelled] or [ErrDeadline]. An error is retried
// while attempts are left, unless it is [Permanent]. A panic counts as an error. A
// crash may repeat an attempt, so Handle should be idempotent: the job's id stays the
// same.
type Handler interface {
	Handle(ctx context.Context, t *Task) (Result, error)
}

// IdleCloser is a Handler that keeps something open between attempts, like connections.
// CloseIdle closes it. It is called when a type of the handler was changed or removed, and
// when the server stops. Attempts that run are not disturbed, and may open it again.
type IdleCloser interface{ CloseIdle() }

// HandlerFunc is a function as a Handler.
type HandlerFunc func(ctx context.Context, t *Task) (Result, error)

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, t *Task) (Result, error) { return f(ctx, t) }

// Checker is a Handler, or a [Schema], that can reject a payload early. Check returns nil or an
// [*Error] made by [Invalid]. It is called at the door, so it must be fast and depend
// on the payload only.
type Checker interface {
	Check(p *Payload) error
}

// Freer is a Handler whose jobs may free disk space. Those that do are admitted even when
// there is little left.
type Freer interface {
	FreesSpace(payload json.RawMessage) bool
}

// Result is the result of an attempt.
type Result struct {
	Value any // becomes the JSON "result" of the job; nil = null
}

// Task is one attempt, as its handler sees it.
type Task struct {
	// Job is the record at the start of the attempt; read only.
	Job *Job
	// Attempt counts from 1.
	Attempt int
	// Until is when the attempt will be interrupted; zero = not known.
	Until time.Time

	host Host
	left atomic.Pointer[json.RawMessage] // the checkpoint for the next attempt

	mu    sync.Mutex // for the rest
	files []Artifact // committed
	ended bool
}

// Host is the server, as far as a task needs it. Its methods may be called from any
// goroutine.
type Host interface {
	// Report passes progress on; see [Task.Progress].
	Report(percent int, message string)
	// Log appends an entry to the job's log; see [Task.Log] and [Task.LogOutput].
	Log(level Level, stream, text string)
	// Create begins a file of the job; see [Task.Artifact].
	Create() (ArtifactWriter, error)
	// InputPath is the absolute path of an input's file; see [Task.Input].
	InputPath(in *Input) (string, error)
}

// Lender is a [Host] whose tasks can be handed over.
type Lender interface {
	// Lend makes the lease of the attempt; see [Task.Lease].
	Lend(ctx context.Context) (token string, span time.Duration, err error)
}

// Lease makes the lease under which somebody elsewhere may go on with the attempt, once
// the handler has returned [ErrHandedOver]. The start of the attempt is on disk then. The
// one who gets the token may end the attempt at once, even while the handler runs. It has
// to send the first beat within span of that return; see [Leases].
func (t *Task) Lease(ctx context.Context) (token string, span time.Duration, err error) {
	l, ok := t.host.(Lender)
	if !ok {
		return "", 0, errors.New("this task cannot be handed over")
	}
	return l.Lend(ctx)
}

// Traced is a [Host] that knows where an attempt is in a trace.
type Traced interface {
	// AttemptTrace is the result of [Task.Trace].
	AttemptTrace() Trace
}

// Trace is where the attempt is in a trace, so that others whom it asks pass it on. It is
// that of the job if this server exports no spans.
func (t *Task) Trace() Trace {
	if h, ok := t.host.(Traced); ok {
		return h.AttemptTrace()
	}
	return t.Job.Trace()
}

// ErrHandedOver is the error of a handler whose attempt goes on elsewhere, under the lease
// of [Task.Lease]. Its type must say [Type.HandsOver].
var ErrHandedOver = errors.New("the attempt was handed over, but has no lease")

// NewTask makes a task for tests of a handler; h may be nil.
func NewTask(j *Job, attempt int, h Host) *Task {
	t := new(Task)
	t.Begin(j, attempt, h)
	return t
}

// Begin turns a zero Task into that of an attempt.
func (t *Task) Begin(j *Job, attempt int, h Host) { t.Job, t.Attempt, t.host = j, attempt, h }

// Progress reports the progress of the attempt, in per cent (0 to 100), with a line for
// people. It may be called at any rate, because reports are throttled.
func (t *Task) Progress(percent int, message string) {
	if t.host != nil {
		t.host.Report(min(max(percent, 0), 100), message)
	}
}

// Level is the weight of an entry in a job's log.
type Level string

// The levels.
const (
	LevelDebug Level = "debug"
	LevelInfo  Level = "info"
	LevelWarn  Level = "warn"
	LevelError Level = "error"
)

// Log appends a line to the job's log. The log is for people and bounded: a long line is
// cut, and lines beyond the bounds are dropped and counted. Nothing that the job needs
// belongs there.
func (t *Task) Log(level Level, text string) { t.LogOutput(level, "", text) }

// Logf is [Task.Log] of fmt.Sprintf.
func (t *Task) Logf(level Level, format string, args ...any) {
	t.Log(level, fmt.Sprintf(format, args...))
}

// LogOutput is [Task.Log] for a line that a program has written to a stream, stdout or
// stderr.
func (t *Task) LogOutput(level Level, stream, text string) {
	if t.host != nil {
		t.host.Log(level, stream, text)
	}
}

// Artifact begins a file for the job to leave, for example a picture that it has drawn. A
// committed file belongs to the job if this attempt completes it; otherwise it is removed.
// A job may leave [MaxArtifacts] files. The first one is its result for downloads.
func (t *Task) Artifact() (ArtifactWriter, error) {
	if t.host == nil {
		return nil, errors.New("this task has no place for files")
	}
	w, err := t.host.Create()
	if err != nil {
		return nil, err
	}
	return &taskFile{ArtifactWriter: w, t: t}, nil
}

// taskFile is a file that its task knows once it is committed.
type taskFile struct {
	ArtifactWriter
	t *Task
}

// Commit makes the file one of its job's, under [ArtifactName] of name.
func (f *taskFile) Commit(name, contentType string) (*Artifact, error) {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	switch {
	case f.t.ended:
		f.Abort()
		return nil, errors.New("the attempt has ended or was given up; it can leave no more files")
	case len(f.t.files) >= MaxArtifacts:
		f.Abort()
		return nil, Permanentf("a job can leave at most %d files", MaxArtifacts)
	}
	a, err := f.ArtifactWriter.Commit(ArtifactName(name), Shorten(contentType, MaxArtifactName))
	if err == nil {
		f.t.files = append(f.t.files, *a)
	}
	return a, err
}

// Leave makes a stored file one of the job's, beside those of [Task.Artifact]. It does
// nothing for one that is already. Another one with the same name is an [*Error].
func (t *Task) Leave(a *Artifact) (all []Artifact, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.files {
		switch f := &t.files[i]; {
		case f.Name != a.Name:
		case f.SHA256 == a.SHA256:
			return slices.Clip(t.files), nil
		default:
			return nil, &Error{Kind: Conflict, Detail: "this execution has left another file " + Quote(a.Name) + " already"}
		}
	}
	switch {
	case t.ended:
		return nil, &Error{Kind: Conflict, Detail: "the execution has ended; it can leave no more files"}
	case len(t.files) >= MaxArtifacts:
		return nil, &Error{Kind: Conflict, Detail: fmt.Sprintf("a job can leave at most %d files", MaxArtifacts)}
	}
	t.files = append(t.files, *a)
	return slices.Clip(t.files), nil
}

// End ends the attempt: from now on no file can be committed. It returns the files that
// were, in that order.
func (t *Task) End() []Artifact {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	return slices.Clip(t.files)
}

// MaxCheckpoint bounds a checkpoint, in bytes of JSON.
const MaxCheckpoint = 256 << 10

// Checkpoint is the checkpoint of the attempt before; nil for none. It survives
// restarts and a retry by hand. After a crash it may be an earlier one of the attempt,
// or that of the attempt before.
func (t *Task) Checkpoint() json.RawMessage { return t.Job.Checkpoint }

// SetCheckpoint leaves v, as JSON of at most [MaxCheckpoint], for the next attempt. It
// is stored together with the next report of progress that is passed on, and with the
// outcome of this attempt, unless that completes the job.
func (t *Task) SetCheckpoint(v any) error {
	b, err := json.Marshal(v)
	switch {
	case err != nil:
		return fmt.Errorf("the checkpoint is not JSON: %w", err)
	case len(b) > MaxCheckpoint:
		return fmt.Errorf("the checkpoint has %d bytes, at most %d are kept", len(b), MaxCheckpoint)
	}
	t.left.Store((*json.RawMessage)(&b))
	return nil
}

// NextCheckpoint is the checkpoint that the next attempt would get: the one that this
// attempt has set, or else the one that it got itself.
func (t *Task) NextCheckpoint() json.RawMessage {
	if b := t.Left(); b != nil {
		return b
	}
	return t.Job.Checkpoint
}

// Left is the checkpoint that this attempt has set; nil for none.
func (t *Task) Left() json.RawMessage {
	if b := t.left.Load(); b != nil {
		return *b
	}
	return nil
}

// The causes of the end of a handler's context, by context.Cause.
var (
	// ErrTimeout ends an attempt that takes longer than its timeout.
	ErrTimeout = errors.New("timed out")
	// ErrShutdown ends an attempt because the server stops. The job goes back to the
	// queue, and uses up no attempt.
	ErrShutdown = errors.New("server is shutting down")
	// ErrCancelled ends an attempt because the job was cancelled. The handler's result
	// is ignored.
	ErrCancelled = errors.New("the job was cancelled")
	// ErrDeadline ends an attempt because the job's deadline has come. The job fails.
	ErrDeadline = errors.New(DeadlineReason)
)

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks an error that no retry can mend.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// Permanentf is [Permanent] of fmt.Errorf.
func Permanentf(format string, args ...any) error {
	return &permanentError{fmt.Errorf(format, args...)}
}

// IsPermanent says whether err, or one that it wraps, is marked [Permanent].
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

type snoozeError struct {
	after  time.Duration
	reason string
}

func (e *snoozeError) Error() string { return "snoozed for " + e.after.String() + ": " + e.reason }

// Snooze is the error of a handler that wants to be called again after some time (at
// least a millisecond), with the same attempt. A job that is not ready yet has not
// failed. The reason becomes its message.
func Snooze(after time.Duration, reason string) error {
	return &snoozeError{max(after, time.Millisecond), Shorten(reason, MaxMessage)}
}

// SnoozeOf returns the arguments of [Snooze], if err is or wraps such an error.
func SnoozeOf(err error) (after time.Duration, reason string, ok bool) {
	var s *snoozeError
	if !errors.As(err, &s) {
		return 0, "", false
	}
	return s.after, s.reason, true
}

type busyError struct {
	after  time.Duration
	err    error
	failed bool
}

func (e *busyError) Error() string { return e.err.Error() }
func (e *busyError) Unwrap() error { return e.err }

// Busy is the error of a handler whose target takes nothing more for now. No job of its
// type starts before that time has passed. Then they start one at a time, until one
// completes. 0 is an unknown time: a second, doubled up to five minutes as long as the
// target stays busy. The job itself is put off until then, with the same attempt; the
// reason becomes its message. It may be put off for ever, unless its handler ends that by
// [BusyFailed].
func Busy(after time.Duration, reason string) error {
	return &busyError{max(after, 0), errors.New(Shorten(reason, MaxMessage)), false}
}

// BusyFailed is [Busy], but this attempt has failed with err.
func BusyFailed(after time.Duration, err error) error { return &busyError{max(after, 0), err, true} }

// BusyOf returns the time and the reason of [Busy] or [BusyFailed], if err is or wraps
// such an error. failed says which of them.
func BusyOf(err error) (after time.Duration, reason string, failed, ok bool) {
	var b *busyError
	if !errors.As(err, &b) {
		return 0, "", false, false
	}
	return b.after, b.err.Error(), b.failed, true
}

type retryAfterError struct {
	err   error
	after time.Duration
}

func (e *retryAfterError) Error() string { return e.err.Error() }
func (e *retryAfterError) Unwrap() error { return e.err }

// RetryAfter is a failure whose target has asked for patience: the next attempt, if there
// is one, comes after the backoff of the type or after this time, whichever is longer.
func RetryAfter(after time.Duration, err error) error { return &retryAfterError{err, after} }

// RetryAfterOf returns the time of [RetryAfter], if err is or wraps such an error, else 0.
func RetryAfterOf(err error) time.Duration {
	var e *retryAfterError
	if !errors.As(err, &e) {
		return 0
	}
	return e.after
}

// Bounds of an attempt's texts in the record.
const (
	MaxResult  = 256 << 10 // bytes of JSON
	MaxError   = 4096      // bytes of an error's text
	MaxMessage = 512       // bytes of a progress message
)

// Shorten is s, or its first n bytes and an ellipsis if it is longer.
func Shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

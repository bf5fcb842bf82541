package jobs

import (
	"context"
	"sync/atomic"
	"time"
)

// Act is what somebody has done by a request, as the audit log has it.
type Act struct {
	Actor  string `json:"actor,omitempty"`  // the principal
	Action string `json:"action"`           // the operation
	Target string `json:"target,omitempty"` // the job, type or schedule; "" if it is about none
	Detail string `json:"detail,omitempty"`
}

// AuditEntry is an entry of the audit log.
type AuditEntry struct {
	Seq uint64 `json:"-"` // its place; 0 for submissions, which the records of jobs have
	At  Time   `json:"at"`
	Act
	// Refused says that the actor lacked a right. Refusals of one actor and action are
	// one entry if they come soon after each other.
	Refused bool `json:"refused,omitempty"`
	Count   int  `json:"count,omitempty"` // of them
	Since   Time `json:"since,omitempty"` // the first of them
}

// The audit log keeps so many entries of either kind, and drops what is older.
const (
	MaxAudit     = 100_000
	MaxRefusals  = 10_000
	MaxAuditText = 300 // bytes of a target, and of a detail
	AuditTime    = 400 * 24 * time.Hour
)

// Audited does another command. If that changes anything, the audit log says so, in the
// same transaction.
type Audited struct {
	Command Command
	Act     Act
}

// Origin is that of the other command.
func (c Audited) Origin() Stamp { return c.Command.Origin() }

// Note adds entries to the audit log.
type Note struct {
	Stamp
	Entries []AuditEntry `json:"entries"`
}

// Request is the part of a request that the audit log is about. It goes with the
// request's context, see [WithRequest].
type Request struct {
	Act
	noted atomic.Bool
}

// Noted says whether the audit log has it.
func (r *Request) Noted() bool { return r.noted.Load() }

// SetNoted says that the audit log has it, or needs not have it.
func (r *Request) SetNoted() { r.noted.Store(true) }

type requestKey struct{}

// WithRequest is a context for the commands of a request that changes something.
func WithRequest(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestOf is the request whose context it is; nil for none, and for one that changes
// nothing.
func RequestOf(ctx context.Context) *Request {
	r, _ := ctx.Value(requestKey{}).(*Request)
	return r
}

// InDetail sets how the request of a context, if it has one, was written.
func InDetail(ctx context.Context, request []byte) {
	if r := RequestOf(ctx); r != nil {
		r.Detail = Shorten(string(request), MaxAuditText)
	}
}

// About sets what the request of a context, if it has one, is about.
func About(ctx context.Context, target string) {
	if r := RequestOf(ctx); r != nil {
		r.Target = Shorten(target, MaxAuditText)
	}
}

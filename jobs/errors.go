package jobs

import (
	"errors"
	"strconv"
	"time"
)

// ErrorKind is the stable code of an [Error], the "code" of a problem.
type ErrorKind string

// The kinds of errors for callers.
const (
	MalformedJSON    ErrorKind = "malformed_json"
	Unauthorized     ErrorKind = "unauthorized"
	Forbidden        ErrorKind = "forbidden"
	NotFound         ErrorKind = "not_found"
	NoArtifact       ErrorKind = "no_artifact"
	MethodNotAllowed ErrorKind = "method_not_allowed"
	Conflict         ErrorKind = "conflict"
	Duplicate        ErrorKind = "duplicate"
	PayloadTooLarge  ErrorKind = "payload_too_large"
	InvalidRequest   ErrorKind = "invalid_request"
	AnswerTooLarge   ErrorKind = "answer_too_large"

	IdempotencyMismatch ErrorKind = "idempotency_mismatch"
	UnknownType         ErrorKind = "unknown_type"
	QueueFull           ErrorKind = "queue_full"
	TooMany             ErrorKind = "too_many"
	LeaseLost           ErrorKind = "lease_lost"
	StorageFull         ErrorKind = "storage_full"
	ShuttingDown        ErrorKind = "shutting_down"
	Unavailable         ErrorKind = "unavailable"
	Internal            ErrorKind = "internal"
)

// FieldError names one wrong value by its JSON pointer (RFC 6901) within the
// body, or by "query/name" or "header/name".
type FieldError struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// Error is an error for the caller: a mistake in the request, or the reason why the
// server cannot serve it now. Any other error is internal: a door logs it and does not
// show it.
type Error struct {
	Kind       ErrorKind
	Detail     string
	Fields     []FieldError
	RetryAfter time.Duration // when another try makes sense; 0 = unknown
	JobID      ID            // the job that stands in the way, for [Duplicate]
	State      *LeaseState   // of the job, for [LeaseLost]
}

func (e *Error) Error() string { return e.Detail }

// Invalid is the error for one wrong field; for several use [InvalidFields].
func Invalid(pointer, detail string) *Error {
	return InvalidFields(FieldError{Pointer: pointer, Detail: detail})
}

// maxFieldErrors bounds how many wrong fields one error lists.
const maxFieldErrors = 50

// InvalidFields is the error for wrong fields. Its detail names the first.
func InvalidFields(fields ...FieldError) *Error {
	n := len(fields) - 1
	fields = fields[:min(len(fields), maxFieldErrors)]
	detail := fields[0].Detail
	if fields[0].Pointer != "" {
		detail = fields[0].Pointer + ": " + detail
	}
	if n > 0 {
		detail += " (and " + strconv.Itoa(n) + " more)"
	}
	return &Error{Kind: InvalidRequest, Detail: detail, Fields: fields}
}

// AsError finds the [*Error] in err. Any other error becomes one of kind [Internal]
// without details, and ok is false: log it.
func AsError(err error) (e *Error, ok bool) {
	if errors.As(err, &e) {
		return e, true
	}
	return &Error{Kind: Internal, Detail: "an internal error; the server's log says more"}, false
}

// Quote is s in quotes for a message, shortened.
func Quote(s string) string {
	const longest = 80
	if len(s) > longest {
		s = s[:longest] + "…"
	}
	return strconv.Quote(s)
}

// NoSuchJob is the error for a reference without a job.
func NoSuchJob(ref string) *Error {
	return &Error{Kind: NotFound, Detail: "there is no job " + Quote(ref)}
}

// NoSuchType is the error for the address of a type that does not exist, or is
// internal.
func NoSuchType(name string) *Error {
	return &Error{Kind: NotFound, Detail: "there is no job type " + Quote(name)}
}

package jobs

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// ErrorKind is the stable code of an [Error], as it stands in a problem's
// "code".
type ErrorKind string

// The kinds of errors that callers can meet.
const (
	MalformedJSON    ErrorKind = "malformed_json"
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
	ShuttingDown        ErrorKind = "shutting_down"
	Unavailable         ErrorKind = "unavailable"
	Internal            ErrorKind = "internal"
)

// problems is the one table from kinds to HTTP statuses and titles; both doors,
// REST and the NATS service, answer by it.
var problems = map[ErrorKind]struct {
	status int
	title  string
}{
	MalformedJSON:       {http.StatusBadRequest, "The body is not JSON"},
	Forbidden:           {http.StatusForbidden, "Not allowed"},
	NotFound:            {http.StatusNotFound, "Not found"},
	NoArtifact:          {http.StatusNotFound, "The job has no artifact"},
	MethodNotAllowed:    {http.StatusMethodNotAllowed, "Method not allowed"},
	Conflict:            {http.StatusConflict, "Conflict with the present state"},
	Duplicate:           {http.StatusConflict, "An unfinished job has this unique key"},
	PayloadTooLarge:     {http.StatusRequestEntityTooLarge, "The body is too large"},
	AnswerTooLarge:      {http.StatusRequestEntityTooLarge, "The answer is too large for a message"},
	InvalidRequest:      {http.StatusUnprocessableEntity, "The request is not valid"},
	IdempotencyMismatch: {http.StatusUnprocessableEntity, "The idempotency key was used for another request"},
	UnknownType:         {http.StatusUnprocessableEntity, "Unknown job type"},
	QueueFull:           {http.StatusTooManyRequests, "The queue is full"},
	ShuttingDown:        {http.StatusServiceUnavailable, "The server is shutting down"},
	Unavailable:         {http.StatusServiceUnavailable, "Not available at the moment"},
	Internal:            {http.StatusInternalServerError, "Something broke"},
}

// FieldError names one wrong value by its JSON pointer (RFC 6901) within the
// body, or by "query/name" or "header/name".
type FieldError struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// Error is an error for the caller: what was wrong with the request, or why the
// server cannot serve it now. Anything else that a door sees is an internal
// error, which it logs and does not show.
type Error struct {
	Kind       ErrorKind
	Detail     string
	Fields     []FieldError
	RetryAfter time.Duration // when trying again makes sense; 0 = not said
	JobID      ID            // the job that stands in the way, for [Duplicate]
}

func (e *Error) Error() string { return e.Detail }

// Status is the HTTP status of the error's kind.
func (e *Error) Status() int {
	if p, ok := problems[e.Kind]; ok {
		return p.status
	}
	return http.StatusInternalServerError
}

// RetryAfterSeconds is RetryAfter in whole seconds, rounded up, as the
// Retry-After header has it; "" if nothing is said.
func (e *Error) RetryAfterSeconds() string {
	if e.RetryAfter <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10)
}

// Problem is e as application/problem+json (RFC 9457).
func (e *Error) Problem() []byte {
	status := e.Status()
	b, err := json.Marshal(struct {
		Type   string       `json:"type"`
		Title  string       `json:"title"`
		Status int          `json:"status"`
		Detail string       `json:"detail"`
		Code   ErrorKind    `json:"code"`
		JobID  ID           `json:"job_id,omitzero"`
		Errors []FieldError `json:"errors,omitempty"`
	}{"about:blank", problems[e.Kind].title, status, e.Detail, e.Kind, e.JobID, e.Fields})
	if err != nil {
		panic(err) // strings and an int always marshal
	}
	return b
}

// Invalid is the error for one wrong field; Join more with [InvalidFields].
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

// AsError finds the [*Error] in err; any other error becomes one of kind
// [Internal] without details, and ok is false: log it.
func AsError(err error) (e *Error, ok bool) {
	if errors.As(err, &e) {
		return e, true
	}
	return &Error{Kind: Internal, Detail: "an internal error; the server's log says more"}, false
}

// Quote is s as messages show it: in quotes, and not too long.
func Quote(s string) string {
	const longest = 80
	if len(s) > longest {
		s = s[:longest] + "…"
	}
	return strconv.Quote(s)
}

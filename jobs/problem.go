package jobs

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
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

// HTTPStatus is the HTTP status of an error's kind.
func HTTPStatus(e *Error) int {
	if p, ok := problems[e.Kind]; ok {
		return p.status
	}
	return http.StatusInternalServerError
}

// RetryAfterSeconds is an error's RetryAfter in whole seconds, rounded up, as the
// Retry-After header has it; "" if nothing is said.
func RetryAfterSeconds(e *Error) string {
	if e.RetryAfter <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10)
}

// Problem is e as application/problem+json (RFC 9457).
func Problem(e *Error) []byte {
	status := HTTPStatus(e)
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

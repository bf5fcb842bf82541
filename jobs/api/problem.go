package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"jobstream/jobs"
)

// problems is the one table from kinds to HTTP statuses and titles. Both doors, REST
// and the NATS service, use it.
var problems = map[jobs.ErrorKind]struct {
	status int
	title  string
}{
	jobs.MalformedJSON:       {http.StatusBadRequest, "The body is not JSON"},
	jobs.Unauthorized:        {http.StatusUnauthorized, "Who are you?"},
	jobs.Forbidden:           {http.StatusForbidden, "Not allowed"},
	jobs.NotFound:            {http.StatusNotFound, "Not found"},
	jobs.NoArtifact:          {http.StatusNotFound, "The job has no artifact"},
	jobs.MethodNotAllowed:    {http.StatusMethodNotAllowed, "Method not allowed"},
	jobs.Conflict:            {http.StatusConflict, "Conflict with the present state"},
	jobs.Duplicate:           {http.StatusConflict, "An unfinished job has this unique key"},
	jobs.PayloadTooLarge:     {http.StatusRequestEntityTooLarge, "The body is too large"},
	jobs.AnswerTooLarge:      {http.StatusRequestEntityTooLarge, "The answer is too large for a message"},
	jobs.InvalidRequest:      {http.StatusUnprocessableEntity, "The request is not valid"},
	jobs.IdempotencyMismatch: {http.StatusUnprocessableEntity, "The idempotency key was used for another request"},
	jobs.UnknownType:         {http.StatusUnprocessableEntity, "Unknown job type"},
	jobs.LeaseLost:           {http.StatusConflict, "The lease is lost"},
	jobs.TooMany:             {http.StatusTooManyRequests, "Too many at a time"},
	jobs.QueueFull:           {http.StatusTooManyRequests, "The queue is full"},
	jobs.StorageFull:         {http.StatusInsufficientStorage, "There is no room for the file"},
	jobs.ShuttingDown:        {http.StatusServiceUnavailable, "The server is shutting down"},
	jobs.Unavailable:         {http.StatusServiceUnavailable, "Not available at the moment"},
	jobs.Internal:            {http.StatusInternalServerError, "Something broke"},
}

// HTTPStatus is the HTTP status of an error's kind.
func HTTPStatus(e *jobs.Error) int {
	if p, ok := problems[e.Kind]; ok {
		return p.status
	}
	return http.StatusInternalServerError
}

// RetryAfterSeconds is an error's RetryAfter for the Retry-After header, in whole
// seconds, rounded up. It is "" if there is none.
func RetryAfterSeconds(e *jobs.Error) string {
	if e.RetryAfter <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10)
}

// Problem is e as application/problem+json (RFC 9457).
func Problem(e *jobs.Error) []byte {
	status := HTTPStatus(e)
	b, err := json.Marshal(struct {
		Type   string            `json:"type"`
		Title  string            `json:"title"`
		Status int               `json:"status"`
		Detail string            `json:"detail"`
		Code   jobs.ErrorKind    `json:"code"`
		JobID  jobs.ID           `json:"job_id,omitzero"`
		Job    *leaseState       `json:"job,omitempty"`
		Errors []jobs.FieldError `json:"errors,omitempty"`
	}{"about:blank", problems[e.Kind].title, status, e.Detail, e.Kind, e.JobID, stateOf(e), e.Fields})
	if err != nil {
		panic(err) // strings and an int always marshal
	}
	return b
}

// leaseState is the state of the job of a lost lease in a problem.
type leaseState struct {
	Status  string `json:"status"`
	Attempt int    `json:"attempt"`
	Error   string `json:"error"`
}

func stateOf(e *jobs.Error) *leaseState {
	if e.State == nil {
		return nil
	}
	return &leaseState{e.State.Status.String(), e.State.Attempt, e.State.Error}
}

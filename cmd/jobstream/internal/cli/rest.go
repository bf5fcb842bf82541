package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"jobstream/jobs"
)

// Timeout is how long a server may take to answer a request that does not wait.
const Timeout = time.Minute

// Client makes requests of one server. Close it.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// Close closes the connections that no request uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// A Header is a header of a request.
type Header struct{ Name, Value string }

// Send sends a request and returns the answer with its body unread. The body of the
// request is JSON of any value, or what an [io.Reader] reads; nil = none. An answer of 300
// or more is a [*RefusedError].
func (c *Client) Send(ctx context.Context, method, path string, body any, headers ...Header) (*http.Response, error) {
	content, err := contentOf(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, &UsageError{err}
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		request.Header.Set(h.Name, h.Value)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, &UnreachableError{err}
	}
	if answer.StatusCode < http.StatusMultipleChoices {
		return answer, nil
	}
	told, err := whole(answer)
	if err != nil {
		return nil, err
	}
	return nil, refusedBy(answer, told)
}

func contentOf(body any) (io.Reader, error) {
	switch b := body.(type) {
	case nil:
		return nil, nil //nolint:nilnil // a request without a body
	case io.Reader:
		return b, nil
	}
	text, err := json.Marshal(body)
	return bytes.NewReader(text), err
}

// whole reads the whole answer.
func whole(answer *http.Response) ([]byte, error) {
	defer func() { _ = answer.Body.Close() }() // all of it has been read
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("the server's answer was cut off: %w", err)
	}
	return body, nil
}

// Do makes a request and returns the body of the answer. It also reads that into out,
// unless out is nil. The server has [Timeout] to answer.
func (c *Client) Do(ctx context.Context, method, path string, body, out any, headers ...Header) ([]byte, error) {
	return c.within(ctx, Timeout, method, path, body, out, headers...)
}

// within is Do with another timeout.
func (c *Client) within(ctx context.Context, timeout time.Duration, method, path string, body, out any, headers ...Header) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := c.Send(ctx, method, path, body, headers...) //nolint:bodyclose // whole closes it
	if err != nil {
		return nil, err
	}
	text, err := whole(answer)
	if err != nil || out == nil {
		return text, err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return text, fmt.Errorf("that is no server of this version: %w", err)
	}
	return text, nil
}

// get reads one resource.
func (c *Client) get(ctx context.Context, path string, query url.Values, out any) ([]byte, error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.Do(ctx, http.MethodGet, path, nil, out)
}

// UnreachableError is the error of a server that does not answer.
type UnreachableError struct{ err error }

func (e *UnreachableError) Error() string {
	return "the server cannot be reached; name its address with --url if it is another one: " + e.err.Error()
}

func (e *UnreachableError) Unwrap() error { return e.err }

// RefusedError is the answer of a server that does not do what it is asked.
type RefusedError struct {
	Status int           // of HTTP
	After  time.Duration // Retry-After; 0 = none
	Code   string        // like "queue_full"; "" = the answer is no problem+json
	Detail string        // for people
	Job    string        // the id of the job that is in the way; "" = none
	Fields []jobs.FieldError
}

// refusedBy reads the problem in an answer.
func refusedBy(answer *http.Response, body []byte) *RefusedError {
	var problem struct {
		Detail string            `json:"detail"`
		Code   string            `json:"code"`
		JobID  string            `json:"job_id"`
		Errors []jobs.FieldError `json:"errors"`
	}
	if json.Unmarshal(body, &problem) != nil || problem.Detail == "" {
		problem.Detail = "the server answers " + answer.Status
	}
	seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After")) // 0 without one
	return &RefusedError{
		answer.StatusCode, time.Duration(seconds) * time.Second,
		problem.Code, clean(problem.Detail), problem.JobID, problem.Errors,
	}
}

// Wrong says that the request was wrong, and so the command line or the configuration.
func (e *RefusedError) Wrong() bool {
	return e.Status == http.StatusUnprocessableEntity || e.Status == http.StatusBadRequest
}

// Error names all problems, and what to do.
func (e *RefusedError) Error() string {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return e.Detail + "\nGive a token with --token, or run this where the server runs, with its --config, as a user who may read its data folder."
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if e.After > 0 {
			return fmt.Sprintf("%s\nTry again in %s.", e.Detail, span(e.After))
		}
	}
	if e.Job != "" {
		return e.Detail + "\nSee: jobstream job " + e.Job
	}
	if len(e.Fields) == 0 {
		return e.Detail
	}
	lines := make([]string, 0, len(e.Fields))
	if e.Code == "" || strings.HasPrefix(e.Fields[0].Pointer, "config/") || strings.HasPrefix(e.Fields[0].Pointer, "environment/") {
		lines = append(lines, e.Detail) // it is a headline; else it is the first problem
	}
	for _, f := range e.Fields {
		lines = append(lines, fieldLine(f))
	}
	return strings.Join(lines, "\n")
}

// fieldLine says what is wrong with a field, by the name that it has on the command line.
func fieldLine(f jobs.FieldError) string {
	detail := clean(f.Detail)
	kind, name, _ := strings.Cut(f.Pointer, "/")
	switch {
	case kind == "config" || kind == "environment" || f.Pointer == "": // the detail names it
		return detail
	case kind == "query":
		return "--" + strings.ReplaceAll(name, "_", "-") + ": " + detail
	case kind == "header" || kind == "path":
		return name + ": " + detail
	}
	field, inside, deep := strings.Cut(name, "/")
	switch {
	case field == "filter" && deep:
		return "--" + strings.ReplaceAll(inside, "_", "-") + ": " + detail
	case field == "payload" && deep:
		return "payload: /" + inside + " " + detail
	case field == "payload" || field == "type" || field == "level":
		return field + ": " + detail
	case field == "inputs" && deep:
		return "--input " + inside + ": " + detail
	}
	return "--" + strings.ReplaceAll(strings.TrimSuffix(field, "s"), "_", "-") + ": " + detail
}

// Package nats asks whoever answers requests on a subject to do jobs: a request for each
// attempt, with the payload as its body. The answer is the result.
//
// Start reading at [Handler.Handle].
package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/busy"
	"jobstream/jobs/handlers/internal/envelope"
)

// Requester sends requests over NATS.
type Requester interface {
	// Request sends a request and waits for its answer until ctx ends. The error is
	// [ErrNobody] if nobody listens to the subject.
	Request(ctx context.Context, subject string, header map[string][]string, body []byte) (*Reply, error)
}

// ErrNobody says that nobody listens to the subject of a request.
var ErrNobody = errors.New("nobody answers")

// Reply is the answer to a request.
type Reply struct {
	Header map[string][]string
	Body   []byte
}

// The headers of an answer that is an error, by the convention of NATS's services.
const (
	errorHeader     = "Nats-Service-Error"
	errorCodeHeader = "Nats-Service-Error-Code"
)

// Bounds of the pause of a type that nobody answers for.
const (
	leastPause = time.Second
	mostPause  = 30 * time.Second
)

// Subject is where the requests go.
func (h *Handler) Subject() string { return h.o.Subject }

// Handler asks for the jobs of one type.
type Handler struct {
	o *Options
	r Requester

	mu    sync.Mutex // for the rest
	pause time.Duration
	until time.Time // the end of the pause
}

// New makes the handler of a type whose options have been checked.
func New(o *Options, r Requester) *Handler { return &Handler{o: o, r: r} }

// Describe says where the requests go.
func (h *Handler) Describe() string { return "a request on " + h.o.Subject }

// Handle sends one request. When ctx ends it stops waiting, which is all that it can do:
// whoever works on the request is not told.
func (h *Handler) Handle(ctx context.Context, t *jobs.Task) (r jobs.Result, err error) {
	header := make(map[string][]string)
	for name, value := range envelope.Headers(t) {
		header[name] = []string{value}
	}
	reply, err := h.r.Request(ctx, h.o.Subject, header, envelope.Payload(t.Job))
	switch {
	case errors.Is(err, ErrNobody):
		return r, busy.Error(t, h.longer(), "nobody answers requests on "+h.o.Subject)
	case ctx.Err() != nil:
		return r, context.Cause(ctx)
	case err != nil:
		return r, fmt.Errorf("the request on %s failed: %w", h.o.Subject, err)
	}
	h.answered()
	if err := failure(reply); err != nil {
		return r, err
	}
	r.Value, err = value(reply.Body)
	return r, err
}

// longer is the rest of the pause, or a longer one if it is over.
func (h *Handler) longer() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if !now.Before(h.until) {
		h.pause = min(max(2*h.pause, leastPause), mostPause)
		h.until = now.Add(h.pause)
	}
	return h.until.Sub(now)
}

// answered ends the pauses: the next one is short again.
func (h *Handler) answered() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pause, h.until = 0, time.Time{}
}

// later are the error codes from 400 to 499 that another try may mend.
var later = map[int]bool{408: true, 425: true, 429: true}

// failure is the error that an answer is; nil if it is none. A code from 400 to 499 is
// for good, as the request is to blame.
func failure(r *Reply) error {
	text, code := first(r.Header, errorHeader), first(r.Header, errorCodeHeader)
	if text == "" && code == "" {
		return nil
	}
	err := errors.New(strings.TrimSpace("the answer was the error " + code + " " + text))
	if n, e := strconv.Atoi(code); e == nil && 400 <= n && n < 500 && !later[n] {
		return jobs.Permanent(err)
	}
	return err
}

// first is the first value of a header, whose name may be written in any case.
func first(header map[string][]string, name string) string {
	for given, values := range header {
		if strings.EqualFold(given, name) && len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

// value is the result of a job: an answer as JSON if it is, or else as a text.
func value(body []byte) (any, error) {
	text := bytes.TrimSpace(body)
	switch {
	case len(text) == 0:
		return nil, nil
	case len(text) > jobs.MaxResult:
		return nil, jobs.Permanentf("the answer has %d bytes, at most %d are kept as a result", len(text), jobs.MaxResult)
	case json.Valid(text) && utf8.Valid(text):
		return json.RawMessage(text), nil
	}
	return strings.ToValidUTF8(string(bytes.TrimRight(body, "\r\n")), string(utf8.RuneError)), nil
}

package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// Values of headers that every answer shares. The slices go into the maps of headers
// as they are, so nobody changes them.
var (
	jsonType    = []string{"application/json; charset=utf-8"}
	problemType = []string{"application/problem+json"}
	noSniff     = []string{"nosniff"}
	noStore     = []string{"no-store"}
)

// errNoPath is the answer for an unknown path.
var errNoPath = &jobs.Error{Kind: jobs.NotFound, Detail: "there is nothing at this path"}

// buffers has memory to build answers in.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

// maxPooled keeps huge answers from staying in memory for good.
const maxPooled = 64 << 10

var replayMark = []string{"true"} // shared, see jsonType

// answer sends the answer of an operation.
func (k *call) answer(a *api.Answer) error {
	h := k.Response().Header()
	if a.Address != "" {
		h["Location"] = []string{prefixOf(k.Request()) + a.Address}
	}
	if a.Replayed {
		h["Idempotent-Replay"] = replayMark
	}
	if a.Waited > 0 {
		h.Set("Preference-Applied", "wait="+strconv.Itoa(int(a.Waited/time.Second)))
	}
	switch {
	case a.List != nil:
		return k.sendList(a.List)
	case a.File != nil:
		return k.sendFile(a.File)
	case a.Handler != nil:
		a.Handler.ServeHTTP(k.Response(), k.Request())
		return nil
	case a.Changes != nil:
		return k.sendChanges(a.Changes)
	case a.Log != nil:
		return k.sendLog(a.Log)
	case a.Stream != nil:
		return k.sendStream(a.Stream)
	case a.JSON == nil:
		return k.NoContent(a.Status)
	}
	return sendJSON(k, a.Status, a.JSON)
}

// sendJSON sends a JSON and a newline. Without it a shell's prompt would stick to
// curl's output.
func sendJSON(c echo.Context, status int, body api.JSON) error {
	buf := buffers.Get().(*[]byte)
	b := append(body.AppendJSON((*buf)[:0]), '\n')
	err := send(c, status, jsonType, b)
	if cap(b) <= maxPooled {
		*buf = b
		buffers.Put(buf)
	}
	return err
}

// send writes a whole answer. It always has a Content-Length, because HEAD must give
// the same headers as GET.
func send(c echo.Context, status int, contentType []string, body []byte) error {
	w := c.Response()
	h := w.Header()
	h["Content-Type"] = contentType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	if c.Request().Method == http.MethodHead {
		return nil
	}
	_, err := w.Write(body)
	return err
}

// fail answers with the problem that err is. An error that is not meant for the client
// is logged under the request's id and not shown.
func (s *Server) fail(c echo.Context, id string, err error) {
	r := c.Request()
	if c.Response().Committed || r.Context().Err() != nil {
		s.logLate(c, id, err)
		if c.Response().Committed {
			return // most likely the client is gone
		}
	}
	problem, known := jobs.AsError(routing(err, c.Response().Header().Get("Allow")))
	if !known && r.Context().Err() != nil {
		problem = &jobs.Error{Kind: jobs.Unavailable, Detail: "the request was given up before it was done"}
	} else if !known {
		s.log.LogAttrs(r.Context(), slog.LevelError, "http request failed",
			slog.String("method", r.Method), slog.String("path", r.URL.Path),
			slog.String("request_id", id), slog.Any("error", err))
	}
	if problem.Kind == jobs.Unauthorized {
		c.Response().Header()["WWW-Authenticate"] = challenge
	}
	if after := api.RetryAfterSeconds(problem); after != "" {
		c.Response().Header().Set("Retry-After", after)
	}
	if problem.JobID != (jobs.ID{}) {
		c.Response().Header().Set("Location", prefixOf(r)+api.JobAddress(problem.JobID))
	}
	if err := send(c, api.HTTPStatus(problem), problemType, append(api.Problem(problem), '\n')); err != nil {
		s.logLate(c, id, err)
	}
}

// logLate logs an error that comes too late for an answer. A client that has gone away
// is common; a panic or a broken disk in the middle of a download is not.
func (s *Server) logLate(c echo.Context, id string, err error) {
	r := c.Request()
	level := slog.LevelError
	if r.Context().Err() != nil || errors.Is(err, context.Canceled) {
		level = slog.LevelDebug
	}
	s.log.LogAttrs(r.Context(), level, "http answer broken off",
		slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.String("request_id", id), slog.Any("error", err))
}

// routing translates the errors of Echo's router. The router has set the header Allow
// by then.
func routing(err error, allow string) error {
	var e *echo.HTTPError
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case http.StatusNotFound:
		return errNoPath
	case http.StatusMethodNotAllowed:
		return &jobs.Error{Kind: jobs.MethodNotAllowed, Detail: "this path does not take that method, but " + allow}
	}
	return err
}

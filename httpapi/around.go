package httpapi

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// The header that connects a request, its answer and the log, and the longest value
// that is accepted from a client.
const (
	requestIDHeader = "X-Request-Id"
	maxRequestID    = 128 // bytes
)

// around wraps every handler. It gives the request its id, refuses requests that are
// not for this server, turns errors and panics into problems, and writes the access
// log. There is no other middleware, because each costs a submission time.
func (s *Server) around(unknown func(int, time.Duration, bool)) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error { return s.handle(&call{Context: c, s: s, answered: unknown}, next) }
	}
}

// handle is around for one request.
func (s *Server) handle(k *call, next echo.HandlerFunc) error {
	c, r := k.Context, k.Request()
	began := time.Now()
	defer k.end()
	defer k.depart()
	defer k.counted(began)
	id := requestID(r)
	h := c.Response().Header()
	h[requestIDHeader] = []string{id}
	h["X-Content-Type-Options"] = noSniff // JSON is nothing else
	h["Cache-Control"] = noStore          // it is true only now; files have their own
	if s.log.Enabled(r.Context(), slog.LevelDebug) {
		defer s.access(c, id, began)
	}
	defer s.recovered(c, id)
	if err := s.served(k, next); err != nil {
		s.fail(c, id, err)
	}
	return nil
}

// counted counts the answer.
func (k *call) counted(began time.Time) {
	k.answered(k.Response().Status, time.Since(began), k.place == k.s.waits)
}

// served runs the handler, unless the request comes from the wrong place or its path
// only looks like a known one. Another method on /jobs/batch is not "not allowed":
// there is no such job.
func (s *Server) served(c *call, next echo.HandlerFunc) error {
	if passedOn(c.Request()) == nil { // the first door has checked it
		if err := s.sources.check(c.Request()); err != nil {
			return err
		}
	}
	open := pages[c.Path()] != nil
	if !open {
		who, err := s.identify(c.Request())
		if err != nil {
			return err
		}
		c.who = who
	}
	if why := s.in().away; why != nil && !open {
		return why
	}
	if r := c.Request(); reads(r) && !open {
		if err := c.enter(); err != nil { // the others do so when their bodies are there
			return err
		}
	} else if !reads(r) && strings.HasPrefix(c.Path(), jobPath) {
		parts := strings.Split(echo.GetPath(c.Request()), "/")
		if _, _, err := api.ParseRefText(parts[2]); err != nil {
			return jobs.NoSuchJob(parts[2])
		}
	}
	return next(c)
}

// requestID is the client's id, if it is short and printable, or a new one.
func requestID(r *http.Request) string {
	given := r.Header[requestIDHeader]
	if len(given) == 0 || given[0] == "" || len(given[0]) > maxRequestID {
		return uuid.NewString()
	}
	for _, c := range []byte(given[0]) {
		if c < ' ' || c > '~' {
			return uuid.NewString()
		}
	}
	return given[0]
}

// recovered turns a handler's panic into a problem. If the answer has begun already,
// the connection is cut, so that half an answer does not look like a whole one.
func (s *Server) recovered(c echo.Context, id string) {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v)
	}
	begun := c.Response().Committed
	s.fail(c, id, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
	if begun {
		panic(http.ErrAbortHandler)
	}
}

// access logs a request.
func (s *Server) access(c echo.Context, id string, began time.Time) {
	r := c.Request()
	s.log.LogAttrs(r.Context(), slog.LevelDebug, "http request",
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", c.Response().Status),
		slog.Int64("bytes", c.Response().Size), slog.Duration("took", time.Since(began)),
		slog.String("remote", r.RemoteAddr), slog.String("request_id", id))
}

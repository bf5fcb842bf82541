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

	"jobstream/jobs/api"
)

// The header that ties a request, its answer and the log together, and the
// longest value that is taken over from a client.
const (
	requestIDHeader = "X-Request-Id"
	maxRequestID    = 128 // bytes
)

// around goes around every handler: it gives the request its id, refuses what is
// not meant for this server, turns errors and panics into problems, and writes
// the access log. It is the only middleware, because each one costs a submission
// time.
func (s *Server) around(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		k := &call{Context: c, s: s}
		defer k.end()
		id := requestID(r)
		h := c.Response().Header()
		h[requestIDHeader] = []string{id}
		h["X-Content-Type-Options"] = noSniff // what is JSON is nothing else
		h["Cache-Control"] = noStore          // all of it is true only now; files know better
		if s.log.Enabled(r.Context(), slog.LevelDebug) {
			defer s.access(c, id, time.Now())
		}
		defer s.recovered(c, id)
		if err := s.served(k, next); err != nil {
			s.fail(c, id, err)
		}
		return nil
	}
}

// served runs the handler, unless the request comes from the wrong place or the
// path only looks like one that exists: another method on /jobs/batch is not "not
// allowed", there is just no such job.
func (s *Server) served(c *call, next echo.HandlerFunc) error {
	if err := s.sources.check(c.Request()); err != nil {
		return err
	}
	if why := s.in().away; why != nil && probes[c.Path()] == nil {
		return why
	}
	if r := c.Request(); reads(r) && probes[c.Path()] == nil {
		if err := c.enter(); err != nil { // the others do when their bodies are there
			return err
		}
	} else if !reads(r) && strings.HasPrefix(c.Path(), jobPath) {
		parts := strings.Split(echo.GetPath(c.Request()), "/")
		if _, _, err := api.ParseRefText(parts[2]); err != nil {
			return errNoPath
		}
	}
	return next(c)
}

// requestID takes over the client's id, if it is short and printable, or makes
// one.
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

// recovered ends a handler's panic with a problem. If the answer has begun
// already, the connection is cut, so that the client doesn't take half an
// answer for a whole one.
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

func (s *Server) access(c echo.Context, id string, began time.Time) {
	r := c.Request()
	s.log.LogAttrs(r.Context(), slog.LevelDebug, "http request",
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", c.Response().Status),
		slog.Int64("bytes", c.Response().Size), slog.Duration("took", time.Since(began)),
		slog.String("remote", r.RemoteAddr), slog.String("request_id", id))
}

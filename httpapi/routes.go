package httpapi

import (
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs/api"
)

// routes connects everything that is served with its path: the operations, whose
// routes [api.Operations] lists, and the pages. HEAD goes where GET goes. An unknown
// path is a 404, an unknown method of a known path a 405.
func (s *Server) routes(e *echo.Echo, count Counter) {
	serve := func(method, path string, h echo.HandlerFunc) {
		e.Add(method, path, h)
		if method == http.MethodGet {
			e.HEAD(path, h)
		}
	}
	for _, op := range api.Operations() {
		if method, path, offered := strings.Cut(op.Route, " "); offered {
			serve(method, parameters.Replace(path), s.operation(op, count(op.Name)))
		}
	}
	for path, p := range pages {
		serve(http.MethodGet, path, func(c echo.Context) error { return p.serve(s, c) })
	}
}

// parameters rewrites the parameters of a route in the syntax of Echo.
var parameters = strings.NewReplacer("{", ":", "}", "")

// jobPath begins the paths of one job; its id is a UUID or a sequence.
const jobPath = "/jobs/:id"

// operation is the handler of an operation, whose answers are counted.
func (s *Server) operation(op *api.Operation, answered func(int, time.Duration, bool)) echo.HandlerFunc {
	return func(c echo.Context) error {
		k := callOf(c)
		k.answered = answered
		k.Request().Pattern = op.Route
		if s.cluster != nil {
			if done, err := k.find(op); done || err != nil {
				return err
			}
		}
		a, err := op.REST(k.Request().Context(), k)
		if revoked := k.revoked(); revoked != nil {
			err = revoked
		}
		if err != nil {
			return err
		}
		if a.Status == 0 {
			a.Status = op.Status
		}
		return k.answer(&a)
	}
}

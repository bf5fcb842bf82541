package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs/form"
)

// checkTimeout bounds the checks behind one answer, because probes give up soon.
const checkTimeout = 5 * time.Second

var (
	liveDoc   = form.Doc{Summary: "Ask whether the process answers", Answer: healthReport{}}
	readyDoc  = form.Doc{Summary: "Ask whether requests should be sent here", Text: "503 while the server stops, when a part cannot work, or on a node of a cluster that knows no leader.", Answer: healthReport{}, Others: unhealthy}
	healthDoc = form.Doc{Summary: "Look at the state of each part", Answer: healthReport{}, Others: unhealthy}

	unhealthy = map[int]any{http.StatusServiceUnavailable: healthReport{}}
)

// healthReport is the answer of all probes.
type healthReport struct {
	Status string            `json:"status" jsonschema:"ok, or unavailable"`
	Checks map[string]string `json:"checks" jsonschema:"by part: ok, or why not"`
}

// live is GET /livez. The process answers, so restarting it would help nobody.
func (s *Server) live(c echo.Context) error { return report(c, nil) }

// ready is GET /readyz: whether requests should be sent here.
func (s *Server) ready(c echo.Context) error {
	checks := s.checks(c)
	if checks["server"] == "" {
		checks["server"] = "ok"
	}
	if s.draining.Load() {
		checks["server"] = "shutting down"
	}
	return report(c, checks)
}

// healthy is GET /healthz and /health: the state of every part, also while draining.
func (s *Server) healthy(c echo.Context) error { return report(c, s.checks(c)) }

// checks is the state of every part: "ok", or the reason why it is not.
func (s *Server) checks(c echo.Context) map[string]string {
	found := make(map[string]string)
	in := s.in()
	if in.away != nil {
		found["server"] = in.away.Detail
		return found
	}
	if in.health == nil {
		return found
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), checkTimeout)
	defer cancel()
	for name, err := range in.health.Check(ctx) {
		found[name] = "ok"
		if err != nil {
			found[name] = err.Error()
		}
	}
	return found
}

// report answers 200 if all checks are "ok", else 503, with the same kind of JSON.
// Unknown queries are accepted here, unlike elsewhere, because probes add some.
func report(c echo.Context, checks map[string]string) error {
	result := healthReport{"ok", checks}
	if checks == nil {
		result.Checks = map[string]string{}
	}
	status := http.StatusOK
	for _, state := range checks {
		if state != "ok" {
			result.Status, status = "unavailable", http.StatusServiceUnavailable
		}
	}
	b, err := json.Marshal(result)
	if err != nil {
		return err
	}
	return send(c, status, jsonType, append(b, '\n'))
}

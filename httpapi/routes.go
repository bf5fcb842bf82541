package httpapi

import "github.com/labstack/echo/v4"

// routes is everything that is served. HEAD goes where GET goes; net/http keeps
// the body back. A path that is not here is a 404, a method that is not here a
// 405.
func (s *Server) routes(e *echo.Echo) {
	get := func(path string, h echo.HandlerFunc) {
		e.GET(path, h)
		e.HEAD(path, h)
	}

	e.POST("/jobs", s.submit)
	get("/jobs", s.list)
	get(jobPath, s.job)
	get(jobPath+"/events", s.events)
	get(jobPath+"/result", s.result)

	get("/workers/stats", s.stats)
	e.PUT("/workers", s.resize)

	s.scheduleRoutes(e, get)

	get("/livez", s.live)
	get("/readyz", s.ready)
	get("/healthz", s.healthy)
	get("/health", s.healthy)
}

// jobPath begins the paths of one job; its id is a UUID or a sequence.
const jobPath = "/jobs/:id"

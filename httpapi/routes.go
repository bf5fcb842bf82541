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
	e.POST("/jobs/batch", s.submitBatch)
	e.POST("/jobs/bulk", s.bulk)
	get("/jobs", s.list)
	get("/jobs/counts", s.counts)
	get(jobPath, s.job)
	e.DELETE(jobPath, s.remove)
	get(jobPath+"/events", s.events)
	get(jobPath+"/result", s.result)
	e.POST(jobPath+"/cancel", s.cancel)
	e.POST(jobPath+"/retry", s.retry)

	get("/types", s.types)
	get(typePath, s.jobType)
	e.POST(typePath+"/pause", s.pause)
	e.POST(typePath+"/resume", s.resume)

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

// typePath begins the paths of one job type.
const typePath = "/types/:type"

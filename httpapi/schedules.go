package httpapi

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/labstack/echo/v4"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
	"jobstream/jobs/strict"
)

// Schedules are what makes jobs at set times. What a user did wrong comes back as
// a *jobs.Error. An actor is who asks for a change.
type Schedules interface {
	// List gives all in the order of their names.
	List(ctx context.Context) ([]*schedule.Entry, error)
	// Get finds one; not_found if there is none.
	Get(ctx context.Context, name string) (*schedule.Entry, error)
	// Create adds one; a name that is taken is a conflict.
	Create(ctx context.Context, actor string, s *schedule.Spec) (*schedule.Entry, error)
	// Put adds one or replaces the one with its name, and says which it was.
	Put(ctx context.Context, actor string, s *schedule.Spec) (e *schedule.Entry, created bool, err error)
	// Delete removes one.
	Delete(ctx context.Context, actor, name string) error
	// Pause stops one until Resume.
	Pause(ctx context.Context, actor, name string) (*schedule.Entry, error)
	// Resume lets one go on.
	Resume(ctx context.Context, actor, name string) (*schedule.Entry, error)
	// Run makes one's job at once and returns it when it is durable; replayed says
	// that it is the one which the token, nil for none, made before.
	Run(ctx context.Context, name string, token *jobs.Token) (j *jobs.Job, replayed bool, err error)
}

// schedulePath begins the paths of one schedule.
const schedulePath = "/schedules/:name"

// scheduleRoutes is what is served about schedules, if there are any.
func (s *Server) scheduleRoutes(e *echo.Echo, get func(path string, h echo.HandlerFunc)) {
	if s.in().schedules == nil {
		return
	}
	get("/schedules", s.listSchedules)
	e.POST("/schedules", s.createSchedule)
	get(schedulePath, s.schedule)
	e.PUT(schedulePath, s.putSchedule)
	e.DELETE(schedulePath, s.deleteSchedule)
	e.POST(schedulePath+"/run", s.runSchedule)
	e.POST(schedulePath+"/pause", s.pauseSchedule)
	e.POST(schedulePath+"/resume", s.resumeSchedule)
}

// listSchedules is GET /schedules.
func (s *Server) listSchedules(c echo.Context) error {
	if err := noQuery(c.Request()); err != nil {
		return err
	}
	all, err := s.in().schedules.List(c.Request().Context())
	if err != nil {
		return err
	}
	return send(c, http.StatusOK, jsonType, append(schedule.ListJSON(all, jobs.Now()), '\n'))
}

// createSchedule is POST /schedules.
func (s *Server) createSchedule(c echo.Context) error {
	body, err := s.scheduleBody(c)
	if err != nil {
		return err
	}
	spec, err := schedule.ParseSpec(body)
	if err != nil {
		return err
	}
	e, err := s.in().schedules.Create(c.Request().Context(), actor, spec)
	if err != nil {
		return err
	}
	return answerSchedule(c, http.StatusCreated, e)
}

// schedule is GET /schedules/{name}.
func (s *Server) schedule(c echo.Context) error {
	if err := noQuery(c.Request()); err != nil {
		return err
	}
	e, err := s.in().schedules.Get(c.Request().Context(), c.Param("name"))
	if err != nil {
		return err
	}
	return answerSchedule(c, http.StatusOK, e)
}

// putSchedule is PUT /schedules/{name}.
func (s *Server) putSchedule(c echo.Context) error {
	body, err := s.scheduleBody(c)
	if err != nil {
		return err
	}
	spec, err := schedule.ParseNamedSpec(c.Param("name"), body)
	if err != nil {
		return err
	}
	e, created, err := s.in().schedules.Put(c.Request().Context(), actor, spec)
	if err != nil {
		return err
	}
	if created {
		return answerSchedule(c, http.StatusCreated, e)
	}
	return answerSchedule(c, http.StatusOK, e)
}

// deleteSchedule is DELETE /schedules/{name}.
func (s *Server) deleteSchedule(c echo.Context) error {
	if err := s.noContent(c); err != nil {
		return err
	}
	if err := s.in().schedules.Delete(c.Request().Context(), actor, c.Param("name")); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// runSchedule is POST /schedules/{name}/run.
func (s *Server) runSchedule(c echo.Context) error {
	if s.draining.Load() {
		return &jobs.Error{Kind: jobs.ShuttingDown, Detail: "the server is stopping and takes no more jobs", RetryAfter: drainRetry}
	}
	if err := s.noContent(c); err != nil {
		return err
	}
	name := c.Param("name")
	token, err := tokenOf(c.Request(), []byte("schedule "+name))
	if err != nil {
		return err
	}
	j, replayed, err := s.in().schedules.Run(c.Request().Context(), name, token)
	if err != nil {
		return err
	}
	return s.accepted(c, j, replayed)
}

// pauseSchedule is POST /schedules/{name}/pause.
func (s *Server) pauseSchedule(c echo.Context) error {
	return s.changeSchedule(c, s.in().schedules.Pause)
}

// resumeSchedule is POST /schedules/{name}/resume.
func (s *Server) resumeSchedule(c echo.Context) error {
	return s.changeSchedule(c, s.in().schedules.Resume)
}

func (s *Server) changeSchedule(c echo.Context, change func(ctx context.Context, actor, name string) (*schedule.Entry, error)) error {
	if err := s.noContent(c); err != nil {
		return err
	}
	e, err := change(c.Request().Context(), actor, c.Param("name"))
	if err != nil {
		return err
	}
	return answerSchedule(c, http.StatusOK, e)
}

// answerSchedule sends a schedule; one that was just made with its address.
func answerSchedule(c echo.Context, status int, e *schedule.Entry) error {
	if status == http.StatusCreated {
		c.Response().Header()["Location"] = []string{"/schedules/" + e.Name}
	}
	return answer(c, status, func(b []byte) []byte { return e.AppendJSON(b, jobs.Now()) })
}

// scheduleBody reads the body of a request that has no query.
func (s *Server) scheduleBody(c echo.Context) ([]byte, error) {
	if err := noQuery(c.Request()); err != nil {
		return nil, err
	}
	return s.body(c)
}

// noContent refuses a query, and a body that says anything: here it would be
// ignored. None, and an empty object, are fine.
func (s *Server) noContent(c echo.Context) error {
	body, err := s.scheduleBody(c)
	if err != nil || len(body) == 0 {
		return err
	}
	var bad []jobs.FieldError
	err = jobs.EachField(body, func(name string, _ json.RawMessage) {
		bad = append(bad, jobs.FieldError{Pointer: strict.Pointer(name), Detail: "is not a known field; there are none here"})
	})
	if err == nil && len(bad) > 0 {
		return jobs.InvalidFields(bad...)
	}
	return err
}

package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs"
)

// drainRetry is when a refused client should try again while this process
// stops: by then its successor may be there.
const drainRetry = 10 * time.Second

// submit is POST /jobs.
func (s *Server) submit(c echo.Context) error {
	r := c.Request()
	if s.draining.Load() {
		return &jobs.Error{Kind: jobs.ShuttingDown, Detail: "the server is stopping and takes no more jobs", RetryAfter: drainRetry}
	}
	if err := noQuery(r); err != nil {
		return err
	}
	if len(r.Header["Idempotency-Key"]) > 0 {
		// ignoring it would let a client repeat a request in the belief that this is safe
		return jobs.Invalid("header/Idempotency-Key", "is not supported; without it, every request makes a job of its own")
	}
	body, err := s.body(c.Response().Writer, r)
	if err != nil {
		return err
	}
	sub, err := jobs.ParseSubmission(body)
	if err != nil {
		return err
	}
	j, err := s.backend.Submit(r.Context(), sub)
	if err != nil {
		return err
	}
	c.Response().Header()["Location"] = []string{"/jobs/" + j.ID.String()}
	return answer(c, http.StatusAccepted, j.AppendJSON)
}

// list is GET /jobs.
func (s *Server) list(c echo.Context) error {
	var page jobs.Page
	if r := c.Request(); r.URL.RawQuery != "" {
		values, err := query(r)
		if err != nil {
			return err
		}
		if page, err = jobs.ParseListQuery(values); err != nil {
			return err
		}
	}
	found, next, err := s.backend.List(c.Request().Context(), page)
	if err != nil {
		return err
	}
	return send(c, http.StatusOK, jsonType, append(jobs.ListJSON(found, next), '\n'))
}

// job is GET /jobs/{id}.
func (s *Server) job(c echo.Context) error {
	j, err := s.find(c)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, j.AppendJSON)
}

// events is GET /jobs/{id}/events.
func (s *Server) events(c echo.Context) error {
	j, err := s.find(c)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, j.AppendEventsJSON)
}

// find looks up the job that the path names; none of these paths knows a query.
func (s *Server) find(c echo.Context) (*jobs.Job, error) {
	if err := noQuery(c.Request()); err != nil {
		return nil, err
	}
	ref := c.Param("id")
	id, seq, err := jobs.ParseRefText(ref)
	if err != nil {
		return nil, err
	}
	j, err := s.lookup(c.Request().Context(), id, seq)
	if err == nil && j == nil {
		err = jobs.NoSuchJob(ref)
	}
	return j, err
}

func (s *Server) lookup(ctx context.Context, id jobs.ID, seq uint64) (*jobs.Job, error) {
	if seq != 0 {
		return s.backend.JobBySeq(ctx, seq)
	}
	return s.backend.Job(ctx, id)
}

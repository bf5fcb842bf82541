package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// counts is GET /jobs/counts.
func (s *Server) counts(c echo.Context) error {
	values, err := query(c.Request())
	if err != nil {
		return err
	}
	filter, err := api.ParseCountsQuery(values)
	if err != nil {
		return err
	}
	found, err := s.in().backend.Counts(c.Request().Context(), filter)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, found.AppendJSON)
}

// job is GET /jobs/{id}.
func (s *Server) job(c echo.Context) error {
	var wait time.Duration
	if r := c.Request(); r.URL.RawQuery != "" {
		values, err := query(r)
		if err != nil {
			return err
		}
		if wait, err = api.ParseWaitQuery(values); err != nil {
			return err
		}
	}
	j, err := s.named(c)
	if err == nil && wait > 0 && !j.Status.Ended() {
		j, err = s.await(c, j.ID, wait)
	}
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, func(b []byte) []byte { return j.AppendWaiting(b, s.in().backend.Waiting(j)) })
}

// await waits until a job has ended, but not longer than d, and returns it as it
// is then.
func (s *Server) await(c echo.Context, id jobs.ID, d time.Duration) (*jobs.Job, error) {
	if err := callOf(c).wait(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), d)
	defer cancel()
	defer context.AfterFunc(s.open, cancel)()
	// the bound on answers is for clients that take them slowly, not for the reverse
	_ = http.NewResponseController(c.Response().Writer).SetWriteDeadline(time.Now().Add(d + writeTimeout)) // not all writers have one
	j, err := s.in().backend.Wait(ctx, id)
	if err == nil && j == nil {
		err = jobs.NoSuchJob(id.String())
	}
	return j, err
}

// events is GET /jobs/{id}/events.
func (s *Server) events(c echo.Context) error {
	j, err := s.find(c)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, j.AppendEventsJSON)
}

// cancel is POST /jobs/{id}/cancel.
func (s *Server) cancel(c echo.Context) error {
	j, err := s.find(c)
	if err != nil {
		return err
	}
	body, err := s.body(c)
	if err != nil {
		return err
	}
	reason, err := api.ParseCancel(body)
	if err != nil {
		return err
	}
	if j, err = s.in().backend.Cancel(c.Request().Context(), actor, j, reason); err != nil {
		return err
	}
	return answer(c, http.StatusAccepted, j.AppendJSON)
}

// retry is POST /jobs/{id}/retry.
func (s *Server) retry(c echo.Context) error {
	j, err := s.findEmpty(c)
	if err != nil {
		return err
	}
	if j, err = s.in().backend.Retry(c.Request().Context(), actor, j); err != nil {
		return err
	}
	return answer(c, http.StatusAccepted, j.AppendJSON)
}

// remove is DELETE /jobs/{id}.
func (s *Server) remove(c echo.Context) error {
	j, err := s.findEmpty(c)
	if err != nil {
		return err
	}
	if err := s.in().backend.Delete(c.Request().Context(), j); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// findEmpty is find for a request that has neither query nor body.
func (s *Server) findEmpty(c echo.Context) (*jobs.Job, error) {
	if err := s.noContent(c); err != nil {
		return nil, err
	}
	return s.named(c)
}

// find looks up the job that the path names, for a request without a query.
func (s *Server) find(c echo.Context) (*jobs.Job, error) {
	if err := noQuery(c.Request()); err != nil {
		return nil, err
	}
	return s.named(c)
}

// named looks up the job that the path names.
func (s *Server) named(c echo.Context) (*jobs.Job, error) {
	ref := c.Param("id")
	id, seq, err := api.ParseRefText(ref)
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
		return s.in().backend.JobBySeq(ctx, seq)
	}
	return s.in().backend.Job(ctx, id)
}

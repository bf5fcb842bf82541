package httpapi

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"jobstream/jobs/api"
)

// types is GET /types.
func (s *Server) types(c echo.Context) error {
	if err := noQuery(c.Request()); err != nil {
		return err
	}
	all, err := s.in().backend.Types(c.Request().Context())
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, func(b []byte) []byte { return api.AppendTypesJSON(b, all) })
}

// jobType is GET /types/{type}.
func (s *Server) jobType(c echo.Context) error {
	if err := noQuery(c.Request()); err != nil {
		return err
	}
	t, err := s.in().backend.Type(c.Request().Context(), c.Param("type"))
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, t.AppendJSON)
}

// pause is POST /types/{type}/pause.
func (s *Server) pause(c echo.Context) error { return s.setPaused(c, true) }

// resume is POST /types/{type}/resume.
func (s *Server) resume(c echo.Context) error { return s.setPaused(c, false) }

func (s *Server) setPaused(c echo.Context, paused bool) error {
	if err := s.noContent(c); err != nil {
		return err
	}
	t, err := s.in().backend.SetPaused(c.Request().Context(), actor, c.Param("type"), paused)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, t.AppendJSON)
}

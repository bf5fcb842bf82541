package httpapi

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"jobstream/jobs/api"
)

// stats is GET /workers/stats.
func (s *Server) stats(c echo.Context) error {
	if err := noQuery(c.Request()); err != nil {
		return err
	}
	st, err := s.in().backend.Stats(c.Request().Context())
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, st.AppendJSON)
}

// resize is PUT /workers.
func (s *Server) resize(c echo.Context) error {
	r := c.Request()
	if err := noQuery(r); err != nil {
		return err
	}
	body, err := s.body(c)
	if err != nil {
		return err
	}
	wish, err := api.ParseResize(body)
	if err != nil {
		return err
	}
	st, err := s.in().backend.Resize(r.Context(), *wish)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, st.AppendJSON)
}

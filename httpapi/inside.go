package httpapi

import (
	"jobstream/jobs"
	"jobstream/jobs/api"
)

// inside stands behind the door.
type inside struct {
	backend *api.Backend
	health  Health
	away    *jobs.Error // why all requests are refused now; nil = they are not

	elsewhere func() *jobs.Error // see Options; it never is nil
}

// in stands behind the door now. It never is nil. A request that is being answered
// while it changes may use both, and get the errors of the old one when that is closed.
func (s *Server) in() *inside { return s.behind.Load() }

// everywhere are the routes that each node of a cluster answers.
var everywhere = map[string]bool{"/nodes": true}

// refusal is why a request of a route is refused now; nil = it is not.
func (s *Server) refusal(route string) *jobs.Error {
	if why := s.in().away; why != nil {
		return why
	}
	if everywhere[route] {
		return nil
	}
	return s.in().elsewhere()
}

// Replace puts these behind the door, and ends [Server.Away]. The health may be nil as
// in [Options].
func (s *Server) Replace(b *api.Backend, h Health) {
	s.behind.Store(&inside{backend: b, health: h, elsewhere: s.in().elsewhere})
}

// Away refuses every request with this error until [Server.Replace]. Probes are still
// answered: /livez with 200, the others with the error.
func (s *Server) Away(why *jobs.Error) {
	in := s.in()
	s.behind.Store(&inside{backend: in.backend, away: why, elsewhere: in.elsewhere})
}

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
}

// in stands behind the door now. It never is nil. A request that is being answered
// while it changes may use both, and get the errors of the old one when that is closed.
func (s *Server) in() *inside { return s.behind.Load() }

// Replace puts these behind the door, and ends [Server.Away]. The health may be nil as
// in [Options].
func (s *Server) Replace(b *api.Backend, h Health) {
	s.behind.Store(&inside{backend: b, health: h})
}

// Away refuses every request with this error until [Server.Replace]. Probes are still
// answered: /livez with 200, the others with the error.
func (s *Server) Away(why *jobs.Error) {
	s.behind.Store(&inside{backend: s.in().backend, away: why})
}

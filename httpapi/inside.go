package httpapi

import (
	"jobstream/jobs"
	"jobstream/jobs/api"
)

// inside is what stands behind the door.
type inside struct {
	backend *api.Backend
	health  Health
	away    *jobs.Error // why nothing can be asked for now; nil = it can
}

// in is what stands behind the door now. It never is nil; a request that is being
// answered while it changes may meet both, and what the old one says when it is closed.
func (s *Server) in() *inside { return s.behind.Load() }

// Replace has everything answered by these from now on. The health may be nil as in
// [Options]. It ends [Server.Away].
func (s *Server) Replace(b *api.Backend, h Health) {
	s.behind.Store(&inside{backend: b, health: h})
}

// Away has every request refused with this error until [Server.Replace]. Only /livez
// says that all is well; the other probes say what the error says.
func (s *Server) Away(why *jobs.Error) {
	s.behind.Store(&inside{backend: s.in().backend, away: why})
}

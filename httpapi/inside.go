package httpapi

import "jobstream/jobs"

// inside is what stands behind the door.
type inside struct {
	backend   Backend
	health    Health
	schedules Schedules
	away      *jobs.Error // why nothing can be asked for now; nil = it can
}

// in is what stands behind the door now. It never is nil; a request that is being
// answered while it changes may meet both, and what the old one says when it is closed.
func (s *Server) in() *inside { return s.behind.Load() }

// Replace has everything answered by these from now on, which may be nil as in
// [Options], and ends [Server.Away].
func (s *Server) Replace(b Backend, h Health, schedules Schedules) {
	s.behind.Store(&inside{backend: b, health: h, schedules: schedules})
}

// Away has every request refused with this error until [Server.Replace]. Only /livez
// says that all is well; the other probes say what the error says.
func (s *Server) Away(why *jobs.Error) {
	old := s.in()
	s.behind.Store(&inside{backend: old.backend, schedules: old.schedules, away: why})
}

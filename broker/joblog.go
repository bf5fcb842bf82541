package broker

import "jobstream/jobs"

// LogSubject is where the entries of a job's log are published while somebody listens. It
// is not among the subjects of the streams, so nothing of it is stored.
func LogSubject(typ string, id jobs.ID) string { return "jobstream.log." + typ + "." + id.String() }

// PublishLog publishes an entry of a job's log if somebody listens. Nobody waits for it,
// and it may get lost.
func (s *Server) PublishLog(j *jobs.Job, entry []byte) {
	if subject := LogSubject(j.Type, j.ID); s.srv.GlobalAccount().SubscriptionInterest(subject) {
		_ = s.nc.Publish(subject, entry) // to an embedded server; it fails only while that stops
	}
}

package broker

import "jobstream/jobs"

// LogSubject is where the entries of a job's log are published while somebody listens. It
// is not among the subjects of the streams, so nothing of it is stored.
func LogSubject(typ string, id jobs.ID) string { return "jobstream.log." + typ + "." + id.String() }

// CancelSubject is where a worker elsewhere can hear that it has to stop a job.
func CancelSubject(worker string) string { return "jobstream.worker.cancel." + worker }

// PublishCancel notifies a worker. It may get lost, and the worker's next beat says the
// same.
func (s *Server) PublishCancel(worker string, body []byte) {
	_ = s.nc.Publish(CancelSubject(worker), body) // as in PublishLog
}

// PublishLog publishes an entry of a job's log if somebody listens. Nobody waits for it,
// and it may get lost.
func (s *Server) PublishLog(j *jobs.Job, entry []byte) {
	if subject := LogSubject(j.Type, j.ID); s.srv.GlobalAccount().SubscriptionInterest(subject) {
		_ = s.nc.Publish(subject, entry) // to an embedded server; it fails only while that stops
	}
}

package node

import (
	"net/http"
	"time"

	"jobstream/cmd/node/natsdoor"
	"jobstream/jobs"
)

// Tracer exports what a node does as spans. Package [jobstream/cmd/node/traces] has one.
type Tracer interface {
	natsdoor.Tracer
	// REST returns the REST door with spans around it. The header traceparent that the door
	// sees is that of the span.
	REST(door http.Handler) http.Handler
	// Attempt is where the attempt of a job that has started then is in a trace.
	Attempt(j *jobs.Job, started jobs.Time) jobs.Trace
	// Notification is where the notification of a job's end is in a trace.
	Notification(j *jobs.Job) jobs.Trace
	// Committed is a listener of commits. It must be quick.
	Committed(c *jobs.Commit)
	// Notified says that the notifications of these ends have been stored, since a moment.
	// It must be quick.
	Notified(ended []*jobs.Job, since time.Time)
}

// traceREST has the tracer around the REST door.
func (o *Options) traceREST() func(http.Handler) http.Handler {
	if o.Tracer == nil {
		return nil
	}
	return o.Tracer.REST
}

// traceNATS is the tracer of requests over NATS; nil for none.
func (o *Options) traceNATS() natsdoor.Tracer {
	if o.Tracer == nil {
		return nil
	}
	return o.Tracer
}

// traceAttempts says where attempts are in traces; nil = where their jobs are.
func (o *Options) traceAttempts() func(*jobs.Job, jobs.Time) jobs.Trace {
	if o.Tracer == nil {
		return nil
	}
	return o.Tracer.Attempt
}

// traceNotifications says where notifications are in traces; nil = where their jobs are.
func (o *Options) traceNotifications() func(*jobs.Job) jobs.Trace {
	if o.Tracer == nil {
		return nil
	}
	return o.Tracer.Notification
}

// followByTracer has the tracer follow commits from now on. It must not see those of a
// rebuild, which are old news.
func (c *core) followByTracer() {
	if t := c.o.Tracer; t != nil && !c.followed && !c.Store.New() {
		c.followed = true
		c.listen(t.Committed)
	}
}

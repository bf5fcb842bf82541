package traces

import (
	"crypto/sha256"
	"encoding/binary"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"jobstream/jobs"
)

// What the ids of a job's spans are made of, beside the job's id and a number.
const (
	ofSubmission   = 's'
	ofWait         = 'w'
	ofAttempt      = 'a'
	ofNotification = 'n'
)

// derive makes the ids of a span, and of a trace that begins with it. Whoever knows the job
// makes the same ones, in any process.
func derive(id jobs.ID, of byte, number uint64) (trace [16]byte, span [8]byte) {
	var in [16 + 1 + 8]byte
	copy(in[:], id[:])
	in[16] = of
	binary.BigEndian.PutUint64(in[17:], number)
	sum := sha256.Sum256(in[:])
	return [16]byte(sum[:16]), [8]byte(sum[16:24])
}

// place is where a span belongs. The zero Trace stands for none.
type place struct {
	at, parent, link jobs.Trace
}

// within is a place below another one, in the same trace.
func within(parent jobs.Trace, span [8]byte) place {
	return place{at: jobs.NewTrace(parent.TraceID(), span, parent.Sampled()), parent: parent}
}

// samples says whether a trace that begins here is exported. All samplers of the standard
// decide by its id alone.
func (t *Tracer) samples(id [16]byte) bool {
	return t.sampler.ShouldSample(sdk.SamplingParameters{TraceID: trace.TraceID(id)}).Decision == sdk.RecordAndSample
}

// bare says whether nobody had a span for the submission: it came as a bare message.
func bare(j *jobs.Job) bool {
	return j.CreatedBy == "" && j.Type != jobs.CallbackType && (j.Terms == nil || j.Terms.Schedule == "")
}

// submission is the place of a bare message.
func (t *Tracer) submission(j *jobs.Job) place {
	id, span := derive(j.ID, ofSubmission, 0)
	if from := j.Trace(); from != (jobs.Trace{}) {
		return within(from, span)
	}
	return place{at: jobs.NewTrace(id, span, t.samples(id))}
}

// origin is where a job was submitted; none for those of schedules, and for others that
// are older than the tracer.
func (t *Tracer) origin(j *jobs.Job) jobs.Trace {
	if bare(j) {
		return t.submission(j).at
	}
	return j.Trace()
}

// attempt is the place of an attempt. The first one is below the submission, unless the job
// was put off. All others begin traces of their own, which link to it. They are exported if
// it was.
func (t *Tracer) attempt(j *jobs.Job, started jobs.Time) place {
	id, span := derive(j.ID, ofAttempt, uint64(started))
	origin := t.origin(j)
	switch {
	case origin == jobs.Trace{}:
		return place{at: jobs.NewTrace(id, span, t.samples(id))}
	case first(j, started):
		return within(origin, span)
	}
	return place{at: jobs.NewTrace(id, span, origin.Sampled()), link: origin}
}

// first says whether the attempt that has started then came right after the submission.
func first(j *jobs.Job, started jobs.Time) bool {
	for i := range j.History {
		switch h := &j.History[i]; {
		case h.Kind == jobs.KindStarted && h.At == started:
			return true
		case h.Kind == jobs.KindSubmitted, h.Kind == jobs.KindRevised && h.Due == 0:
		default:
			return false
		}
	}
	return true
}

// wait is the place of the wait before an attempt: beside it, or below it where that begins
// a trace.
func (t *Tracer) wait(j *jobs.Job, started jobs.Time) place {
	_, span := derive(j.ID, ofWait, uint64(started))
	of := t.attempt(j, started)
	if of.parent != (jobs.Trace{}) {
		return within(of.parent, span)
	}
	return within(of.at, span)
}

// notification is the place of the notification of an end: below the last attempt, or
// below the submission if there was none.
func (t *Tracer) notification(j *jobs.Job) place {
	id, span := derive(j.ID, ofNotification, uint64(j.Run))
	parent := t.origin(j)
	if j.StartedAt != 0 {
		parent = t.attempt(j, j.StartedAt).at
	}
	if parent == (jobs.Trace{}) {
		return place{at: jobs.NewTrace(id, span, t.samples(id))}
	}
	return within(parent, span)
}

// Attempt is where an attempt is in a trace.
func (t *Tracer) Attempt(j *jobs.Job, started jobs.Time) jobs.Trace { return t.attempt(j, started).at }

// Notification is where the notification of a job's end is in a trace.
func (t *Tracer) Notification(j *jobs.Job) jobs.Trace { return t.notification(j).at }

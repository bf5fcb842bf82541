// Package envelope has what an attempt says about itself to those who do its work
// elsewhere. Its payload is the whole body of their request, so this goes into headers.
// Start at [Headers].
package envelope

import (
	"iter"
	"strconv"
	"time"

	"jobstream/jobs"
)

// Headers are the headers of an attempt: the attributes of a CloudEvent, the job, a key
// that stays the same over all attempts of a run, and its place in a trace.
func Headers(t *jobs.Task) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		j := t.Job
		id := j.ID.String()
		run := id + "." + strconv.Itoa(j.Run)
		attempt := strconv.Itoa(t.Attempt)
		until := ""
		if !t.Until.IsZero() {
			until = t.Until.UTC().Format(time.RFC3339)
		}
		for _, h := range [...][2]string{
			{"Content-Type", "application/json"},
			{"ce-specversion", "1.0"},
			{"ce-type", "jobstream.job.run"},
			{"ce-source", "jobstream"},
			{"ce-id", run + "." + attempt},
			{"ce-subject", id},
			{"ce-time", jobs.Now().String()},
			{"Idempotency-Key", run},
			{"Jobstream-Job-Id", id},
			{"Jobstream-Job-Type", j.Type},
			{"Jobstream-Attempt", attempt},
			{"Jobstream-Max-Attempts", strconv.Itoa(j.MaxAttempts)},
			{"Jobstream-Deadline", until},
			{jobs.TraceHeader, t.Trace().String()},
		} {
			if h[1] != "" && !yield(h[0], h[1]) {
				return
			}
		}
	}
}

// Payload is the body of the request.
func Payload(j *jobs.Job) []byte {
	if len(j.Payload) == 0 {
		return []byte("null")
	}
	return j.Payload
}

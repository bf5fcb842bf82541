package figures

import (
	"encoding/binary"

	"jobstream/jobs"
)

// tally is what has happened to the jobs of a type in a period.
type tally struct {
	in, done, failed, retried, cancelled uint64
	wait, run                            Histogram
}

// counts are the numbers of a tally, in the order in which they are stored.
func (t *tally) counts() [5]*uint64 {
	return [5]*uint64{&t.in, &t.done, &t.failed, &t.retried, &t.cancelled}
}

func (t *tally) empty() bool {
	return t.in|t.done|t.failed|t.retried|t.cancelled == 0 && t.wait.n == 0 && t.run.n == 0
}

func (t *tally) merge(o *tally) {
	from, to := o.counts(), t.counts()
	for i := range to {
		*to[i] += *from[i]
	}
	t.wait.Merge(&o.wait)
	t.run.Merge(&o.run)
}

// change counts the change of a job that was not deleted; was may be nil.
func (t *tally) change(was, is *jobs.Job) {
	failures, run, started := 0, 0, jobs.Time(0)
	ran := was == nil || was.Status == jobs.Processing
	switch {
	case was == nil, was.Payload == nil && is.Payload != nil:
		t.in++
	case was.Status.Ended() && !is.Status.Ended():
		t.in++ // it was retried by hand
	}
	if was != nil {
		failures, run, started = was.Failures, was.Run, was.StartedAt
	}
	if run != is.Run {
		failures = 0
	}
	again := is.Failures - failures
	if is.Status.Ended() && (was == nil || !was.Status.Ended()) {
		switch is.Status {
		case jobs.Completed:
			t.done++
		case jobs.Cancelled:
			t.cancelled++
		default:
			t.failed++
			again-- // the last attempt is not repeated
		}
	}
	t.retried += uint64(max(again, 0))
	if is.StartedAt == 0 || !ran && started == is.StartedAt {
		return
	}
	if started != is.StartedAt {
		if d, ok := is.Waited(); ok {
			t.wait.Add(d)
		}
	}
	t.ended(is)
}

// ended counts the end of the last attempt of a job, if it completed or failed.
func (t *tally) ended(j *jobs.Job) {
	switch j.Status {
	case jobs.Completed, jobs.Failed:
		t.run.Add(j.EndedAt.Sub(j.StartedAt))
	case jobs.Retrying:
		if last := &j.History[len(j.History)-1]; last.Kind == jobs.KindRetrying {
			t.run.Add(last.At.Sub(j.StartedAt))
		}
	}
}

// append appends the stored form.
func (t *tally) append(b []byte) []byte {
	for _, n := range t.counts() {
		b = binary.AppendUvarint(b, *n)
	}
	return t.run.append(t.wait.append(b))
}

// read is the inverse of append.
func (t *tally) read(r *reader) {
	for _, n := range t.counts() {
		*n = r.uint()
	}
	t.wait.read(r)
	t.run.read(r)
}

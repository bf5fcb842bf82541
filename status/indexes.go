package status

import (
	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
)

// indexes find and count jobs without their records. A transaction gathers its changes
// in memory, and write stores them. They are the projector's.
type indexes struct {
	bits, times, meta boltfile.Bucket

	cache    *index.Cache
	latest   *Latest
	spans    map[uint32]index.Span
	counters map[string]*index.Counters // those that change
	failures failures
}

func newIndexes(tx *boltfile.Tx, cache *index.Cache, latest *Latest) *indexes {
	return &indexes{
		bits: tx.Bucket(bucketBits), times: tx.Bucket(bucketTimes), meta: tx.Bucket(bucketMeta),
		cache: cache, latest: latest,
		spans: make(map[uint32]index.Span), counters: make(map[string]*index.Counters),
		failures: newFailures(tx),
	}
}

// counter gives the type's counters for changing.
func (x *indexes) counter(name string) *index.Counters {
	c, ok := x.counters[name]
	if !ok {
		c = x.latest.counter(name)
		x.counters[name] = c
	}
	return c
}

func (x *indexes) mark(attr string, j *jobs.Job, on bool) error {
	return x.cache.Change(x.bits, attr, j.Key, on)
}

// update brings the indexes up to date with a change.
func (x *indexes) update(w *work) error {
	j := w.job
	if w.old == nil || w.late {
		if err := x.submitted(w); err != nil {
			return err
		}
	}
	if w.revised && w.old != nil {
		if err := x.revised(w.old, j); err != nil {
			return err
		}
	}
	if away := j.Place != jobs.InQueue; away != (w.old != nil && w.old.Place != jobs.InQueue) {
		if err := x.mark(index.Away, j, away); err != nil {
			return err
		}
	}
	if err := x.ordered(w.old, j); err != nil {
		return err
	}
	if err := x.fails(w.old, j); err != nil {
		return err
	}
	if w.old != nil && w.old.Status == j.Status {
		return nil
	}
	c := x.counter(j.ListedAs())
	if w.old != nil {
		c.Now[w.old.Status]--
		if err := x.mark(index.OfStatus(w.old.Status), j, false); err != nil {
			return err
		}
	}
	c.Now[j.Status]++
	if j.Status.Ended() {
		c.Ended[j.Status]++
	}
	return x.mark(index.OfStatus(j.Status), j, true)
}

// ordered marks the moment by which lists order the job.
func (x *indexes) ordered(old, j *jobs.Job) error {
	is := index.OfMoment(j)
	if old != nil {
		was := index.OfMoment(old)
		if was == is {
			return nil
		}
		if was != "" {
			if err := x.mark(was, j, false); err != nil {
				return err
			}
		}
	}
	if is == "" {
		return nil
	}
	return x.mark(is, j, true)
}

// fails brings the groups of failures up to date with a change.
func (x *indexes) fails(old, j *jobs.Job) error {
	wasFailed := old != nil && old.Status == jobs.Failed
	if !wasFailed && j.Status != jobs.Failed || wasFailed && j.Status == jobs.Failed && old.EndedAt == j.EndedAt && old.Error == j.Error {
		return nil
	}
	if wasFailed {
		if err := x.failed(old, false); err != nil {
			return err
		}
	}
	return x.failed(j, true)
}

// failed marks a failed job with its fingerprint, and counts it. Callbacks are left out
// of the groups: GET /deliveries shows them.
func (x *indexes) failed(j *jobs.Job, on bool) error {
	fingerprint := j.Fingerprint()
	if fingerprint == "" {
		return nil
	}
	if err := x.mark(index.OfFailure(fingerprint), j, on); err != nil || j.Type == jobs.CallbackType {
		return err
	}
	return x.failures.count(fingerprint, j, on)
}

// markTerms marks the schedule and the keys of a job.
func (x *indexes) markTerms(j *jobs.Job, on bool) error {
	if j.Terms == nil {
		return nil
	}
	for _, a := range [...]struct {
		of    func(string) string
		value string
	}{{index.OfSchedule, j.Terms.Schedule}, {index.OfConcurrencyKey, j.Terms.ConcurrencyKey}, {index.OfUniqueKey, j.Terms.UniqueKey}} {
		if a.value == "" {
			continue
		}
		if err := x.mark(a.of(a.value), j, on); err != nil {
			return err
		}
	}
	return nil
}

// submitted marks the attributes of a submission.
func (x *indexes) submitted(w *work) error {
	j := w.job
	span := x.spans[index.Chunk(j.Key)]
	span.Include(j.CreatedAt)
	x.spans[index.Chunk(j.Key)] = span
	if w.old == nil {
		if err := x.mark(index.OfType(j.ListedAs()), j, true); err != nil {
			return err
		}
		if j.Priority != jobs.DefaultPriority {
			if err := x.mark(index.OfPriority(j.Priority), j, true); err != nil {
				return err
			}
		}
	}
	for _, t := range j.Tags {
		if err := x.mark(index.OfTag(t), j, true); err != nil {
			return err
		}
	}
	return x.markTerms(j, true)
}

// revised marks the attributes of a submission that were changed by hand.
func (x *indexes) revised(old, j *jobs.Job) error {
	for _, of := range []struct {
		*jobs.Job
		on bool
	}{{old, false}, {j, true}} {
		if of.Priority != jobs.DefaultPriority {
			if err := x.mark(index.OfPriority(of.Priority), of.Job, of.on); err != nil {
				return err
			}
		}
		for _, t := range of.Tags {
			if err := x.mark(index.OfTag(t), of.Job, of.on); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove forgets an ended job. It still counts as one that ended.
func (x *indexes) remove(j *jobs.Job) error {
	if err := x.failed(j, false); err != nil {
		return err
	}
	if err := x.markTerms(j, false); err != nil {
		return err
	}
	attrs := []string{index.OfStatus(j.Status), index.OfType(j.ListedAs()), index.OfPriority(j.Priority), index.OfMoment(j)}
	for _, t := range j.Tags {
		attrs = append(attrs, index.OfTag(t))
	}
	for _, a := range attrs {
		if err := x.mark(a, j, false); err != nil {
			return err
		}
	}
	x.counter(j.ListedAs()).Now[j.Status]--
	return nil
}

// write stores what was gathered: spans, bitmaps and counters.
func (x *indexes) write() error {
	for chunk, span := range x.spans {
		if err := index.PutSpan(x.times, chunk, span); err != nil {
			return err
		}
	}
	if err := x.cache.Flush(x.bits); err != nil {
		return err
	}
	if err := x.failures.write(); err != nil {
		return err
	}
	for name, c := range x.counters {
		if err := x.meta.Put([]byte(prefixType+name), c.Encode()); err != nil {
			return err
		}
	}
	return nil
}

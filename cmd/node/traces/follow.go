package traces

import (
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"jobstream/jobs"
)

// news is a change of a job, or the notification of its end.
type news struct {
	before, after *jobs.Job
	at            time.Time // of the change
	from          time.Time // when its notification began; zero for a change
}

// maxNews bounds the news that wait. More are dropped: jobs do not wait for their spans.
const maxNews = 100_000

// Committed is a listener of commits. It only takes notes, since it is on the way of jobs.
func (t *Tracer) Committed(c *jobs.Commit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range c.Changes {
		was, is := c.Changes[i].Before, c.Changes[i].After
		if is != nil && (was == nil || len(was.History) != len(is.History) || was.Status != is.Status) {
			t.note(news{before: was, after: is, at: c.At.Std()})
		}
	}
	t.signal()
}

// Notified says that the notifications of these ends have been stored, since a moment.
func (t *Tracer) Notified(ended []*jobs.Job, since time.Time) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, j := range ended {
		t.note(news{after: j, at: now, from: since})
	}
	t.signal()
}

// note keeps news. t.mu is locked.
func (t *Tracer) note(n news) {
	if len(t.news) >= maxNews || t.closed {
		t.dropped++
		return
	}
	t.news = append(t.news, n)
}

// signal wakes run. t.mu is locked.
func (t *Tracer) signal() {
	if t.closed {
		return
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run exports the news until Close.
func (t *Tracer) run() {
	defer close(t.done)
	for {
		_, more := <-t.wake
		t.mu.Lock()
		list, dropped := t.news, t.dropped
		t.news, t.dropped = nil, 0
		t.mu.Unlock()
		if dropped > 0 && more {
			t.log.Warn("spans were lost: jobs end faster than spans are made", "changes", dropped)
		}
		for i := range list {
			t.follow(&list[i])
		}
		if !more {
			return
		}
	}
}

// follow exports the spans that have ended with the news.
func (t *Tracer) follow(n *news) {
	j := n.after
	if !n.from.IsZero() {
		status := j.Status.String()
		t.export(&span{
			place: t.notification(j), kind: trace.SpanKindProducer, name: "send job." + status, from: n.from, to: n.at,
			attributes: about(j, "send", "job."+status+"."+j.Type),
		})
		return
	}
	if n.before == nil && bare(j) {
		s := span{
			place: t.submission(j), kind: trace.SpanKindServer, name: "receive jobs." + j.ListedAs(), from: j.CreatedAt.Std(), to: n.at,
			attributes: about(j, "receive", "jobs."+j.ListedAs()),
		}
		if j.Status == jobs.Failed && j.Attempt == 0 {
			s.fail(j.Error)
		}
		t.export(&s)
	}
	for i := newEntries(n.before, j); i < len(j.History); i++ {
		switch kind := j.History[i].Kind; {
		case kind == jobs.KindStarted:
			t.waited(j, i)
		case kind.EndsAttempt():
			t.ran(j, i)
		}
	}
}

// newEntries is the index of the first entry of a history that the record before did not
// have. Entries of progress may be thinned out, so they do not count.
func newEntries(was, is *jobs.Job) int {
	if was == nil {
		return 0
	}
	for i := len(was.History) - 1; i >= 0; i-- {
		last := &was.History[i]
		if last.Kind == jobs.KindProgress {
			continue
		}
		for i := len(is.History) - 1; i >= 0; i-- {
			if h := &is.History[i]; h.Kind == last.Kind && h.At == last.At && h.Attempt == last.Attempt {
				return i + 1
			}
		}
		return len(is.History)
	}
	return 0
}

// waited exports the wait before the start that is entry i of the job's history.
func (t *Tracer) waited(j *jobs.Job, i int) {
	start := &j.History[i]
	from := min(j.DueBefore(i), start.At) // two clocks may be at odds
	t.export(&span{
		place: t.wait(j, start.At), kind: trace.SpanKindInternal, name: "wait " + j.ListedAs(), from: from.Std(), to: start.At.Std(),
		attributes: attempt(j, start.Attempt),
	})
}

// ran exports the attempt that has ended with entry i of the job's history, if it is about
// one.
func (t *Tracer) ran(j *jobs.Job, i int) {
	end, s := &j.History[i], i-1
	for s >= 0 && j.History[s].Kind == jobs.KindProgress {
		s--
	}
	if s < 0 || j.History[s].Kind != jobs.KindStarted {
		return // it was cancelled, or expired, while it waited
	}
	start := &j.History[s]
	made := span{
		place: t.attempt(j, start.At), kind: trace.SpanKindConsumer, name: "process " + j.ListedAs(),
		from: start.At.Std(), to: max(end.At, start.At).Std(),
		attributes: append(append(about(j, "process", "jobs."+j.ListedAs()), attempt(j, start.Attempt)...),
			attribute.String("jobstream.job.outcome", end.Kind.String()), attribute.String("jobstream.node", start.Node)),
	}
	switch end.Kind {
	case jobs.KindFailed, jobs.KindRetrying, jobs.KindLost:
		made.fail(end.Text)
		made.attributes = append(made.attributes, attribute.String("error.type", end.Kind.String()))
	}
	t.export(&made)
}

// fail gives a span the first line of an error.
func (s *span) fail(text string) {
	const longest = 300 // bytes
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if len(line) > longest {
		line = strings.ToValidUTF8(line[:longest], "") + "…"
	}
	if s.failure = line; line == "" {
		s.failure = "failed"
	}
}

// about are the attributes of a span that is about a message, by the conventions of
// OpenTelemetry.
func about(j *jobs.Job, operation, destination string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "jobstream"),
		attribute.String("messaging.operation.name", operation),
		attribute.String("messaging.operation.type", operation),
		attribute.String("messaging.destination.name", destination),
		attribute.String("messaging.message.id", j.ID.String()),
	}
}

// attempt are the attributes of a span that is about an attempt.
func attempt(j *jobs.Job, n int) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("jobstream.job.id", j.ID.String()),
		attribute.String("jobstream.job.type", j.ListedAs()),
		attribute.Int("jobstream.job.run", j.Run),
		attribute.Int("jobstream.job.attempt", n),
	}
}

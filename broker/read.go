package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
)

// Reader reads the streams. It has no state, so no lock: each call has consumers of its own.
type Reader struct {
	server  *Server
	streams *Streams
}

// Read follows JOBS and STATUS from behind the given positions and hands their messages to
// sink, until ctx ends. Then it returns ctx's cause. Messages of STATUS come after those
// that JOBS had when Read began. So no event is earlier than its job's submission, not
// even for a tracker that is older than the streams. Calls to the sink come one at a time
// per stream. A call that blocks stops its stream: twice Options.prefetch is the most that
// is read before the sink wants it.
func (r *Reader) Read(ctx context.Context, from jobs.Positions, sink jobs.Sink) error {
	var names interner // used by the feed of STATUS
	end, err := r.streams.lastJob(ctx)
	if err != nil {
		return err
	}
	caughtUp := make(chan struct{})
	if end <= from.Jobs {
		close(caughtUp)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	var errs [2]error
	group.Go(func() {
		parser := messageParser{seal: r.server.seal}
		last := from.Jobs
		f := feed{reader: r, stream: JobsStream, whole: true, last: from.Jobs, each: func(it *item) error {
			sink.Submitted(parser.message(it))
			if last < end && it.seq >= end {
				close(caughtUp)
			}
			last = max(last, it.seq)
			return nil
		}}
		if errs[0] = f.run(ctx); errs[0] != nil {
			cancel(errs[0])
		}
	})
	group.Go(func() {
		select {
		case <-caughtUp:
		case <-ctx.Done():
			errs[1] = context.Cause(ctx)
			return
		}
		f := feed{reader: r, stream: StatusStream, last: from.Status, each: func(it *item) error {
			events, err := decodeEvents(it.body, &names)
			if err != nil {
				r.server.log.Warn("a message in the event log makes no sense; it is skipped", "stream", StatusStream, "seq", it.seq, "error", err)
				events = nil
			}
			sink.Happened(it.seq, events)
			return nil
		}}
		errs[1] = f.run(ctx)
	})
	group.Wait()
	return errors.Join(errs[0], errs[1])
}

// Kept calls fn with the body of every message that NOTIFICATIONS has now, oldest first. fn
// may keep the body, and its error ends the reading.
func (r *Reader) Kept(ctx context.Context, fn func(body []byte) error) error {
	state, err := r.streams.state(ctx, NotificationsStream)
	if err != nil || state.Msgs == 0 {
		return err
	}
	errDone := errors.New("done")
	f := feed{reader: r, stream: NotificationsStream, last: state.First - 1, each: func(it *item) error {
		if it.body != nil {
			if err := fn(it.body); err != nil {
				return err
			}
		}
		if it.seq >= state.Last {
			return errDone
		}
		return nil
	}}
	f.beats = true // if the last messages are deleted meanwhile, only a heartbeat shows the end
	if err := f.run(ctx); !errors.Is(err, errDone) {
		return err
	}
	return nil
}

// messageParser makes messages of the items of JOBS.
type messageParser struct {
	seal     *seal
	m        jobs.Message
	subjects map[string]subjectInfo // the ones seen last
	names    interner               // of principals
}

// subjectInfo is a parsed subject of JOBS.
type subjectInfo struct {
	typ      string
	priority jobs.Priority
	problem  string
}

// message parses an item of JOBS. The result is valid until the next call.
func (p *messageParser) message(it *item) *jobs.Message {
	s, ok := p.subjects[it.subject]
	if !ok {
		if p.subjects == nil || len(p.subjects) >= maxInterned {
			p.subjects = make(map[string]subjectInfo)
		}
		s = parseSubject(it.subject)
		p.subjects[it.subject] = s
	}
	m := &p.m
	*m = jobs.Message{Seq: it.seq, At: jobs.ByClock(jobs.Time(it.at)), Type: s.typ, Priority: s.priority, Problem: s.problem, RetryCount: -1}
	if len(it.header) > 0 {
		sealed := p.seal.genuine(it.seq, it.header)
		wire.EachHeader(it.header, func(key, value []byte) { p.read(key, value, sealed) })
	}
	if m.ID == (jobs.ID{}) {
		m.ID = jobs.DerivedID(m.Seq, m.At)
	}
	if len(it.body) > 0 {
		m.Payload = it.body
	}
	return m
}

// clip quotes a value for a message, shortened.
func clip(s string) string { return strconv.Quote(clipText(s)) }

func clipText(s string) string {
	const longest = 80
	if len(s) > longest {
		s = s[:longest] + "…"
	}
	return s
}

// parseSubject reads type and priority out of jobs.<type>.<priority>.
func parseSubject(subject string) subjectInfo {
	name, level, found := strings.Cut(strings.TrimPrefix(subject, "jobs."), ".")
	s := subjectInfo{typ: name, priority: jobs.DefaultPriority}
	valid := jobs.ValidTypeName(name)
	if !valid {
		s.typ = safeType(name)
	}
	switch {
	case valid && found && len(level) == 1 && jobs.Priority(level[0]-'0').Valid():
		s.priority = jobs.Priority(level[0] - '0')
	case valid && !found: // the stream's transform lets none through, but the meaning is clear
	default:
		s.problem = fmt.Sprintf("subject %s is none for jobs; expected is jobs.<type> or jobs.<type>.<priority> with a type of letters, digits, _ and -, and a priority from 1 to 5", clip(subject))
	}
	return s
}

// safeType makes a valid name of anything.
func safeType(name string) string {
	safe := []byte(name[:min(len(name), jobs.MaxTypeName)])
	for i, c := range safe {
		if !jobs.ValidTypeName(string(rune(c))) {
			safe[i] = '_'
		}
	}
	if len(safe) == 0 {
		return "unknown"
	}
	return string(safe)
}

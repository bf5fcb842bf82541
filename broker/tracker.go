package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"jobstream/jobs/replica"
)

// TrackerLog is stream TRACKER, which the trackers of a cluster follow. The lock lets one
// Read at a time through, and guards the fields below it.
type TrackerLog struct {
	server *Server
	bell   chan struct{}
	rung   atomic.Uint64 // the highest sequence that the bell has rung for

	reading sync.Mutex
	replies string // subjects for messages begin with it and end with a request's number
	came    chan *nats.Msg
	asked   uint64 // number of the last request
}

var _ replica.Log = (*TrackerLog)(nil)

const (
	trackerSubjects = "tracker."
	// bellSubject gets the headers of each message that TRACKER has stored.
	bellSubject = "jobstream.tracker"

	readBytes   = 4 << 20              // that one read asks for; less than a client may be behind
	readMessage = 4096                 // messages that may wait for their reader
	readWait    = time.Second          // for the next message of a read
	ringAgain   = 2 * time.Millisecond // if the own replica is behind the bell
)

// trackerSubject is the subject of TRACKER in the cluster of this name.
func trackerSubject(cluster string) string { return trackerSubjects + cluster }

func newTrackerLog(s *Server) *TrackerLog {
	return &TrackerLog{
		server: s, bell: make(chan struct{}, 1),
		replies: replies + ".tracker." + nuid.Next() + ".", came: make(chan *nats.Msg, readMessage),
	}
}

// open begins to listen.
func (l *TrackerLog) open() error {
	if _, err := l.server.nc.ChanSubscribe(l.replies+"*", l.came); err != nil {
		return err
	}
	_, err := l.server.nc.Subscribe(bellSubject, func(m *nats.Msg) {
		seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil || m.Header.Get(jetstream.StreamHeader) != TrackerStream {
			return // it is not from the stream
		}
		for old := l.rung.Load(); seq > old && !l.rung.CompareAndSwap(old, seq); old = l.rung.Load() {
		}
		signal(l.bell)
	})
	return err
}

// Append adds a message behind the one with the sequence after; see [replica.Log].
func (l *TrackerLog) Append(ctx context.Context, after uint64, entry []byte) (uint64, error) {
	ack, err := l.server.js.Publish(ctx, trackerSubject(l.server.o.Cluster.Name), entry,
		jetstream.WithExpectLastSequence(after), jetstream.WithRetryAttempts(0))
	var refused *jetstream.APIError
	switch {
	case err == nil:
		return ack.Sequence, nil
	case errors.As(err, &refused) && refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence:
		return 0, fmt.Errorf("%w: %s", replica.ErrRefused, refused.Description)
	}
	return 0, fmt.Errorf("cannot append to stream %s: %w", TrackerStream, err)
}

// Last is the stream's end, as its leader knows it. A direct get would have the answer of
// any replica.
func (l *TrackerLog) Last(ctx context.Context) (replica.Message, error) {
	m, found, err := l.ask(ctx, fmt.Appendf(nil, `{"last_by_subj":%q}`, trackerSubjects+">"))
	if err != nil || found {
		return m, err
	}
	s, err := l.server.js.Stream(ctx, TrackerStream)
	if err != nil {
		return replica.Message{}, fmt.Errorf("cannot look up stream %s: %w", TrackerStream, err)
	}
	return replica.Message{Seq: s.CachedInfo().State.LastSeq}, nil
}

// Next is the first message from the sequence from on, as the stream's leader knows it.
func (l *TrackerLog) Next(ctx context.Context, from uint64) (replica.Message, error) {
	m, _, err := l.ask(ctx, fmt.Appendf(nil, `{"seq":%d,"next_by_subj":%q}`, max(from, 1), trackerSubjects+">"))
	return m, err
}

// ask asks the stream's leader for a message, which may not be there.
func (l *TrackerLog) ask(ctx context.Context, request []byte) (m replica.Message, found bool, err error) {
	answer, err := l.server.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+TrackerStream, request)
	if err != nil {
		return m, false, fmt.Errorf("cannot read a message of stream %s: %w", TrackerStream, err)
	}
	var got struct {
		Message *struct {
			Seq  uint64 `json:"seq"`
			Data []byte `json:"data"`
		} `json:"message"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &got); err != nil {
		return m, false, fmt.Errorf("cannot read a message of stream %s: %w", TrackerStream, err)
	}
	switch {
	case got.Message != nil:
		return replica.Message{Seq: got.Message.Seq, Body: got.Message.Data}, true, nil
	case got.Error == nil:
		return m, false, fmt.Errorf("the answer about a message of stream %s is empty", TrackerStream)
	case got.Error.ErrorCode != jetstream.JSErrCodeMessageNotFound:
		return m, false, fmt.Errorf("cannot read a message of stream %s: %w", TrackerStream, got.Error)
	}
	return m, false, nil
}

// Read returns messages from the sequence from on, as some replica has them: this server's
// own, or another one that it reaches. A replica may be behind, and has no gaps. A read needs
// no consumer, so it works while the cluster has no leader.
func (l *TrackerLog) Read(ctx context.Context, from uint64, most int) ([]replica.Message, error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	from = max(from, 1)
	l.asked++
	reply := l.replies + strconv.FormatUint(l.asked, 10)
	request := fmt.Appendf(nil, `{"seq":%d,"batch":%d,"max_bytes":%d}`, from, max(most, 1), readBytes)
	if err := l.server.nc.PublishRequest("$JS.API.DIRECT.GET."+TrackerStream, reply, request); err != nil {
		return nil, fmt.Errorf("cannot read stream %s: %w", TrackerStream, err)
	}
	got, err := l.collect(ctx, reply)
	l.ringIfBehind(from, got)
	if len(got) > 0 {
		return got, nil // the next read has the error, if it lasts
	}
	return nil, err
}

// ringIfBehind rings again soon if the bell has rung for a message that this server's
// replica does not have yet.
func (l *TrackerLog) ringIfBehind(from uint64, got []replica.Message) {
	last := from - 1
	if len(got) > 0 {
		last = got[len(got)-1].Seq
	}
	if l.rung.Load() > last {
		time.AfterFunc(ringAgain, func() { signal(l.bell) })
	}
}

// collect takes the answers to a request, until one says that there are no more.
func (l *TrackerLog) collect(ctx context.Context, reply string) (got []replica.Message, err error) {
	late := time.NewTimer(readWait)
	defer late.Stop()
	for {
		var m *nats.Msg
		select {
		case m = <-l.came:
		case <-ctx.Done():
			return got, context.Cause(ctx)
		case <-late.C:
			return got, fmt.Errorf("stream %s does not answer", TrackerStream)
		}
		if m.Subject != reply {
			continue // the rest of an earlier one
		}
		late.Reset(readWait)
		if status := m.Header.Get("Status"); status != "" {
			return got, readError(status, m.Header.Get("Description"))
		}
		seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil {
			return got, fmt.Errorf("a message of stream %s has no sequence: %w", TrackerStream, err)
		}
		got = append(got, replica.Message{Seq: seq, Body: m.Data})
	}
}

// readError is nil for the two statuses with which a read ends as a rule: there is nothing,
// and there is nothing more.
func readError(status, text string) error {
	switch status {
	case "404", "204":
		return nil
	case "503":
		return fmt.Errorf("no replica of stream %s answers", TrackerStream)
	}
	return fmt.Errorf("stream %s cannot be read: %s (%s)", TrackerStream, text, status)
}

// Bell has a token when there may be something new.
func (l *TrackerLog) Bell() <-chan struct{} { return l.bell }

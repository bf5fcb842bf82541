package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker/internal/wire"
)

// This file is how a feed reads in a cluster: in requests for the next messages, which this
// server's own copy of the stream answers, or another one while it has none. A consumer would
// live on one member, chosen by the cluster. If that one is frozen, cut off or behind, nothing
// comes, and nothing says so.

const (
	copyLook  = 50 * time.Millisecond // a look without a ring
	copyAgain = 2 * time.Millisecond  // the copy is behind the ring
	copyWait  = time.Second           // for the next answer to a request
)

// bells are the subjects on which a stream of a cluster has the headers of what it has
// stored. The stream's leader rings; copies may be a moment behind.
const bells = "jobstream.bell."

func bellOf(stream string) string { return bells + strings.ToLower(stream) + ".>" }

// bell makes the leader of a stream ring; nil without a cluster.
func (o *Options) bell(stream string) *jetstream.RePublish {
	if o.Cluster == nil {
		return nil
	}
	return &jetstream.RePublish{Destination: bellOf(stream), HeadersOnly: true}
}

// copyReader reads for a feed. Its goroutine is the feed's; answers come on that of the
// connection.
type copyReader struct {
	f       *feed
	start   []byte        // of the headers that the server adds
	replies string        // answers come here, followed by the number of their request
	bell    chan struct{} // there may be more
	answer  chan struct{} // something has come
	ended   chan struct{} // the sink has all of a request

	rung atomic.Uint64 // highest sequence that the bell has rung for

	mu       sync.Mutex // guards what is below
	asked    uint64     // number of the present request; answers to others are late
	more     bool       // it has brought messages
	complete bool       // all of them have come
}

// keepAsking reads the stream until ctx ends.
func (f *feed) keepAsking(ctx context.Context) error {
	r := &copyReader{
		f: f, start: fmt.Appendf(nil, "\r\n%s: %s\r\n%s: ", jetstream.StreamHeader, f.stream, jetstream.SubjectHeader), replies: newReply() + ".",
		bell: make(chan struct{}, 1), answer: make(chan struct{}, 1), ended: make(chan struct{}, 1),
	}
	if _, err := f.conn.Subscribe(r.replies+"*", r.receive); err != nil {
		return err
	}
	if _, err := f.conn.Subscribe(bellOf(f.stream), r.rings); err != nil {
		return err
	}
	if err := f.conn.Flush(ctx); err != nil {
		return err
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		switch more, err := r.ask(ctx); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case more:
			continue
		}
		look.Reset(r.nextLook())
		select {
		case <-r.bell:
		case <-look.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// begin goes back to the stream's end, if that is before the last message that came.
func (r *copyReader) begin(ctx context.Context) error {
	for logged := false; ; logged = true {
		state, err := r.f.reader.streams.state(ctx, r.f.stream)
		if err == nil {
			r.f.mu.Lock()
			r.f.last = min(r.f.last, state.Last)
			r.f.mu.Unlock()
			return nil
		}
		if !logged && ctx.Err() == nil {
			r.f.reader.server.log.Warn("cannot read a stream yet; trying again", "stream", r.f.stream, "error", err)
		}
		if err := pause(ctx, copyLook); err != nil {
			return err
		}
	}
}

// nextLook is when to look without a ring.
func (r *copyReader) nextLook() time.Duration {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if r.rung.Load() > r.f.last {
		return copyAgain
	}
	return copyLook
}

// ask asks for the next messages, and waits until the sink has them. more says that there
// were some.
func (r *copyReader) ask(ctx context.Context) (more bool, err error) {
	r.f.mu.Lock()
	from := r.f.last + 1
	r.f.mu.Unlock()
	r.mu.Lock()
	r.asked++
	r.more, r.complete = false, false
	number := r.asked
	r.mu.Unlock()
	body := fmt.Appendf(nil, `{"seq":%d,"batch":%d,"max_bytes":%d}`, from, math.MaxInt32, r.f.most)
	if err := wire.Publish(r.f.conn, "$JS.API.DIRECT.GET."+r.f.stream, r.replies+strconv.FormatUint(number, 10), nil, body); err != nil {
		return false, err
	}
	late := time.NewTimer(copyWait)
	defer late.Stop()
	for {
		select {
		case <-r.ended:
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.more, nil
		case <-r.answer:
			late.Reset(copyWait)
		case <-late.C:
			r.mu.Lock()
			complete := r.complete
			r.mu.Unlock()
			if !complete {
				return false, nil // the request or an answer was lost with a member; what came counts
			}
			late.Reset(copyWait) // the sink takes its time
		case <-ctx.Done():
			return false, nil
		}
	}
}

// rings notes how far the stream is.
func (r *copyReader) rings(m *wire.Msg) {
	if seq := wire.ParseUint(m.Get(jetstream.SequenceHeader)); seq > r.rung.Load() {
		r.rung.Store(seq)
	}
	signal(r.bell)
}

// receive gets a message, or the end of a request.
func (r *copyReader) receive(m *wire.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	number := r.asked
	if lastNumber(m.Subject) != number {
		return
	}
	signal(r.answer)
	if m.Status() != 0 { // there is nothing, or nothing more, or nobody answers
		r.end(number)
		return
	}
	it, err := r.item(m)
	if err != nil {
		r.f.reader.server.log.Error("a message cannot be read; trying again", "stream", r.f.stream, "error", err)
		r.end(number)
		return
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if it.seq > r.f.last {
		r.more, r.f.last = true, it.seq
		r.f.push(it)
	}
}

// end ignores what still comes for a request, and goes on when the sink has everything. The
// caller has locked r.mu.
func (r *copyReader) end(number uint64) {
	r.asked++
	r.complete = true
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.f.push(item{ended: func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.asked == number+1 {
			signal(r.ended)
		}
	}})
}

// item copies a message without the headers that the server has added at the end of its own.
func (r *copyReader) item(m *wire.Msg) (it item, err error) {
	at := bytes.LastIndex(m.Header, r.start)
	if at < 0 {
		return it, errors.New("it does not say where it stands")
	}
	var when []byte
	wire.EachHeader(m.Header[at:], func(key, value []byte) {
		switch string(key) {
		case jetstream.SubjectHeader:
			it.subject = r.f.names.get(value)
		case jetstream.SequenceHeader:
			it.seq = wire.ParseUint(value)
		case jetstream.TimeStampHeaer:
			when = value
		}
	})
	stored, err := time.Parse(time.RFC3339Nano, string(when))
	if err != nil || it.seq == 0 {
		return it, fmt.Errorf("its sequence is %d and its time is %q", it.seq, when)
	}
	it.at, it.body = stored.UnixNano(), bytes.Clone(m.Body)
	if own := m.Header[:at]; r.f.whole && bytes.IndexByte(own, '\n') >= 0 {
		it.header = append(append(make([]byte, 0, len(own)+4), own...), "\r\n\r\n"...)
	}
	return it, nil
}

package broker

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nuid"

	"jobstream/broker/internal/wire"
)

// item is a message, or something else in its place, on the way to the sink.
type item struct {
	seq          uint64
	at           int64  // when it was stored, Unix nanoseconds
	subject      string // only if the feed wants the whole message; likewise the header
	header, body []byte
	ended        func() // if set, there is no message: a request has ended, and this asks again
}

// feed follows one stream through a consumer of its own, with one pull request at a time.
// The request is bounded by bytes, not by messages. A push consumer with flow control would
// let up to 32 MiB be under way, more than the server lets any client be behind. The next
// request goes out when all messages of this one have been handled.
//
// The consumer's delivery numbers have no gaps. If one shows, or heartbeats stay out, a new
// consumer goes on behind the last message that came.
type feed struct {
	reader *Reader
	stream string
	whole  bool              // items have subject and header, too
	each   func(*item) error // called for every item; an error ends the feed
	beats  bool              // each gets heartbeats, too, as items without a body

	most int // bytes that may be under way
	conn *wire.Conn

	mu     sync.Mutex // guards the fields below, and those of consumers
	last   uint64     // sequence of the last message that came
	names  interner
	queue  []item
	filled chan struct{} // there is something in the queue
}

// consumer is one that a feed reads through, until it breaks.
type consumer struct {
	name    string // once the server may have it
	replies string // where its messages go
	sid     int    // the subscription to that
	broken  chan struct{}

	expect uint64    // its next delivery; 0 = ignore what comes
	left   int       // bytes that its request can still bring; 0 = that has ended
	came   time.Time // when the last frame came
}

func (f *feed) run(ctx context.Context) error {
	conn, err := f.reader.server.connect(wire.Options{Name: "jobstream reader of " + f.stream})
	if err != nil {
		return fmt.Errorf("cannot read stream %s: %w", f.stream, err)
	}
	defer conn.Close()
	f.conn = conn
	f.most = f.reader.server.o.prefetch()
	f.filled = make(chan struct{}, 1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	group.Go(func() { cancel(f.drain(ctx)) })
	if f.reader.server.clustered() && !f.beats {
		if err := f.keepAsking(ctx); err != nil {
			cancel(fmt.Errorf("cannot read stream %s: %w", f.stream, err))
		}
	} else {
		f.keepReading(ctx)
	}
	group.Wait()
	return context.Cause(ctx)
}

// keepReading makes a consumer, and another one whenever that breaks.
func (f *feed) keepReading(ctx context.Context) {
	tick := time.NewTicker(f.reader.server.o.heartbeat())
	defer tick.Stop()
	for ctx.Err() == nil {
		c := &consumer{replies: newReply(), sid: -1, broken: make(chan struct{}, 1)}
		if err := f.consume(ctx, c); err == nil {
			f.awaitBreak(ctx, c, tick.C)
		} else if ctx.Err() == nil {
			f.reader.server.log.Error("cannot read a stream; trying again", "stream", f.stream, "error", err)
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
		f.remove(c) //nolint:contextcheck // it must go even when ctx ends
	}
}

// awaitBreak returns when the consumer is of no use any more.
func (f *feed) awaitBreak(ctx context.Context, c *consumer, tick <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.broken:
			f.reader.server.log.Warn("lost track of a stream; reading on with a new consumer", "stream", f.stream)
			return
		case <-tick:
			if f.silent(c) {
				f.reader.server.log.Warn("a stream's consumer is silent; reading on with a new one", "stream", f.stream)
				return
			}
		}
	}
}

// silent says whether heartbeats stay out. None is expected between two requests.
func (f *feed) silent(c *consumer) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return c.left > 0 && time.Since(c.came) > 3*f.reader.server.o.heartbeat()
}

// consume makes a consumer behind the last message that came. If the stream ends before
// that message, it begins at the stream's end.
func (f *feed) consume(ctx context.Context, c *consumer) error {
	state, err := f.reader.streams.state(ctx, f.stream)
	if err != nil {
		return err
	}
	if c.sid, err = f.conn.Subscribe(c.replies, func(m *wire.Msg) { f.receive(c, m) }); err != nil {
		return err
	}
	if err := f.conn.Flush(ctx); err != nil { // the server has to know the subscription before a request
		return err
	}
	f.mu.Lock()
	f.last = min(f.last, state.Last)
	start := f.last + 1
	f.mu.Unlock()
	c.name = "reader-" + nuid.Next()
	making, cancel := f.reader.server.patience(ctx)
	defer cancel()
	if _, err = f.reader.server.js.CreateOrUpdateConsumer(making, f.stream, readerConfig(c.name, start)); err != nil {
		return err
	}
	if err := f.reader.server.awaitInterest(ctx, pullSubject(f.stream, c.name)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c.expect = 1
	f.ended(c) // the first request waits for the items of the consumer before
	return nil
}

// ask sends a consumer's next pull request.
func (f *feed) ask(c *consumer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.expect == 0 {
		return
	}
	c.left = f.most
	c.came = time.Now()
	body := fmt.Appendf(nil, `{"batch":%d,"max_bytes":%d,"expires":%d,"idle_heartbeat":%d}`, math.MaxInt32, c.left, pullExpiry, f.reader.server.o.heartbeat())
	if err := wire.Publish(f.conn, pullSubject(f.stream, c.name), c.replies, nil, body); err != nil {
		c.fail()
	}
}

// remove deletes a consumer, as far as it was made.
func (f *feed) remove(c *consumer) {
	f.mu.Lock()
	c.expect = 0 // from now on its requests are refused
	f.mu.Unlock()
	if c.sid >= 0 {
		_ = f.conn.Unsubscribe(c.sid) // it fails only if the connection is closed
	}
	if c.name == "" {
		return
	}
	ctx, cancel := f.reader.server.patience(context.Background())
	defer cancel()
	// If that fails, the server removes the consumer when nobody listens.
	_ = f.reader.server.js.DeleteConsumer(ctx, f.stream, c.name)
}

// receive runs on the connection's goroutine.
func (f *feed) receive(c *consumer, m *wire.Msg) {
	if refusal := f.accept(c, m); refusal != "" {
		f.reader.server.log.Warn("a reader's request was refused", "stream", f.stream, "status", refusal)
	}
}

// accept is receive without logging, since it locks. refusal is the server's text if it has
// refused a request.
func (f *feed) accept(c *consumer, m *wire.Msg) (refusal string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.expect == 0 {
		return ""
	}
	c.came = time.Now()
	if code := m.Status(); code != 0 {
		return f.control(c, code, m)
	}
	f.message(c, m)
	return ""
}

// message queues a delivery. The caller has locked.
func (f *feed) message(c *consumer, m *wire.Msg) {
	a, ok := wire.ParseAck(m.Reply)
	if !ok || a.Delivery != c.expect {
		c.fail()
		return
	}
	c.expect++
	f.last = a.Seq
	f.push(f.item(m, a))
	if c.left -= m.Size(); c.left <= 0 {
		f.ended(c) // the server sends nothing at the end of a request that is used up in full
	}
}

// control handles heartbeats and the request's end, and returns the text of all other
// statuses. The caller has locked.
func (f *feed) control(c *consumer, code int, m *wire.Msg) (refusal string) {
	switch text := m.StatusText(); {
	case code == 100:
		if delivered := m.Get("Nats-Last-Consumer"); wire.ParseUint(delivered)+1 != c.expect {
			c.fail()
		} else if f.beats {
			f.push(item{seq: wire.ParseUint(m.Get("Nats-Last-Stream"))})
		}
	case code == 408, code == 409 && strings.Contains(text, "MaxBytes"):
		if c.left > 0 {
			f.ended(c)
		}
	default: // the consumer is gone, or the server is in trouble
		c.fail()
		return text
	}
	return ""
}

// ended queues the next request behind all items that have come. So the server does not
// send faster than the sink works.
func (f *feed) ended(c *consumer) {
	c.left = 0
	f.push(item{ended: func() { f.ask(c) }})
}

// fail ignores the consumer from now on, and has it replaced.
func (c *consumer) fail() {
	c.expect = 0
	signal(c.broken)
}

// item copies a message, which is valid only until its handler returns.
func (f *feed) item(m *wire.Msg, a wire.Ack) item {
	it := item{seq: a.Seq, at: a.At}
	if !f.whole {
		it.body = bytes.Clone(m.Body)
		return it
	}
	both := append(append(make([]byte, 0, len(m.Header)+len(m.Body)), m.Header...), m.Body...)
	it.subject, it.header, it.body = f.names.get(m.Subject), both[:len(m.Header):len(m.Header)], both[len(m.Header):]
	return it
}

// signal puts a token into a channel that has room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (f *feed) push(it item) {
	f.queue = append(f.queue, it)
	if len(f.queue) == 1 {
		signal(f.filled)
	}
}

// drain hands the items of the queue to each, until ctx ends.
func (f *feed) drain(ctx context.Context) error {
	var batch []item
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.filled:
		}
		f.mu.Lock()
		batch, f.queue = f.queue, batch[:0]
		f.mu.Unlock()
		for i := range batch {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := f.handle(&batch[i]); err != nil {
				return err
			}
		}
		clear(batch)
	}
}

func (f *feed) handle(it *item) error {
	if it.ended != nil {
		it.ended()
		return nil
	}
	return f.each(it)
}

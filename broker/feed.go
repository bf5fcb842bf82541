package broker

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nuid"

	"jobstream/broker/internal/wire"
)

// item is one thing between those who bring messages and the one who calls the sink.
type item struct {
	seq          uint64
	at           int64  // when it was stored, Unix nanoseconds
	subject      string // this and the header only if the feed wants the whole message
	header, body []byte
	ended        int // a pull request of this round of the feed has ended, and nothing else; 0 = none
}

// feed follows one stream through a consumer of its own, with one pull request at a
// time, bounded by bytes and as good as unbounded in messages: a push consumer with
// flow control lets up to 32 MiB be under way, which is more than the server lets
// any client be behind. The request is made again when what it brought has been taken.
// The consumer's delivery numbers have no gaps; if one shows, or heartbeats stay out,
// a new consumer goes on behind the last message that came.
type feed struct {
	server  *Server
	streams *Streams
	stream  string
	whole   bool // items have subject and header, too
	take    func(*item) error
	beats   bool // heartbeats are handed to take as items without a body

	most   int // bytes that may be under way
	conn   *wire.Conn
	inbox  string
	broken chan struct{} // the consumer must be replaced

	mu     sync.Mutex
	heard  time.Time // when the last frame came
	last   uint64    // sequence of the last message that came
	round  int       // number of the consumer, from 1
	sid    int       // its subscription; -1 if there is none
	pull   string    // where it takes requests
	left   int       // bytes that the request can still bring; 0 = it has ended
	expect uint64    // its next delivery; 0 = ignore what comes
	names  interner
	queue  []item
	filled chan struct{} // there is something in the queue
}

func (f *feed) run(ctx context.Context) error {
	conn, err := f.server.connect(wire.Options{Name: "jobstream reader of " + f.stream})
	if err != nil {
		return fmt.Errorf("cannot read stream %s: %w", f.stream, err)
	}
	defer conn.Close()
	f.conn = conn
	f.most = f.server.o.readAhead()
	f.broken = make(chan struct{}, 1)
	f.filled = make(chan struct{}, 1)
	f.inbox, f.sid = "_INBOX."+nuid.Next(), -1
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	group.Go(func() { cancel(f.drain(ctx)) })
	f.keepReading(ctx)
	group.Wait()
	return context.Cause(ctx)
}

// keepReading makes a consumer, and another one whenever that breaks.
func (f *feed) keepReading(ctx context.Context) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	name := ""
	defer func() { f.remove(name) }() //nolint:contextcheck // ctx has ended by then
	for ctx.Err() == nil {
		f.remove(name) //nolint:contextcheck // it must go even when ctx ends
		var err error
		if name, err = f.consume(ctx); err != nil {
			if ctx.Err() == nil {
				f.server.log.Error("cannot read a stream; trying again", "stream", f.stream, "error", err)
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
			continue
		}
		f.awaitBreak(ctx, tick.C)
	}
}

// awaitBreak returns when the consumer is of no use any more.
func (f *feed) awaitBreak(ctx context.Context, tick <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.broken:
			f.server.log.Warn("lost track of a stream; reading on with a new consumer", "stream", f.stream)
			return
		case <-tick:
			if f.silent() {
				f.server.log.Warn("a stream's consumer is silent; reading on with a new one", "stream", f.stream)
				return
			}
		}
	}
}

// silent says whether heartbeats stay out. None can be expected while the request has
// ended and what it brought waits to be taken.
func (f *feed) silent() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left > 0 && time.Since(f.heard) > 3*heartbeat
}

// consume makes a consumer behind the last message that came, or at the
// stream's end if the stream has gone back behind that.
func (f *feed) consume(ctx context.Context) (name string, err error) {
	state, err := f.streams.state(ctx, f.stream)
	if err != nil {
		return "", err
	}
	start, round := f.nextRound(state.Last)
	if f.sid >= 0 {
		if err := f.conn.Unsubscribe(f.sid); err != nil {
			return "", err
		}
	}
	f.sid, err = f.conn.Subscribe(f.replies(round), func(m *wire.Msg) { f.receive(round, m) })
	if err != nil {
		return "", err
	}
	if err := f.conn.Flush(ctx); err != nil { // else the request would find nobody listening
		return "", err
	}
	signalled(f.broken) // said of the consumer that is gone
	name = "reader-" + nuid.Next()
	if _, err = f.server.js.CreateOrUpdateConsumer(ctx, f.stream, readerConfig(name, start)); err != nil {
		return name, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pull = pullSubject(f.stream, name)
	f.ended() // so nothing is asked for before what came earlier has been taken
	return name, nil
}

// replies is where the messages of a round go.
func (f *feed) replies(round int) string { return f.inbox + "." + strconv.Itoa(round) }

func (f *feed) nextRound(end uint64) (start uint64, round int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.round++
	f.expect = 1
	f.left = 0
	f.last = min(f.last, end)
	return f.last + 1, f.round
}

// ask makes the next request of a round.
func (f *feed) ask(round int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.expect == 0 || round != f.round {
		return
	}
	f.left = f.most
	f.heard = time.Now()
	body := fmt.Appendf(nil, `{"batch":%d,"max_bytes":%d,"expires":%d,"idle_heartbeat":%d}`, math.MaxInt32, f.left, pullExpiry, heartbeat)
	if err := wire.Publish(f.conn, f.pull, f.replies(round), nil, body); err != nil {
		f.fail()
	}
}

func (f *feed) remove(name string) {
	if name == "" {
		return
	}
	f.mu.Lock()
	f.expect = 0 // its requests are refused now
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), ackTimeout)
	defer cancel()
	// if that fails the server removes it when it finds nobody listening
	_ = f.server.js.DeleteConsumer(ctx, f.stream, name)
}

// receive runs on the connection's goroutine.
func (f *feed) receive(round int, m *wire.Msg) {
	if refusal := f.took(round, m); refusal != "" {
		f.server.log.Warn("a reader's request was refused", "stream", f.stream, "status", refusal)
	}
}

// took is receive, and returns the server's words if it has refused a request. It does
// not log: f.mu is held.
func (f *feed) took(round int, m *wire.Msg) (refusal string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.expect == 0 || round != f.round {
		return ""
	}
	f.heard = time.Now()
	if code := m.Status(); code != 0 {
		return f.control(code, m)
	}
	f.message(m)
	return ""
}

// message takes a delivery. f.mu is held.
func (f *feed) message(m *wire.Msg) {
	a, ok := wire.ParseAck(m.Reply)
	if !ok || a.Delivery != f.expect {
		f.fail()
		return
	}
	f.expect++
	f.last = a.Seq
	f.push(f.item(m, a))
	if f.left -= m.Size(); f.left <= 0 {
		f.ended() // the server says nothing if a request is used up to its last byte
	}
}

// control takes heartbeats and the word of the request's end; what else the server has
// to say it returns. f.mu is held.
func (f *feed) control(code int, m *wire.Msg) (refusal string) {
	switch text := m.StatusText(); {
	case code == 100:
		if delivered := m.Get("Nats-Last-Consumer"); wire.ParseUint(delivered)+1 != f.expect {
			f.fail()
		} else if f.beats {
			f.push(item{seq: wire.ParseUint(m.Get("Nats-Last-Stream"))})
		}
	case code == 408, code == 409 && strings.Contains(text, "MaxBytes"):
		if f.left > 0 {
			f.ended()
		}
	default: // its consumer is gone, or the server is in trouble
		f.fail()
		return text
	}
	return ""
}

// ended has the next request made when all that came before has been taken. That
// is what holds the server back.
func (f *feed) ended() {
	f.left = 0
	f.push(item{ended: f.round})
}

func (f *feed) fail() {
	f.expect = 0
	signal(f.broken)
}

// item copies what a frame brings.
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

// signal leaves a token in a channel that has room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// signalled takes the token out, and says whether there was one.
func signalled(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (f *feed) push(it item) {
	f.queue = append(f.queue, it)
	if len(f.queue) == 1 {
		signal(f.filled)
	}
}

// drain hands the queue to take, all that is there at a time.
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
	if it.ended > 0 {
		f.ask(it.ended)
		return nil
	}
	return f.take(it)
}

package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
)

// Lanes hands out JOBS lane by lane, as pulled. The lock calls guards the receiver and the
// subscription, and calls to the receiver come under it, one at a time. The lock of pulls
// may be locked under calls, never the other way round: a receiver may pull. The lock
// making is locked first. It guards which lanes have a consumer.
type Lanes struct {
	server *Server
	conn   *wire.Conn
	pulls  pulls
	making sync.Mutex

	calls    sync.Mutex
	receiver jobs.Receiver // nil: closed
	sid      int           // its subscription

	later    sync.WaitGroup  // makes lanes in a cluster
	open     context.Context //nolint:containedctx // of that; it ends when the lanes are closed
	endLater context.CancelFunc
}

// Open makes a durable consumer for every lane, and from now on hands deliveries to r.
// Lanes of an earlier run are made anew, so they deliver everything in the stream. A
// consumer remembers less over a restart than the receiver knows anyway: it keeps delays
// in whole seconds, and a delivery given back without one would come when its lease ends.
// In a cluster it does not wait for that; see [Lanes.makeLater].
func (l *Lanes) Open(ctx context.Context, lanes []jobs.Lane, r jobs.Receiver) error {
	if err := l.receive(r); err != nil {
		return err
	}
	if err := l.OpenMore(ctx, lanes); err != nil {
		return err
	}
	return l.conn.Flush(ctx)
}

// receive subscribes to the answers of all pull requests to come.
func (l *Lanes) receive(r jobs.Receiver) (err error) {
	l.calls.Lock()
	defer l.calls.Unlock()
	if l.receiver != nil {
		return errors.New("the lanes are open already")
	}
	if l.sid, err = l.conn.Subscribe(l.pulls.begin(l.server.o.pullExpiry())+".*.*", l.delivered); err != nil {
		return err
	}
	l.receiver = r
	l.open, l.endLater = context.WithCancel(context.Background())
	return nil
}

// OpenMore is Open for lanes beside those that are open: all of them or, with an error,
// none.
func (l *Lanes) OpenMore(ctx context.Context, lanes []jobs.Lane) error {
	for _, lane := range lanes {
		if !jobs.ValidTypeName(lane.Type) || !lane.Priority.Valid() {
			return fmt.Errorf("%s is not a lane", lane)
		}
	}
	if l.server.clustered() {
		return l.openLater(lanes) //nolint:contextcheck // it goes on until Close
	}
	l.making.Lock()
	defer l.making.Unlock()
	if made, err := l.makeLanes(ctx, lanes); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), ackTimeout)
		defer cancel()
		return errors.Join(err, l.deleteLanes(undo, lanes[:made]))
	}
	l.pulls.open(lanes, false)
	return nil
}

// CloseSome ends the deliveries of these lanes. Those on their way come again when the
// lanes are opened. After an error a consumer is left over, which does nothing.
func (l *Lanes) CloseSome(ctx context.Context, lanes []jobs.Lane) error {
	l.making.Lock()
	defer l.making.Unlock()
	l.pulls.close(lanes)
	return l.deleteLanes(ctx, lanes)
}

func (l *Lanes) deleteLanes(ctx context.Context, lanes []jobs.Lane) error {
	for _, lane := range lanes {
		if err := l.deleteLane(ctx, lane); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lanes) deleteLane(ctx context.Context, lane jobs.Lane) error {
	err := l.server.js.DeleteConsumer(ctx, JobsStream, lane.String())
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("cannot delete lane %s: %w", lane, err)
	}
	return nil
}

// makeLanes makes lanes anew. After an error, the first ones may be there.
func (l *Lanes) makeLanes(ctx context.Context, lanes []jobs.Lane) (made int, err error) {
	for i, lane := range lanes {
		if err := l.makeLane(ctx, lane); err != nil {
			return i + 1, err
		}
	}
	return len(lanes), nil
}

func (l *Lanes) makeLane(ctx context.Context, lane jobs.Lane) error {
	if err := l.deleteLane(ctx, lane); err != nil {
		return err
	}
	if _, err := l.server.js.CreateOrUpdateConsumer(ctx, JobsStream, l.server.o.laneConfig(lane)); err != nil {
		return fmt.Errorf("cannot open lane %s: %w", lane, err)
	}
	return l.server.awaitInterest(ctx, pullSubject(JobsStream, lane.String()))
}

// Close ends the deliveries: the receiver is not called any more when it returns.
// Deliveries on their way go back to their lane at once. The receiver itself must not call
// it.
func (l *Lanes) Close() {
	l.calls.Lock()
	open := l.receiver != nil
	if open {
		// The interest ends before the naks go out. Otherwise the server would send the
		// same messages right back.
		if err := l.conn.Unsubscribe(l.sid); err != nil {
			l.server.log.Warn("cannot end the deliveries", "error", err)
		}
		l.receiver = nil
		l.endLater()
	}
	l.calls.Unlock()
	if !open {
		return
	}
	l.later.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), ackTimeout)
	defer cancel()
	for range 2 { // all deliveries are in after the first, and all naks out after the second
		if err := l.conn.Flush(ctx); err != nil {
			l.server.log.Warn("deliveries on their way come again when their lease ends", "error", err)
			return
		}
	}
}

// Pull asks for up to n deliveries of a lane. The request ends by itself after 30 seconds, in a
// cluster after two.
// Receiver.PullEnded then counts the deliveries that did not come.
func (l *Lanes) Pull(lane jobs.Lane, n int) error {
	if n <= 0 {
		return nil
	}
	r, err := l.pulls.ask(lane, n)
	if err != nil || r.subject == "" {
		return err
	}
	if err := l.request(&r); err != nil {
		return fmt.Errorf("cannot pull from lane %s: %w", lane, err)
	}
	return nil
}

// request sends a pull request.
func (l *Lanes) request(r *outgoing) error {
	var to [96]byte
	var space [64]byte
	body := append(space[:0], `{"batch":`...)
	body = strconv.AppendInt(body, int64(r.size), 10)
	body = append(body, `,"expires":`...)
	body = strconv.AppendInt(body, int64(l.server.o.pullExpiry()), 10)
	body = append(body, '}')
	err := wire.Publish(l.conn, r.subject, r.appendReply(to[:0]), nil, body)
	if err != nil {
		l.pulls.end(r.lane, r.number, r.size)
	}
	return err
}

// Ack ends a delivery for good, at once; see [Tail.Ack].
func (l *Lanes) Ack(d jobs.Delivery) error { return l.answer(d.Ref, nil) }

// Nak gives a delivery back, to come again after delay.
func (l *Lanes) Nak(ref string, delay time.Duration) error {
	if delay <= 0 {
		return l.answer(ref, []byte("-NAK"))
	}
	var space [48]byte
	body := append(space[:0], `-NAK {"delay":`...)
	body = strconv.AppendInt(body, int64(delay), 10)
	return l.answer(ref, append(body, '}'))
}

// Extend renews the lease of a delivery.
func (l *Lanes) Extend(ref string) error { return l.answer(ref, []byte("+WPI")) }

func (l *Lanes) answer(ref string, body []byte) error {
	if err := wire.Publish(l.conn, ref, "", nil, body); err != nil {
		return fmt.Errorf("cannot answer a delivery: %w", err)
	}
	return nil
}

// delivered receives an answer to a pull request: a message, or the request's end. It runs
// on the connection's goroutine.
func (l *Lanes) delivered(f *wire.Msg) {
	l.calls.Lock()
	defer l.calls.Unlock()
	if code := f.Status(); code != 0 {
		l.pullEnded(f, code)
		return
	}
	ack, ok := wire.ParseAck(f.Reply)
	if !ok {
		l.server.log.Error("the broker delivered a message without an ack subject", "subject", string(f.Subject), "reply", string(f.Reply))
		return
	}
	if l.receiver == nil {
		if err := l.Nak(string(f.Reply), 0); err != nil {
			l.server.log.Warn("a delivery comes again when its lease ends", "error", err)
		}
		return
	}
	if lane, ok := l.pulls.arrived(ack.Consumer); ok {
		l.receiver.Deliver(jobs.Delivery{Lane: lane, Seq: ack.Seq, Ref: string(f.Reply)})
	}
}

// pullEnded is called under calls.
func (l *Lanes) pullEnded(f *wire.Msg, code int) {
	i, number := replyTokens(f.Subject)
	if l.receiver == nil || code == 100 {
		return
	}
	if code != 404 && code != 408 {
		// The consumer is gone, or the server is in trouble. To ask again at once would
		// be a busy loop, so endLostPulls ends this request a little later.
		if l.pulls.postpone(i, number, code == 503 || bytes.Contains(f.Header, []byte("Consumer Deleted"))) {
			l.server.log.Warn("a request of a lane was refused; it is made again", "status", f.StatusText())
		}
		return
	}
	if lane, missing := l.pulls.end(i, number, int(wire.ParseUint(f.Get("Nats-Pending-Messages")))); missing > 0 {
		l.receiver.PullEnded(lane, missing)
	}
}

// remakeLane makes a lane anew, unless it was closed meanwhile.
func (l *Lanes) remakeLane(ctx context.Context, lane jobs.Lane) (made bool, err error) {
	l.making.Lock()
	defer l.making.Unlock()
	l.calls.Lock()
	closed := l.receiver == nil // another member may lead, and have made them for itself
	l.calls.Unlock()
	if closed || !l.pulls.has(lane) {
		return false, nil
	}
	err = l.makeLane(ctx, lane)
	return err == nil, err
}

// endLostPulls reports requests that ran out without an answer. It makes lanes anew whose
// consumer was deleted, or whose deliveries may have been lost with the connection.
func (l *Lanes) endLostPulls(ctx context.Context, now time.Time) {
	ended, gone := l.pulls.overdue(now)
	var made []string
	for _, lane := range gone {
		switch remade, err := l.remakeLane(ctx, lane); {
		case remade:
			made = append(made, lane.String())
		case err != nil && ctx.Err() == nil:
			l.server.log.Error("a lane cannot be made anew; trying again", "error", err)
		}
		l.pulls.back(lane) // if it is not there, the next request fails
	}
	if len(made) > 0 {
		l.server.log.Warn("lanes were made anew and deliver all their messages again", "lanes", len(made), "first", made[0])
	}
	if len(ended) == 0 {
		return
	}
	l.calls.Lock()
	defer l.calls.Unlock()
	for _, e := range ended {
		if l.receiver != nil {
			l.receiver.PullEnded(e.lane, e.missing)
		}
	}
}

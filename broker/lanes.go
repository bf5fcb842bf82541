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
	"github.com/nats-io/nuid"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
)

// laneTable is what has been pulled and not come yet. A delivery shows its
// consumer, so its lane, but not the pull request that it answers: that only the
// word of a request's end does, on the request's reply subject
// <inbox>.<lane>.<request>. So deliveries are counted per lane.
type laneTable struct {
	mu    sync.Mutex
	inbox string
	sid   int
	lanes []openLane
	index map[jobs.Lane]int
	names map[string]int // by the consumer's name
	next  uint64         // number of the next request

	// calls makes calls to the receiver come one at a time. It is taken before mu,
	// never after: a receiver may pull.
	calls    sync.Mutex
	receiver jobs.Receiver // nil: closed
}

type openLane struct {
	lane     jobs.Lane
	pull     string // subject of pull requests
	missing  int    // deliveries asked for that have not come
	requests []pullRequest
	gone     bool // its consumer must be made anew; till then nothing is asked of it
}

type pullRequest struct {
	number  uint64
	size    int
	expires time.Time
}

// OpenLanes makes a durable consumer for every lane, and from now on hands what
// is pulled to r. Lanes of an earlier run are made anew, so they deliver
// everything in the stream: what a consumer remembers over a restart is less
// than the receiver knows anyway (a delay is kept in whole seconds, and what was
// given back without one would come when its lease ends).
func (b *Broker) OpenLanes(ctx context.Context, lanes []jobs.Lane, r jobs.Receiver) error {
	for _, l := range lanes {
		if err := b.makeLane(ctx, l); err != nil {
			return err
		}
	}
	if err := b.receive(lanes, r); err != nil {
		return err
	}
	return b.work.Flush(ctx)
}

// receive sets the table up and subscribes to what will be pulled.
func (b *Broker) receive(lanes []jobs.Lane, r jobs.Receiver) error {
	t := &b.lanes
	t.calls.Lock()
	defer t.calls.Unlock()
	if t.receiver != nil {
		return errors.New("the lanes are open already")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inbox = b.inbox + ".l" + nuid.Next()
	t.index = make(map[jobs.Lane]int, len(lanes))
	t.names = make(map[string]int, len(lanes))
	t.lanes = nil
	for i, l := range lanes {
		t.index[l], t.names[l.String()] = i, i
		t.lanes = append(t.lanes, openLane{lane: l, pull: pullSubject(JobsStream, l.String())})
	}
	sid, err := b.work.Subscribe(t.inbox+".*.*", b.delivered)
	if err != nil {
		return err
	}
	t.sid, t.receiver = sid, r
	return nil
}

func (b *Broker) makeLane(ctx context.Context, l jobs.Lane) error {
	if !jobs.ValidTypeName(l.Type) || !l.Priority.Valid() {
		return fmt.Errorf("%s is not a lane", l)
	}
	if err := b.js.DeleteConsumer(ctx, JobsStream, l.String()); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("cannot delete lane %s: %w", l, err)
	}
	if _, err := b.js.CreateOrUpdateConsumer(ctx, JobsStream, b.o.laneConfig(l)); err != nil {
		return fmt.Errorf("cannot open lane %s: %w", l, err)
	}
	return nil
}

// CloseLanes ends the deliveries: the receiver is not called any more when it
// returns. What was on its way goes back to its lane at once. It must not be
// called by the receiver itself.
func (b *Broker) CloseLanes() {
	t := &b.lanes
	t.calls.Lock()
	open := t.receiver != nil
	if open {
		// first the end of the interest, then the naks of what still comes: else the
		// server would send it right back
		t.mu.Lock()
		if err := b.work.Unsubscribe(t.sid); err != nil {
			b.log.Warn("cannot end the deliveries", "error", err)
		}
		t.mu.Unlock()
		t.receiver = nil
	}
	t.calls.Unlock()
	if !open {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), ackTimeout)
	defer cancel()
	for range 2 { // the deliveries are in after the first, their naks out after the second
		if err := b.work.Flush(ctx); err != nil {
			b.log.Warn("deliveries on their way come again when their lease ends", "error", err)
			return
		}
	}
}

// Pull asks for up to n deliveries of a lane. The request ends by itself after
// 30 seconds; the receiver is told what did not come.
func (b *Broker) Pull(lane jobs.Lane, n int) error {
	if n <= 0 {
		return nil
	}
	t := &b.lanes
	t.mu.Lock()
	i, ok := t.index[lane]
	if !ok {
		t.mu.Unlock()
		return fmt.Errorf("lane %s is not open", lane)
	}
	number := t.next
	t.next++
	l := &t.lanes[i]
	l.missing += n
	if l.gone {
		l.requests = append(l.requests, pullRequest{number: number, size: n}) // it has run out already
		t.mu.Unlock()
		return nil
	}
	l.requests = append(l.requests, pullRequest{number: number, size: n, expires: time.Now().Add(pullExpiry + pullGrace)})
	subject := l.pull
	var to [96]byte
	reply := append(append(to[:0], t.inbox...), '.')
	t.mu.Unlock()

	reply = strconv.AppendInt(reply, int64(i), 10)
	reply = append(reply, '.')
	reply = strconv.AppendUint(reply, number, 10)
	var space [64]byte
	body := append(space[:0], `{"batch":`...)
	body = strconv.AppendInt(body, int64(n), 10)
	body = append(body, `,"expires":`...)
	body = strconv.AppendInt(body, int64(pullExpiry), 10)
	body = append(body, '}')
	if err := wire.Publish(b.work, subject, reply, nil, body); err != nil {
		t.end(i, number, n)
		return fmt.Errorf("cannot pull from lane %s: %w", lane, err)
	}
	return nil
}

// Ack ends a delivery for good, at once; see [Tail.Ack].
func (b *Broker) Ack(d jobs.Delivery) error { return b.settle(d.Ref, nil) }

// Nak gives a delivery back, to come again after delay.
func (b *Broker) Nak(ref string, delay time.Duration) error {
	if delay <= 0 {
		return b.settle(ref, []byte("-NAK"))
	}
	var space [48]byte
	body := append(space[:0], `-NAK {"delay":`...)
	body = strconv.AppendInt(body, int64(delay), 10)
	return b.settle(ref, append(body, '}'))
}

// Extend renews the lease of a delivery.
func (b *Broker) Extend(ref string) error { return b.settle(ref, []byte("+WPI")) }

func (b *Broker) settle(ref string, body []byte) error {
	if err := wire.Publish(b.work, ref, "", nil, body); err != nil {
		return fmt.Errorf("cannot settle a delivery: %w", err)
	}
	return nil
}

// delivered takes what comes for a pull request: a message, or the word that
// the request has ended.
func (b *Broker) delivered(f *wire.Msg) {
	t := &b.lanes
	t.calls.Lock()
	defer t.calls.Unlock()
	if code := f.Status(); code != 0 {
		b.pullEnded(f, code)
		return
	}
	ack, ok := wire.ParseAck(f.Reply)
	if !ok {
		b.log.Error("the broker delivered a message without an ack subject", "subject", string(f.Subject), "reply", string(f.Reply))
		return
	}
	if t.receiver == nil {
		if err := b.Nak(string(f.Reply), 0); err != nil {
			b.log.Warn("a delivery comes again when its lease ends", "error", err)
		}
		return
	}
	if lane, ok := t.arrived(ack.Consumer); ok {
		t.receiver.Deliver(jobs.Delivery{Lane: lane, Seq: ack.Seq, Ref: string(f.Reply)})
	}
}

// pullEnded is called under calls.
func (b *Broker) pullEnded(f *wire.Msg, code int) {
	i, number := replyTokens(f.Subject)
	t := &b.lanes
	if t.receiver == nil || code == 100 {
		return
	}
	if code != 404 && code != 408 {
		// The consumer is gone, or the server is in trouble. Asking again at once
		// would be a busy loop, so the watchdog ends this request a little later.
		b.log.Warn("a request of a lane was refused; it is made again", "status", f.StatusText())
		t.postpone(i, number, code == 503 || bytes.Contains(f.Header, []byte("Consumer Deleted")))
		return
	}
	if lane, missing := t.end(i, number, int(wire.ParseUint(f.Get("Nats-Pending-Messages")))); missing > 0 {
		t.receiver.PullEnded(lane, missing)
	}
}

// replyTokens are the lane's index and the request's number at the end of a
// reply subject.
func replyTokens(subject []byte) (i int, number uint64) {
	last := bytes.LastIndexByte(subject, '.')
	number = wire.ParseUint(subject[last+1:])
	rest := subject[:max(last, 0)]
	return int(wire.ParseUint(rest[bytes.LastIndexByte(rest, '.')+1:])), number
}

// arrived counts a delivery to its lane.
func (t *laneTable) arrived(consumer []byte) (jobs.Lane, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.names[string(consumer)]
	if !ok {
		return jobs.Lane{}, false
	}
	l := &t.lanes[i]
	if l.missing > 0 {
		l.missing--
	}
	if l.missing == 0 {
		l.requests = l.requests[:0] // one that is served in full ends without a word
	}
	return l.lane, true
}

// end removes a request of which so many are missing. It returns as many, or
// none if the request's end was taken into account already.
func (t *laneTable) end(i int, number uint64, missing int) (jobs.Lane, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i >= len(t.lanes) {
		return jobs.Lane{}, 0
	}
	l := &t.lanes[i]
	for k, r := range l.requests {
		if r.number == number {
			l.requests = append(l.requests[:k], l.requests[k+1:]...)
			missing = min(missing, l.missing)
			l.missing -= missing
			return l.lane, missing
		}
	}
	return l.lane, 0
}

// postpone has a request that was refused end a little later. It does nothing about
// one that has ended already.
func (t *laneTable) postpone(i int, number uint64, gone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i >= len(t.lanes) {
		return
	}
	l := &t.lanes[i]
	for k := range l.requests {
		if r := &l.requests[k]; r.number == number {
			r.expires = time.Now().Add(pullGrace)
			l.gone = l.gone || gone
		}
	}
}

// endLostPulls makes lanes anew whose consumers somebody deleted, or that may have
// sent what never came, and reports requests whose end was not heard of.
func (b *Broker) endLostPulls(ctx context.Context, now time.Time) {
	t := &b.lanes
	ended, gone := t.overdue(now)
	var made []string
	for _, lane := range gone {
		switch err := b.makeLane(ctx, lane); {
		case err == nil:
			made = append(made, lane.String())
		case ctx.Err() == nil:
			b.log.Error("a lane cannot be made anew; trying again", "error", err)
		}
		t.back(lane) // if it is not, the next request says so
	}
	if len(made) > 0 {
		b.log.Warn("lanes were made anew and deliver all their messages again", "lanes", len(made), "first", made[0])
	}
	if len(ended) == 0 {
		return
	}
	t.calls.Lock()
	defer t.calls.Unlock()
	for _, e := range ended {
		if t.receiver != nil {
			t.receiver.PullEnded(e.lane, e.missing)
		}
	}
}

// disconnected lets all requests run out: the server forgets them with the
// connection. What was on its way is lost with it, and the server takes it for
// delivered until its lease ends; lanes made anew deliver it at once.
func (t *laneTable) disconnected() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.lanes {
		l := &t.lanes[i]
		l.gone = true
		for k := range l.requests {
			l.requests[k].expires = time.Time{}
		}
	}
}

// back takes note that a lane can be asked again.
func (t *laneTable) back(lane jobs.Lane) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i, ok := t.index[lane]; ok {
		t.lanes[i].gone = false
	}
}

type endedPull struct {
	lane    jobs.Lane
	missing int
}

func (t *laneTable) overdue(now time.Time) (ended []endedPull, gone []jobs.Lane) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.lanes {
		l := &t.lanes[i]
		if l.gone {
			gone = append(gone, l.lane)
		}
		alive := 0 // what the requests that have not run out can still bring
		kept := l.requests[:0]
		for _, r := range l.requests {
			if r.expires.After(now) {
				alive += r.size
				kept = append(kept, r)
			}
		}
		l.requests = kept
		if lost := l.missing - alive; lost > 0 {
			l.missing = alive
			ended = append(ended, endedPull{l.lane, lost})
		}
	}
	return ended, gone
}

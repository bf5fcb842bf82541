package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// campaignTime is how long an attempt to lead may take.
const campaignTime = 5 * time.Second

// campaign tries to become the leader. It begins with the end of the log, and nobody
// else may know more than this node: otherwise the streams have gone back, and the node
// that knows most shall lead. It returns nil if this node does not lead.
func (f *follower) campaign(ctx context.Context) (*leadership, error) {
	m := f.m
	ctx, cancel := context.WithTimeout(ctx, campaignTime)
	defer cancel()
	others := m.peers.lately(time.Now()) // before the look at the log
	if have, all := 1+len(others), m.o.Members(); have < all/2+1 {
		m.say(Following, fmt.Sprintf("nobody leads, and %d of %d nodes are there: it takes %d to choose a leader", have, all, all/2+1))
		return nil, nil
	}
	last, err := m.end(ctx)
	if err != nil {
		m.say(Following, fmt.Sprintf("nobody leads, and the log does not answer: %v", err))
		return nil, nil
	}
	var end Entry
	if last.Body != nil {
		if end, err = Decode(last.Body); err != nil {
			return nil, err
		}
	}
	fits := last.Seq == f.chain.head && (last.Seq == 0 || last.Body != nil && HashOf(last.Body) == f.chain.hash)
	own := f.chain.Position
	switch {
	case fits:
	case last.Seq > f.chain.head && (end.Number > own.Number || own.base()):
		m.say(Following, "nobody leads, and this node's replica of the log is late")
		if !time.Now().Before(f.silent) {
			f.strays()
		}
		return nil, nil
	case (&Position{Epoch: end.Epoch, Number: end.Number}).After(&own):
		return nil, broken("it ends with the entry %d of epoch %d, which was not made behind the entry %d", end.Number, end.Epoch, own.Number)
	}
	epoch := max(own.Epoch, end.Epoch)
	for _, h := range others {
		if h.after(&own) {
			m.say(Following, fmt.Sprintf("nobody leads, and %s shall: it has more entries than the log", h.Name))
			return nil, nil
		}
		epoch = max(epoch, h.Epoch)
	}
	if !fits {
		m.o.Logger.Warn("the log has gone back behind this node's tracker; going on from the tracker", "log", end.Number, "tracker", own.Number)
	}
	l := newLeadership(m, f.chain, epoch+1)
	if !fits {
		l.chain.head, l.chain.hash = last.Seq, own.Hash
	}
	if err := l.append(ctx, Lead, nil); err != nil {
		m.say(Following, "nobody leads, and this node's attempt to do so has failed")
		f.heard()
		f.resigned = false
		return nil, nil
	}
	return l, nil
}

// end is the end of the log. A question is lost if it meets a server that is about to end,
// so it is asked again soon.
func (m *Member) end(ctx context.Context) (last Message, err error) {
	ctx, stop := context.WithTimeout(ctx, m.o.Pace.Silence)
	defer stop()
	for {
		asking, cancel := context.WithTimeout(ctx, m.o.Pace.Answer/3)
		last, err = m.o.Log.Last(asking)
		cancel()
		if err == nil || ctx.Err() != nil {
			return last, err
		}
		pause(ctx, m.o.Pace.Answer/10)
	}
}

// leadership is the time of one node as the leader.
type leadership struct {
	m     *Member
	epoch uint64

	appending chan struct{} // has a token while something is appended; guards chain and sealed
	chain     chain
	sealed    Position // of the last seal

	held     atomic.Int64  // when the last append that succeeded began, since begun; see holds
	begun    time.Time     // has a monotonic clock
	deposed  chan struct{} // closed when nothing can be appended any more
	once     sync.Once
	stopping atomic.Bool   // it gives up if the log does not answer
	resigned atomic.Bool   // others may lead from now on
	sealing  atomic.Uint64 // the number of the last entry with changes, from before it is appended
}

func newLeadership(m *Member, c chain, epoch uint64) *leadership {
	l := &leadership{m: m, epoch: epoch, chain: c, begun: time.Now(), deposed: make(chan struct{}), appending: make(chan struct{}, 1)}
	l.chain.parts = nil
	return l
}

// holds says whether no other node can lead: the others wait for longer than the lease,
// from when they saw the last entry.
func (l *leadership) holds() bool {
	return !l.over() && !l.resigned.Load() && time.Since(l.begun)-time.Duration(l.held.Load()) < l.m.o.Pace.Lease
}

func (l *leadership) depose() { l.once.Do(func() { close(l.deposed) }) }

// over says whether the node has been deposed.
func (l *leadership) over() bool {
	select {
	case <-l.deposed:
		return true
	default:
		return false
	}
}

// append appends an entry. The caller has the token of l.appending, or nobody else knows l. An
// error means that the node does not lead any more.
func (l *leadership) append(ctx context.Context, kind Kind, body []byte) error {
	for _, m := range l.chain.entry(l.epoch, l.m.o.Name, kind, body) {
		begun := time.Since(l.begun)
		seq, err := l.appendMessage(ctx, m)
		if err == nil {
			_, _, err = l.chain.next(Message{Seq: seq, Body: m})
		}
		if err != nil {
			l.depose()
			return errors.Join(ErrDeposed, err)
		}
		l.held.Store(int64(begun))
	}
	l.m.at(l.chain.Position)
	return nil
}

// appendMessage appends a message at the end of the chain. Without an answer it asks
// again, in the same way: the message gets into the log once at most.
func (l *leadership) appendMessage(ctx context.Context, message []byte) (seq uint64, err error) {
	begun, refused := time.Now(), time.Time{}
	for {
		asking, cancel := context.WithTimeout(ctx, l.m.o.Pace.Answer)
		seq, err = l.m.o.Log.Append(asking, l.chain.head, message)
		cancel()
		switch {
		case err == nil:
			return seq, nil
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case l.over():
			return 0, ErrDeposed
		case l.stopping.Load() && time.Since(begun) > l.m.o.Pace.Stop:
			return 0, fmt.Errorf("the log does not answer: %w", err)
		case !errors.Is(err, ErrRefused):
			// Whether it is in the log is not known yet.
			pause(ctx, l.m.o.Pace.Answer/10)
			continue
		}
		asking, cancel = context.WithTimeout(ctx, l.m.o.Pace.Answer)
		last, lastErr := l.m.o.Log.Last(asking)
		cancel()
		switch {
		case lastErr != nil:
		case last.Seq == l.chain.head+1 && bytes.Equal(last.Body, message):
			return last.Seq, nil // the answer to an earlier try was lost
		case last.Seq > l.chain.head:
			return 0, err
		case refused.IsZero():
			refused = time.Now() // one of the two answers is an old one
		case time.Since(refused) > l.m.o.Pace.Silence:
			return 0, fmt.Errorf("%w: it ends at %d, and this node has appended %d", err, last.Seq, l.chain.head)
		}
		pause(ctx, l.m.o.Pace.Answer/10)
	}
}

// seal is the [Seal] of the tracker.
func (l *leadership) seal(body []byte) (Position, error) {
	l.appending <- struct{}{}
	defer func() { <-l.appending }()
	if l.over() {
		return Position{}, ErrDeposed
	}
	if l.sealed != (Position{}) && l.m.o.Tracker.Position() != l.sealed {
		l.depose()
		return Position{}, fmt.Errorf("%w: its tracker could not commit the last entry", ErrDeposed)
	}
	l.sealing.Store(l.chain.Number + 1)
	if err := l.append(context.Background(), Commit, body); err != nil {
		return Position{}, err
	}
	l.sealed = l.chain.Position
	return l.sealed, nil
}

// beat appends a beat, unless something was appended lately, or is about to be.
func (l *leadership) beat() {
	if time.Since(l.begun)-time.Duration(l.held.Load()) < l.m.o.Pace.Beat {
		return
	}
	select {
	case l.appending <- struct{}{}:
	default:
		return
	}
	defer func() { <-l.appending }()
	if !l.over() {
		_ = l.append(context.Background(), Beat, nil) // an error has deposed the node
	}
}

// beatUntil appends beats until the node is deposed or end is closed.
func (l *leadership) beatUntil(end <-chan struct{}) {
	tick := time.NewTicker(l.m.o.Pace.Beat / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.m.raise()
			l.beat()
		case <-l.deposed:
			return
		case <-end:
			return
		}
	}
}

// leads is the time as the leader. It ends when the node is deposed, when ctx ends, or
// when it does not want to lead any more.
func (m *Member) leads(ctx context.Context, l *leadership) {
	m.mu.Lock()
	m.lead = l
	m.mu.Unlock()
	m.say(Leading, "")
	m.o.Logger.Info("this node leads", "epoch", l.epoch, "entry", l.chain.Number)
	m.o.Tracker.Lead(l.seal)
	leading, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- m.o.Lead(leading) }()
	beats := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() { l.beatUntil(beats) }) //nolint:contextcheck // beats go on after the end of ctx, until all has ended
	err := l.wait(ctx, done, cancel)
	cancel(context.Canceled)
	close(beats)
	l.stopping.Store(true)
	beating.Wait() // nobody else appends any more
	resigned := false
	if !l.over() {
		l.resigned.Store(true)
		resigned = l.append(context.WithoutCancel(ctx), Resign, nil) == nil
	}
	l.depose()
	m.o.Tracker.Follow()
	m.mu.Lock()
	m.lead = nil
	m.mu.Unlock()
	m.say(Following, "it does not lead any more")
	m.o.Logger.Info("this node does not lead any more", "epoch", l.epoch, "resigned", resigned)
	if err != nil && ctx.Err() == nil {
		m.o.Logger.Error("this node could not lead; another one shall", "error", err)
		pause(ctx, 3*m.o.Pace.Silence)
	}
}

// wait returns when the work of the leader has ended.
func (l *leadership) wait(ctx context.Context, done <-chan error, cancel context.CancelCauseFunc) error {
	deposed, stop := l.deposed, ctx.Done()
	for {
		select {
		case err := <-done:
			switch {
			case l.over() || ctx.Err() != nil:
				err = nil
			case err == nil:
				err = errors.New("its work has ended")
			}
			return err
		case <-deposed:
			cancel(ErrDeposed)
			deposed = nil
		case <-stop:
			l.stopping.Store(true)
			cancel(context.Cause(ctx))
			stop = nil
		}
	}
}

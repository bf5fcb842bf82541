package broker

import (
	"context"
	"errors"
	"time"
)

// How a feed follows a tap. A consumer reads up to some message, and the tap tells of
// what comes after it. While messages come all the time, what the tap tells of is kept
// until the consumer has brought the message before it. If that becomes too much, or
// what was told of is not taken, the feed lets go, and the next consumer goes on behind
// the last message that came. So at most twice what may be under way waits to be taken:
// what the tap has told of, and what a consumer was asked for.

// tapped is the feed's part in that, under the feed's lock.
type tapped struct {
	following bool
	meetAt    uint64 // what the tap tells of comes after this message, which the consumer has not brought yet; 0 = none
	early     []item // what it has told of
	ahead     int    // bytes that were told of and not taken
	gone      bool   // the stream is not the one that the tap is in
	due       uint64 // the stream's last message when it was looked at
}

// reset makes it neither follow nor be about to.
func (t *tapped) reset() {
	for i := range t.early {
		t.ahead -= t.early[i].size()
	}
	t.following, t.meetAt, t.early = false, 0, nil
}

// followTap follows the tap, if it can be done, until it can't be any more. False
// says that it could not.
func (f *feed) followTap(ctx context.Context, tick <-chan time.Time) bool {
	if !f.joinTap() {
		return false
	}
	for {
		select {
		case <-ctx.Done():
			return true
		case <-f.level: // said of a consumer that is gone
		case <-f.broken: // perhaps as well
			if !f.followed() {
				return true
			}
		case <-tick:
			f.checkTap(ctx)
		}
	}
}

func (f *feed) followed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tapped.following
}

// joinTap reports whether the feed follows the tap. If it is not up to date, though
// nearly, it may do so a moment later, which the level channel tells.
func (f *feed) joinTap() bool {
	if f.tap == nil {
		return false
	}
	f.mu.Lock()
	following, gone := f.tapped.following, f.tapped.gone
	f.mu.Unlock()
	if following || gone {
		return following
	}
	f.tap.follow(f.join, f.told)
	return f.followed()
}

// join has the tap tell of what comes after the message last.
func (f *feed) join(last uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &f.tapped
	switch {
	case t.meetAt > 0: // they are about to meet
	case f.last == last:
		t.due = 0
		f.follow()
	case f.expect > 0 && f.last < last:
		t.meetAt, t.due = last, 0
	default:
		return false
	}
	return true
}

// follow takes what the tap tells of from now on, and nothing from the consumer. f.mu
// is held.
func (f *feed) follow() {
	f.expect, f.left = 0, 0
	f.tapped.following = true
	for i := range f.tapped.early {
		f.last = f.tapped.early[i].seq
		f.push(f.tapped.early[i])
	}
	f.tapped.meetAt, f.tapped.early = 0, nil
}

// meet says whether the consumer, with the message seq, has brought all that is
// before what the tap has told of; then the tap is followed. f.mu is held.
func (f *feed) meet(seq uint64) bool {
	t := &f.tapped
	if t.meetAt == 0 || seq < t.meetAt {
		return false
	}
	f.last = t.meetAt // if that one was deleted the next one has come
	f.follow()
	signal(f.level)
	return true
}

// told takes a message from the tap; false says that it takes no more.
func (f *feed) told(it item) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &f.tapped
	before := f.last
	switch {
	case t.following:
	case t.meetAt > 0 && len(t.early) > 0:
		before = t.early[len(t.early)-1].seq
	case t.meetAt > 0:
		before = t.meetAt
	default:
		return false
	}
	if it.seq <= before {
		return true // a consumer has brought it, or will
	}
	if it.seq != before+1 || t.ahead >= f.most {
		if t.following {
			signal(f.broken)
		}
		t.reset()
		return false
	}
	it.told = true
	t.ahead += it.size()
	if t.following {
		f.last = it.seq
		f.push(it)
	} else {
		t.early = append(t.early, it)
	}
	return true
}

// checkTap notices that the stream is gone, or another one of that name. And it lets
// go of a tap that has not told of what the stream had when it was looked at before: no
// way of the server's into a stream is known that passes it by, but a job that nobody
// sees would be the price.
func (f *feed) checkTap(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	before := f.tap.last()
	state, err := f.b.state(ctx, f.stream)
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	same := err == nil && state.Created.Equal(f.created) && before <= state.Last && state.Last <= f.tap.last()
	switch {
	case err != nil:
		f.b.log.Error("cannot read a stream; trying again", "stream", f.stream, "error", err)
	case !same:
		f.b.log.Warn("somebody has made the stream anew; jobs will be slower until the next start", "stream", f.stream)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if same && f.last >= f.tapped.due {
		f.tapped.due = state.Last
		return
	}
	f.tapped.gone = err == nil && !same // after an error it may be there again later
	f.tapped.reset()
	signal(f.broken)
}

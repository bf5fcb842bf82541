package changes

import (
	"context"
	"errors"
	"time"

	"jobstream/jobs"
)

// The reasons why a follower gets nothing more.
var (
	ErrSlow   = errors.New("events came faster than they were taken; come back with the id of the last one")
	ErrClosed = errors.New("the server stops, or starts anew")
)

// Follower goes through the changes of a feed. One goroutine uses it.
type Follower struct {
	feed   *Feed
	filter Filter
	at     Place         // behind all that it has got
	first  []byte        // what it gets before all else
	wake   chan struct{} // closed when there is more; nil = look at once

	// A follower is behind while it gets its events from the log of ends.
	behind bool
	past   jobs.EndedPlace // where it is in the log
	pieces int             // of it that it has got
	caught bool            // it has come to the end of the log, and had nothing of the feed yet
	placed bool            // it has one of the places of those who read the log
}

// Mark is an event without data. It tells a client the place to come back to.
func (x *Follower) Mark() []byte { return mark(x.feed.epoch(), x.at) }

// Close ends the follower.
func (x *Follower) Close() {
	x.release()
	x.feed.leave()
}

// release gives up the place of those who read the log of ends.
func (x *Follower) release() {
	if x.placed {
		<-x.feed.places
		x.placed = false
	}
}

// Next waits for events, and returns the texts of some. It returns none when beat ticks,
// and the error of ctx when that ends. [ErrSlow] and [ErrClosed] end the follower, too.
//
// A follower with the id of an event gets what came behind that. As long as the feed still
// has all of it, nothing is left out. Otherwise it gets the jobs that have ended since, as
// they are now, after an event "skipped" that says so. It may get some ends twice.
func (x *Follower) Next(ctx context.Context, beat <-chan time.Time) (texts [][]byte, err error) {
	if x.first != nil {
		texts = append(texts, x.first)
		x.first = nil
		return texts, nil
	}
	for {
		if x.behind {
			texts, beaten, err := x.catchUp(ctx, beat)
			if len(texts) > 0 || beaten || err != nil {
				return texts, err
			}
			continue
		}
		x.release()
		if x.wake != nil {
			if beaten, err := x.wait(ctx, x.wake, beat); beaten || err != nil {
				return nil, err
			}
		}
		found, at, wake, ok := x.feed.next(&x.filter, x.at)
		x.wake = wake
		switch {
		case !ok && !x.caught:
			return nil, ErrSlow
		case !ok:
			x.behind = true // it was so long in the log that it has to go there again
		case at != x.at:
			x.at, x.caught = at, false
		}
		for _, c := range found {
			texts = append(texts, c.text(x.feed.epoch()))
		}
		if len(texts) > 0 {
			return texts, nil
		}
	}
}

// wait waits for wake. beaten says that beat has ticked before.
func (x *Follower) wait(ctx context.Context, wake <-chan struct{}, beat <-chan time.Time) (beaten bool, err error) {
	select {
	case <-wake:
		return false, nil
	case <-beat:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	case <-x.feed.closed:
		return false, ErrClosed
	}
}

// catchUp gets the next piece of the log of ends, unless the feed has all that is missing.
func (x *Follower) catchUp(ctx context.Context, beat <-chan time.Time) (texts [][]byte, beaten bool, err error) {
	f := x.feed
	if f.covers(x.at) {
		x.behind = false
		return nil, false, nil
	}
	if !x.placed {
		select {
		case f.places <- struct{}{}:
			x.placed = true
		case <-beat:
			return nil, true, nil
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case <-f.closed:
			return nil, false, ErrClosed
		}
	}
	ends, err := f.past.EndedSince(x.past, pieceJobs, pieceBytes)
	if err != nil {
		return nil, false, err
	}
	if x.pieces++; x.pieces == 1 {
		texts = append(texts, x.missed(&ends)...)
	}
	for _, e := range ends.Jobs {
		if x.filter.match(e.Job, false) {
			texts = append(texts, event(f.epoch(), Place{Number: e.Number}, e.Job, false))
		}
	}
	x.past, x.at = ends.Next, Place{Number: ends.Next.Number}
	if ends.Whole {
		x.at = Place{Number: max(x.at.Number, ends.Number+1)}
		x.past = jobs.EndedPlace{Number: x.at.Number}
		x.behind, x.caught = false, true
		texts = append(texts, x.Mark())
	}
	return texts, false, nil
}

// missed says what the log of ends does not have, nothing if there was nothing else.
func (x *Follower) missed(ends *jobs.Ends) (texts [][]byte) {
	switch {
	case x.at.Number <= ends.Floor:
		texts = append(texts, skipped(skipOld, "what has happened since the last event is not kept for so long; the latest ends follow, with their jobs as they are now", ends.FloorAt))
	case x.at.Number <= ends.Number:
		texts = append(texts, skipped(skipChanges, "what has happened since the last event is not kept; the jobs that have ended since follow as they are now", 0))
	}
	return texts
}

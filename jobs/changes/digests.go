package changes

import (
	"context"
	"time"
)

// Board has the latest digest, as JSON that is made once for all. next is closed when there
// is another one.
type Board interface {
	Latest() (digest []byte, next <-chan struct{})
}

// Digests goes through the digests of a board. One goroutine uses it.
type Digests struct {
	feed  *Feed
	board Board
	every int
	next  <-chan struct{}
	left  int // digests that come before the one that is sent next
}

// Digests begins to follow every n-th digest of a board. The caller calls [Digests.Close]
// in the end.
func (f *Feed) Digests(board Board, n int) *Digests {
	f.digests.Add(1)
	return &Digests{feed: f, board: board, every: n}
}

// Mark is nothing: whoever comes back begins with the next digest.
func (d *Digests) Mark() []byte { return []byte("\n") }

// Close ends it.
func (d *Digests) Close() { d.feed.digests.Add(-1) }

var (
	beginDigest = []byte("event: digest\ndata: ")
	endDigest   = []byte("\n\n")
)

// Next is the latest digest at first, and then waits for the one that is due. It is like
// [Follower.Next] otherwise. A slow client misses some, and delays nobody.
func (d *Digests) Next(ctx context.Context, beat <-chan time.Time) (texts [][]byte, err error) {
	for {
		if d.next != nil {
			select {
			case <-d.next:
			case <-beat:
				return nil, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-d.feed.closed:
				return nil, ErrClosed
			}
		}
		var digest []byte
		digest, d.next = d.board.Latest()
		if d.left--; digest == nil || d.left > 0 {
			continue
		}
		d.left = d.every
		return [][]byte{beginDigest, digest, endDigest}, nil
	}
}

package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// ErrRefused says that the log has another last message than an append expects.
var ErrRefused = errors.New("the log has another last entry")

// ErrDeposed says that this node does not lead any more, so that nothing can be
// committed here.
var ErrDeposed = errors.New("this node does not lead any more")

// ErrApart says that entries were made on another state than the tracker has. It needs a
// copy of another one.
var ErrApart = errors.New("the tracker has another past than the log")

// ErrBegun says that a log cannot begin with this node's tracker, because it has begun with
// another one.
var ErrBegun = errors.New("the cluster has begun with the data of another node")

// Format is a way in which the bodies of entries, and what they write, are encoded. A
// higher one is later. Whoever reads it reads all lower ones.
type Format uint64

// NewFormat is the format with two numbers, of which the first counts more.
func NewFormat(major, minor uint32) Format { return Format(major)<<32 | Format(minor) }

// String is both numbers with a point between.
func (f Format) String() string { return fmt.Sprintf("%d.%d", uint64(f>>32), uint32(f)) }

// Message is an encoded entry in the log.
type Message struct {
	Seq  uint64 // its place: messages are numbered without a gap
	Body []byte // see [Decode]
}

// Log is the sequence of messages that all nodes share. Any goroutine may call its
// methods.
type Log interface {
	// Append adds a message, if the last one has the sequence after, and returns its
	// sequence. The error is [ErrRefused] if the last one is another. After any other
	// error the message may be in the log or not, or get there later.
	Append(ctx context.Context, after uint64, entry []byte) (seq uint64, err error)
	// Last is the end of the log, as the server knows it that leads the log. While the
	// log has no message, Body is nil, and Seq the last sequence that was used.
	Last(ctx context.Context) (Message, error)
	// Next is the first message that is not before the sequence from, as the server knows
	// it that leads the log. If there is none yet, Body is nil.
	Next(ctx context.Context, from uint64) (Message, error)
	// Read returns messages in order, from the sequence from on: most of them at most,
	// and some MiB. Any replica may answer: this node's own as a rule, or another one
	// while that cannot. It may be behind the end, so there may be none yet. The first is
	// later than from if that replica does not have from any more. After the log has gone
	// back, a replica may keep messages that the log does not have.
	Read(ctx context.Context, from uint64, most int) ([]Message, error)
	// Bell has a token when there may be something new to read. It may miss some.
	Bell() <-chan struct{}
}

// Seal makes a transaction an entry of the log before it is committed: body is what it
// changes. The position is that of the entry, and is stored with the transaction. After
// an error, nothing may be committed.
//
// A transaction that fails after its Seal has returned nil is in the log all the same.
// So the next Seal fails with [ErrDeposed], and the node applies the entry as a follower.
type Seal func(body []byte) (Position, error)

// Tracker is the state that the entries change. A [Member] calls one method at a time,
// but Snapshot, Format and Raise, which may be called at any time.
type Tracker interface {
	// Position is that of the last commit: what Seal has returned, or Apply was given.
	// It is zero in a new tracker.
	Position() Position
	// Apply commits the bodies of entries in order, in one transaction, with the
	// position after the last one. There may be none. What is here already is passed over.
	// If an entry is missing before them, the error is [ErrApart].
	Apply(bodies [][]byte, at Position) error
	// Lead says that from now on this node changes the tracker, and seals every
	// transaction.
	Lead(seal Seal)
	// Follow says that it does no longer. Nothing that would change the tracker runs any
	// more, except Apply and Install.
	Follow()
	// Snapshot calls f with a copy of the tracker as it is after some commit.
	Snapshot(f func(size int64, copy io.WriterTo) error) error
	// Format is the latest that this program reads.
	Format() Format
	// Raise lets the tracker write up to a format while it leads, as every member reads
	// that. It has no effect if it has written a later one. Any goroutine may call it.
	Raise(to Format)
	// Install replaces the contents of the tracker by such a copy, durably and as a
	// whole. After an error they are as before.
	Install(from io.Reader) error
}

// Peers are the other members.
type Peers interface {
	// Tell sends a greeting to all of them. It may get lost.
	Tell(hello []byte) error
	// Heard has the greetings of the others. Those for which it has no room are lost.
	Heard() <-chan []byte
	// Fetch asks the member of this name for a copy of its tracker, see
	// [Tracker]. It fails when that one says nothing for some seconds.
	Fetch(ctx context.Context, member string, to io.Writer) error
}

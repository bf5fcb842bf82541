package replica

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Entry is one step of the log, or a part of one.
type Entry struct {
	// Epoch is the number of times that a node has begun to lead.
	Epoch uint64
	// Number counts the entries over all epochs, without a gap. All parts of an entry
	// have the same one.
	Number uint64
	// Node is the name of the leader that has appended it.
	Node string
	// Previous is the hash of the message before, which may be a part.
	Previous Hash
	Kind     Kind
	// More says that this is a part, and that another one follows.
	More bool
	// Body belongs to the kind: what a commit changes, as the tracker has encoded it, or
	// what a lead says.
	Body []byte
}

// Kind is the kind of an [Entry].
type Kind uint8

// The kinds of entries.
const (
	Lead   Kind = iota + 1 // a node begins to lead
	Commit                 // a transaction of the leader's tracker
	Beat                   // nothing has happened for a while
	Resign                 // the leader has stopped cleanly, and another one may lead at once
)

// String is the name of the kind.
func (k Kind) String() string {
	switch k {
	case Lead:
		return "lead"
	case Commit:
		return "commit"
	case Beat:
		return "beat"
	case Resign:
		return "resign"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Hash is the SHA-256 of an encoded entry.
type Hash [sha256.Size]byte

// HashOf is the hash of an encoded entry.
func HashOf(entry []byte) Hash { return sha256.Sum256(entry) }

// The form of an entry: one byte of version, one of kind and flag, epoch and number as
// varints, the length of the name as a byte, the name, the previous hash, and the body.
const (
	version  = 1
	moreFlag = 0x80
	maxName  = 255
)

// maxBody is how long the body of a message may be, in bytes. Longer ones become parts.
const maxBody = 512 << 10

// Append appends the encoded entry to b. The name of the node has at most 255 bytes.
func (e *Entry) Append(b []byte) []byte {
	kind := byte(e.Kind)
	if e.More {
		kind |= moreFlag
	}
	b = append(b, version, kind)
	b = binary.AppendUvarint(b, e.Epoch)
	b = binary.AppendUvarint(b, e.Number)
	name := e.Node[:min(len(e.Node), maxName)]
	b = append(b, byte(len(name)))
	b = append(b, name...)
	b = append(b, e.Previous[:]...)
	return append(b, e.Body...)
}

// errEntry says that an entry cannot be decoded.
var errEntry = errors.New("this is no entry of the log")

// Decode is the inverse of [Entry.Append]. The body is a part of b.
func Decode(b []byte) (Entry, error) {
	var e Entry
	if len(b) < 2 {
		return e, errEntry
	}
	if b[0] != version {
		return e, fmt.Errorf("an entry of the log has version %d, and this program knows %d: all nodes need the same release", b[0], version)
	}
	e.Kind, e.More = Kind(b[1]&^moreFlag), b[1]&moreFlag != 0
	if e.Kind < Lead || e.Kind > Resign {
		return e, fmt.Errorf("%w: it is of %v", errEntry, e.Kind)
	}
	b = b[2:]
	var n, m int
	e.Epoch, n = binary.Uvarint(b)
	if n <= 0 {
		return e, fmt.Errorf("%w: its epoch is broken", errEntry)
	}
	b = b[n:]
	e.Number, m = binary.Uvarint(b)
	if m <= 0 {
		return e, fmt.Errorf("%w: its number is broken", errEntry)
	}
	b = b[m:]
	if len(b) < 1 || len(b) < 1+int(b[0])+len(e.Previous) {
		return e, fmt.Errorf("%w: it is cut off", errEntry)
	}
	name := int(b[0])
	e.Node = string(b[1 : 1+name])
	b = b[1+name:]
	copy(e.Previous[:], b)
	e.Body = b[len(e.Previous):]
	return e, nil
}

// Position is the end of what a tracker has applied. It is stored together with that.
type Position struct {
	Seq    uint64 // of the last message, in the log
	Number uint64 // of the last entry
	Epoch  uint64
	Hash   Hash // of the last message
}

// positionSize is the length of an encoded position.
const positionSize = 3*8 + sha256.Size

// AppendBinary appends the encoded position to b. It never fails.
func (p *Position) AppendBinary(b []byte) ([]byte, error) {
	b = binary.BigEndian.AppendUint64(b, p.Seq)
	b = binary.BigEndian.AppendUint64(b, p.Number)
	b = binary.BigEndian.AppendUint64(b, p.Epoch)
	return append(b, p.Hash[:]...), nil
}

// UnmarshalBinary decodes a position.
func (p *Position) UnmarshalBinary(b []byte) error {
	if len(b) != positionSize {
		return fmt.Errorf("a position in the log has %d bytes, not %d", len(b), positionSize)
	}
	p.Seq, p.Number, p.Epoch = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
	copy(p.Hash[:], b[24:])
	return nil
}

// Base is the place from which a new log begins with a tracker that is at a position of an
// earlier one, or has never been in any. No other tracker is at the same place.
func Base(at Position) Position {
	at = Position{Number: at.Number + 1, Epoch: at.Epoch + 1}
	_, _ = rand.Read(at.Hash[:]) // it never fails
	return at
}

// base says that a log begins with the tracker, which has seen nothing of it yet.
func (p *Position) base() bool { return p.Seq == 0 && p.Number > 0 }

// After says whether p is later than another position: of a later epoch, or of the same
// one with a higher number.
func (p *Position) After(o *Position) bool {
	return p.Epoch > o.Epoch || p.Epoch == o.Epoch && p.Number > o.Number
}

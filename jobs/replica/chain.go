package replica

import (
	"fmt"
)

// chain is the end of the log as far as a node has read it. It checks that the next
// message is the one that belongs there.
type chain struct {
	Position        // of the last whole entry
	head     uint64 // the sequence of the last message, which may be a part
	hash     Hash   // its hash
	parts    []byte // the bodies of the parts of an entry that is not whole yet
	leader   string // the node that has appended the last message
}

func newChain(at Position) chain { return chain{Position: at, head: at.Seq, hash: at.Hash} }

// errBroken says that a message is not the next one, so that this node and the log have
// different pasts.
type errBroken struct{ why string }

func (e *errBroken) Error() string {
	return "the log does not go on from this node's tracker: " + e.why
}

func broken(format string, args ...any) error { return &errBroken{fmt.Sprintf(format, args...)} }

// next takes the message at the end. whole says that it completes an entry, whose body
// is in e then. The body belongs to the caller.
func (c *chain) next(m Message) (e Entry, whole bool, err error) {
	if m.Seq != c.head+1 {
		return e, false, broken("message %d follows message %d", m.Seq, c.head)
	}
	if e, err = Decode(m.Body); err != nil {
		return e, false, err
	}
	switch {
	case e.Kind != Commit && e.More:
		return e, false, broken("the entry %d of %s is a %v in parts", e.Number, e.Node, e.Kind)
	case e.Previous != c.hash:
		return e, false, broken("the entry %d of %s was made behind another one", e.Number, e.Node)
	case e.Number != c.Number+1:
		return e, false, broken("the entry %d of %s follows the entry %d", e.Number, e.Node, c.Number)
	case e.Kind == Lead && e.Epoch <= c.Epoch, e.Kind != Lead && e.Epoch != c.Epoch:
		return e, false, broken("the entry %d of %s has the epoch %d after %d", e.Number, e.Node, e.Epoch, c.Epoch)
	}
	if e.Kind == Lead {
		c.parts = nil // the leader before has not finished its entry
	}
	c.head, c.hash, c.leader = m.Seq, HashOf(m.Body), e.Node
	if e.More {
		c.parts = append(c.parts, e.Body...)
		return e, false, nil
	}
	if len(c.parts) > 0 {
		e.Body = append(c.parts, e.Body...)
		c.parts = nil
	}
	c.Position = Position{Seq: c.head, Number: e.Number, Epoch: e.Epoch, Hash: c.hash}
	return e, true, nil
}

// entry makes the messages of the next entry. Only a commit may have a body that needs
// more than one.
func (c *chain) entry(epoch uint64, node string, kind Kind, body []byte) (messages [][]byte) {
	previous := c.hash
	for {
		e := Entry{Epoch: epoch, Number: c.Number + 1, Node: node, Previous: previous, Kind: kind, Body: body}
		if e.More = len(body) > maxBody; e.More {
			e.Body = body[:maxBody]
		}
		body = body[len(e.Body):]
		m := e.Append(make([]byte, 0, len(e.Body)+len(node)+64))
		messages = append(messages, m)
		if !e.More {
			return messages
		}
		previous = HashOf(m)
	}
}

package broker

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs/replica"
)

// Peers are the other members of a cluster, as replica.Member needs them. It has no lock.
//
// A copy of a tracker is sent in messages. Each has its number and a checksum, and is
// answered by the one who asked. A few may be unanswered at a time.
type Peers struct {
	server  *Server
	heard   chan []byte
	serving chan struct{}              // has a token while a copy is sent
	source  atomic.Pointer[SnapshotOf] // nil: there are no copies here
}

var _ replica.Peers = (*Peers)(nil)

// SnapshotOf calls f with a copy of a tracker; see [replica.Tracker].
type SnapshotOf func(f func(size int64, copy io.WriterTo) error) error

const (
	helloSubjects = "_JOBSTREAM_HELLO."
	copySubjects  = "_JOBSTREAM_COPY."
	indexSubjects = "_JOBSTREAM_INDEX."
	// removedSubject gets the names of nodes that ask whether they were removed.
	removedSubject = "_JOBSTREAM_REMOVED"

	maxHeard    = 256
	askRemoved  = time.Second     // for an answer, which only who was removed gets
	copyPart    = 512 << 10       // bytes of a message
	copyAhead   = 8               // messages that may be unanswered
	copySilence = 5 * time.Second // after which the other side counts as gone

	// Headers of the messages of a copy.
	partHeader  = "Part"  // its number, from 0
	sumHeader   = "Sum"   // CRC-32C of the body
	endHeader   = "End"   // of the last one, which has no body
	errorHeader = "Error" // why there is no copy
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newPeers(s *Server) *Peers {
	return &Peers{server: s, heard: make(chan []byte, maxHeard), serving: make(chan struct{}, 1)}
}

// open begins to listen.
func (p *Peers) open() error {
	own := p.server.o.Node
	_, err := p.server.nc.Subscribe(helloSubjects+"*", func(m *nats.Msg) {
		if strings.TrimPrefix(m.Subject, helloSubjects) == own {
			return
		}
		select {
		case p.heard <- m.Data:
		default:
		}
	})
	if err != nil {
		return err
	}
	_, err = p.server.nc.Subscribe(copySubjects+own, func(m *nats.Msg) {
		select {
		case p.serving <- struct{}{}:
			go func() {
				defer func() { <-p.serving }()
				p.send(m.Reply)
			}()
		default:
			p.fail(m.Reply, errors.New("another one gets a copy now"))
		}
	})
	return err
}

// Serve has copies of this member's tracker made by snapshot from now on.
func (p *Peers) Serve(snapshot SnapshotOf) { p.source.Store(&snapshot) }

// Answer answers the question of other members for the number of this one's last entry, if it
// leads, from now on; see [Peers.Index].
func (p *Peers) Answer(number func() (uint64, bool)) error {
	_, err := p.server.nc.Subscribe(indexSubjects+p.server.o.Node, func(m *nats.Msg) {
		var answer []byte
		if n, leads := number(); leads {
			answer = strconv.AppendUint(nil, n, 10)
		}
		_ = m.Respond(answer) // who asks has a deadline
	})
	return err
}

// Index is the number of the last entry of the member that leads.
func (p *Peers) Index(ctx context.Context, member string) (uint64, error) {
	m, err := p.server.nc.RequestWithContext(ctx, indexSubjects+member, nil)
	if err != nil {
		return 0, fmt.Errorf("no number from the node %s: %w", member, err)
	}
	n, err := strconv.ParseUint(string(m.Data), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the node %s does not lead", member)
	}
	return n, nil
}

// AnswerRemoved tells members that ask whether they were removed from the cluster.
func (p *Peers) AnswerRemoved(removed func(name string) bool) error {
	_, err := p.server.nc.Subscribe(removedSubject, func(m *nats.Msg) {
		if name := string(m.Data); name != p.server.o.Node && removed(name) {
			_ = m.Respond(nil) // who was not gets no answer, and whoever asks asks again
		}
	})
	return err
}

// Removed asks the other members for some time whether this one was removed.
func (p *Peers) Removed(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askRemoved)
	defer cancel()
	_, err := p.server.nc.RequestWithContext(ctx, removedSubject, []byte(p.server.o.Node))
	return err == nil
}

// Tell sends a greeting to all other members.
func (p *Peers) Tell(hello []byte) error {
	return p.server.nc.Publish(helloSubjects+p.server.o.Node, hello)
}

// Heard has the greetings of the others.
func (p *Peers) Heard() <-chan []byte { return p.heard }

// Fetch writes a copy of a member's tracker.
func (p *Peers) Fetch(ctx context.Context, member string, to io.Writer) error {
	if err := p.fetch(ctx, member, to); err != nil {
		return fmt.Errorf("no copy of the tracker of %s: %w", member, err)
	}
	return nil
}

func (p *Peers) fetch(ctx context.Context, member string, to io.Writer) error {
	inbox := p.server.nc.NewInbox()
	sub, err := p.server.nc.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only when the connection has ended
	if err := p.server.nc.PublishRequest(copySubjects+member, inbox, nil); err != nil {
		return err
	}
	for next := uint64(0); ; next++ {
		m, err := nextWithin(ctx, sub)
		if err != nil {
			return err
		}
		switch part, sum := number(m, partHeader), number(m, sumHeader); {
		case m.Header.Get(errorHeader) != "":
			return errors.New(m.Header.Get(errorHeader))
		case part != next || sum != uint64(crc32.Checksum(m.Data, castagnoli)):
			return fmt.Errorf("part %d is missing or broken", next)
		}
		if m.Header.Get(endHeader) != "" {
			return nil
		}
		if _, err := to.Write(m.Data); err != nil {
			return err
		}
		if err := m.Respond(nil); err != nil {
			return err
		}
	}
}

// nextWithin waits for a message of the other side, which may not be silent for long.
func nextWithin(ctx context.Context, sub *nats.Subscription) (*nats.Msg, error) {
	short, cancel := context.WithTimeout(ctx, copySilence)
	defer cancel()
	m, err := sub.NextMsgWithContext(short)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, errors.New("it is not there")
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return nil, fmt.Errorf("it says nothing for %v", copySilence)
	}
	return m, err
}

// number is the number in a header; the largest one if there is none.
func number(m *nats.Msg, header string) uint64 {
	n, err := strconv.ParseUint(m.Header.Get(header), 10, 64)
	if err != nil {
		return ^uint64(0)
	}
	return n
}

// send sends a copy to a member that asks for it.
func (p *Peers) send(to string) {
	source := p.source.Load()
	if source == nil {
		p.fail(to, errors.New("it has none yet"))
		return
	}
	err := (*source)(func(_ int64, tracker io.WriterTo) error {
		s, err := p.newSender(to)
		if err != nil {
			return err
		}
		defer s.close()
		if _, err := tracker.WriteTo(s); err != nil {
			return err
		}
		return s.end()
	})
	if err != nil {
		p.fail(to, err)
		p.server.log.Warn("a member got no copy of this tracker", "error", err)
	}
}

func (p *Peers) fail(to string, err error) {
	m := nats.NewMsg(to)
	m.Header.Set(errorHeader, err.Error())
	_ = p.server.nc.PublishMsg(m) // the other side notices silence
}

// sender is the writer of a copy. It belongs to one goroutine.
type sender struct {
	nc       *nats.Conn
	to       string
	answers  *nats.Subscription
	part     []byte // not sent yet
	next     uint64 // number of the next message
	answered uint64 // messages
}

func (p *Peers) newSender(to string) (*sender, error) {
	answers, err := p.server.nc.SubscribeSync(p.server.nc.NewInbox())
	if err != nil {
		return nil, err
	}
	return &sender{nc: p.server.nc, to: to, answers: answers, part: make([]byte, 0, copyPart)}, nil
}

func (s *sender) close() { _ = s.answers.Unsubscribe() } // it fails only when the connection has ended

// Write sends what fills a message, and keeps the rest.
func (s *sender) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		room := min(copyPart-len(s.part), len(b))
		s.part = append(s.part, b[:room]...)
		b = b[room:]
		if len(s.part) == copyPart {
			if err := s.flush(false); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// end sends the rest, and that it was the last.
func (s *sender) end() error {
	if len(s.part) > 0 {
		if err := s.flush(false); err != nil {
			return err
		}
	}
	if err := s.await(0); err != nil {
		return err
	}
	return s.flush(true)
}

// flush sends a message.
func (s *sender) flush(end bool) error {
	if err := s.await(copyAhead - 1); err != nil {
		return err
	}
	m := nats.NewMsg(s.to)
	m.Reply, m.Data = s.answers.Subject, s.part
	m.Header.Set(partHeader, strconv.FormatUint(s.next, 10))
	m.Header.Set(sumHeader, strconv.FormatUint(uint64(crc32.Checksum(s.part, castagnoli)), 10))
	if end {
		m.Header.Set(endHeader, "true")
	}
	s.next++
	err := s.nc.PublishMsg(m) // it copies the body
	s.part = s.part[:0]
	return err
}

// await waits until no more messages than most are unanswered.
func (s *sender) await(most uint64) error {
	for s.next-s.answered > most {
		if _, err := nextWithin(context.Background(), s.answers); err != nil {
			return fmt.Errorf("the other member: %w", err)
		}
		s.answered++
	}
	return nil
}

package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Connections between members go over the messages of the cluster, because the members need
// not reach each other in any other way. [Peers.Dial] makes one, [Peers.Listen] gets it.
//
// The first byte of a message says what it is. Bytes of the connection have their offset
// before them, so a lost message is noticed. The receiver says how many bytes it has read;
// the sender may be a window ahead of that. A side without anything to say pings.
const (
	dialSubjects = "_JOBSTREAM_DIAL."

	frameOpen  = 'o' // the subject of the side that was dialed
	frameData  = 'd' // offset, bytes
	frameEnd   = 'e' // offset: no more bytes come
	frameRead  = 'r' // how many bytes were read
	framePing  = 'p'
	frameClose = 'c' // why; the connection is over

	frameBytes  = 64 << 10
	window      = 1 << 20
	backlog     = 256 // connections that nobody has accepted yet
	pingEvery   = time.Second
	pingSilence = 5 * time.Second // after which the other side counts as gone
)

// peerAddr is the name of a member.
type peerAddr string

func (peerAddr) Network() string  { return "cluster" }
func (a peerAddr) String() string { return string(a) }

// Dial connects to a member that listens. The error is [ErrNobody] if there is none. The
// connection is not encrypted by itself; it also has the method CloseWrite.
func (p *Peers) Dial(ctx context.Context, member string) (net.Conn, error) {
	nc := p.server.nc
	c := newConn(nc, peerAddr(p.server.o.Node), peerAddr(member))
	if err := c.receive(nc.NewInbox()); err != nil {
		return nil, err
	}
	if err := nc.PublishRequest(dialSubjects+member, c.inbox.Subject, []byte(p.server.o.Node)); err != nil {
		c.fail(err)
		return nil, err
	}
	if err := c.opened(ctx); err != nil {
		c.fail(err)
		return nil, fmt.Errorf("cannot connect to the node %s: %w", member, err)
	}
	go c.ping()
	return c, nil
}

// Listen accepts connections of the other members, and of this one.
func (p *Peers) Listen() (net.Listener, error) {
	l := &peerListener{at: peerAddr(p.server.o.Node), came: make(chan *conn, backlog), closed: make(chan struct{})}
	sub, err := p.server.nc.Subscribe(dialSubjects+p.server.o.Node, func(m *nats.Msg) { l.dialed(p.server.nc, m) })
	if err != nil {
		return nil, err
	}
	l.sub = sub
	return l, p.server.nc.FlushTimeout(ackTimeout)
}

// peerListener is that of [Peers.Listen].
type peerListener struct {
	at     peerAddr
	sub    *nats.Subscription
	came   chan *conn
	closed chan struct{}
	once   sync.Once
}

func (l *peerListener) dialed(nc *nats.Conn, m *nats.Msg) {
	c := newConn(nc, l.at, peerAddr(m.Data))
	c.to = m.Reply
	if err := c.receive(nc.NewInbox()); err != nil {
		return
	}
	c.send(append([]byte{frameOpen}, c.inbox.Subject...))
	select {
	case l.came <- c:
		go c.ping()
	default:
		_ = c.Close() // it says so to the other side
	}
}

// Accept waits for the next connection.
func (l *peerListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.came:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the listening. Connections stay open.
func (l *peerListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	_ = l.sub.Unsubscribe() // it fails only when the connection has ended
	return nil
}

// Addr is the name of this member.
func (l *peerListener) Addr() net.Addr { return l.at }

// conn is one side of a connection.
type conn struct {
	nc         *nats.Conn
	local, far peerAddr
	inbox      *nats.Subscription
	over       chan struct{} // closed with err set

	mu       sync.Mutex
	changed  chan struct{} // closed, and made anew, when anything below changes
	to       string        // the subject of the other side; "" = not known yet
	in       []byte        // received and not read
	received uint64        // bytes, all together
	reported uint64        // how many of them the other side knows to be read
	ended    bool          // no more come
	sent     uint64
	allowed  uint64 // that may be sent, all together
	shut     bool   // no more are sent
	heard    time.Time
	err      error // why the connection is over
	readBy   time.Time
	writeBy  time.Time

	writing sync.Mutex // keeps the parts of a Write together
}

var _ net.Conn = (*conn)(nil)

func newConn(nc *nats.Conn, local, far peerAddr) *conn {
	return &conn{nc: nc, local: local, far: far, over: make(chan struct{}), changed: make(chan struct{}), allowed: window, heard: time.Now()}
}

// receive begins to receive.
func (c *conn) receive(inbox string) (err error) {
	c.mu.Lock() // a message may come before the subscription is known
	defer c.mu.Unlock()
	c.inbox, err = c.nc.Subscribe(inbox, c.frame)
	return err
}

// change wakes all who wait for a change. c.mu is locked.
func (c *conn) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// frame gets a message of the other side.
func (c *conn) frame(m *nats.Msg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.change()
	c.heard = time.Now()
	if len(m.Data) == 0 {
		if m.Header.Get("Status") != "" {
			c.failLocked(ErrNobody)
		}
		return
	}
	kind, rest := m.Data[0], m.Data[1:]
	switch kind {
	case frameOpen:
		c.to = string(rest)
		return
	case framePing:
		return
	case frameClose:
		if c.ended && len(c.in) == 0 && c.shut {
			c.failLocked(io.EOF)
			return
		}
		c.failLocked(fmt.Errorf("the node %s has closed the connection", c.far))
		return
	}
	if len(rest) < 8 {
		c.failLocked(errors.New("a message of the connection is broken"))
		return
	}
	n, body := binary.BigEndian.Uint64(rest), rest[8:]
	switch {
	case kind == frameRead:
		c.allowed = max(c.allowed, n+window)
	case n != c.received || c.ended:
		c.failLocked(errors.New("a message of the connection is missing"))
	case kind == frameEnd:
		c.ended = true
	case len(c.in)+len(body) > window:
		c.failLocked(errors.New("the other side sends more than it may"))
	case kind == frameData:
		c.in = append(c.in, body...)
		c.received += uint64(len(body))
	}
}

// send sends a message. A lost one is noticed by the other side.
func (c *conn) send(frame []byte) { _ = c.nc.PublishRequest(c.to, c.inbox.Subject, frame) }

func numbered(kind byte, n uint64, body []byte) []byte {
	b := make([]byte, 0, 9+len(body))
	return append(binary.BigEndian.AppendUint64(append(b, kind), n), body...)
}

// fail ends the connection, if it has not ended.
func (c *conn) fail(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(why)
	c.change()
}

func (c *conn) failLocked(why error) {
	if c.err != nil {
		return
	}
	c.err = why
	close(c.over)
	if c.inbox != nil {
		_ = c.inbox.Unsubscribe() // it fails only when the connection has ended
	}
}

// ping tells the other side all the time that this one is there, and ends the connection
// when the other one is silent.
func (c *conn) ping() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.over:
			return
		case <-tick.C:
		}
		c.mu.Lock()
		silent := time.Since(c.heard)
		c.mu.Unlock()
		if silent > pingSilence {
			c.fail(fmt.Errorf("the node %s says nothing for %v", c.far, pingSilence))
			return
		}
		c.send([]byte{framePing})
	}
}

// opened waits until the other side is known.
func (c *conn) opened(ctx context.Context) error {
	for {
		c.mu.Lock()
		known, err, changed := c.to != "", c.err, c.changed
		c.mu.Unlock()
		if known {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// wait waits for a change, or for a moment; zero is none. c.mu is locked before and after.
func (c *conn) wait(by time.Time) error {
	var late <-chan time.Time
	if !by.IsZero() {
		left := time.Until(by)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		late = timer.C
	}
	changed := c.changed
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-late:
		return os.ErrDeadlineExceeded
	}
}

// Read reads what has come. What came before an end of the connection is read first.
func (c *conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.err != nil && errors.Is(c.err, net.ErrClosed):
			return 0, c.err
		case !c.readBy.IsZero() && !time.Now().Before(c.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case len(c.in) > 0:
			n := copy(b, c.in)
			if c.in = c.in[n:]; len(c.in) == 0 {
				c.in = nil
			}
			if read := c.received - uint64(len(c.in)); read-c.reported >= window/4 && c.err == nil {
				c.reported = read
				c.send(numbered(frameRead, read, nil))
			}
			return n, nil
		case c.ended:
			return 0, io.EOF
		case c.err != nil:
			return 0, c.err
		}
		if err := c.wait(c.readBy); err != nil {
			return 0, err
		}
	}
}

// Write sends b, and waits while the other side does not read.
func (c *conn) Write(b []byte) (n int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.err != nil:
			return n, c.err
		case c.shut:
			return n, net.ErrClosed
		case !c.writeBy.IsZero() && !time.Now().Before(c.writeBy):
			return n, os.ErrDeadlineExceeded
		case len(b) == 0:
			return n, nil
		}
		if room := int(min(c.allowed-c.sent, frameBytes)); room > 0 { //nolint:gosec // bounded
			part := b[:min(room, len(b))]
			if err := c.nc.PublishRequest(c.to, c.inbox.Subject, numbered(frameData, c.sent, part)); err != nil {
				c.failLocked(err)
				return n, err
			}
			c.sent += uint64(len(part))
			n, b = n+len(part), b[len(part):]
			continue
		}
		if err := c.wait(c.writeBy); err != nil {
			return n, err
		}
	}
}

// CloseWrite says that no more bytes are sent. The other side can still send.
func (c *conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if !c.shut {
		c.shut = true
		c.send(numbered(frameEnd, c.sent, nil))
		c.change()
	}
	return nil
}

// Close ends the connection. The other side can still read what was sent before.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		if !c.shut {
			c.send(numbered(frameEnd, c.sent, nil))
		}
		c.send([]byte{frameClose})
	}
	c.failLocked(net.ErrClosed)
	c.err = net.ErrClosed // also if it had ended before
	c.change()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.far }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.readBy, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeBy, t) }

func (c *conn) setDeadline(by *time.Time, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	*by = t
	c.change()
	return nil
}

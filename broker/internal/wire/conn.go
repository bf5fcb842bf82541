// Package wire is a small NATS client for messages by the hundred thousand. It appends
// publications to one buffer that a goroutine writes out. It hands arriving messages to a
// function without allocating anything.
//
// It knows the protocol as far as a connection to one server needs it, mostly one in the
// same process: no TLS, no cluster, no queue groups. Rare calls are better made with
// nats.go.
//
// Start reading at [Conn]. parse.go reads the server's operations, msg.go the parts of a
// message.
package wire

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"
)

// Options say how to connect. Only Dial is required.
type Options struct {
	Dial func() (net.Conn, error)
	Name string       // what the server calls the connection
	Log  *slog.Logger // slog.Default() if nil

	// Limit bounds the bytes that wait to be written: beyond it, publishers wait. 0 is no
	// limit. There must be none where handlers publish, since the server may wait for a
	// handler to return before it reads on.
	Limit int
	// Gone is called when a connection was lost, before there is another one.
	Gone func()

	// The credentials, if the server wants any: a name with a password, a token, or a
	// public nkey with a function that signs the server's nonce.
	User, Password string
	Token          string
	Nkey           string
	Sign           func(nonce []byte) ([]byte, error)
}

// Conn is a connection to a server. When it is lost, another one is made with the same
// subscriptions. Messages that waited to be written, or were under way, are lost. mu guards
// everything that changes; handlers are called without it.
type Conn struct {
	o Options

	mu     sync.Mutex
	room   sync.Cond
	buf    []byte // bytes to be written
	conn   net.Conn
	most   int // bytes of the largest message that the server allows
	closed bool
	subs   []subscription
	pongs  []chan struct{}

	kick chan struct{} // there is something to write
	done chan struct{} // run has returned
}

type subscription struct {
	subject string
	handle  func(*Msg)
	gone    bool
}

// Errors of a connection.
var (
	ErrClosed = errors.New("the connection to the broker is closed")
	ErrDown   = errors.New("the connection to the broker is down; it is being made again")
)

const (
	spareBuffer = 4 << 20 // largest write buffer that is kept for reuse
	patience    = 10 * time.Second
	retryEvery  = time.Second / 10
)

// Open connects and returns when messages can be published.
func Open(o Options) (*Conn, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	c := &Conn{o: o, kick: make(chan struct{}, 1), done: make(chan struct{})}
	c.room.L = &c.mu
	p, err := c.connect()
	if err != nil {
		return nil, err
	}
	go c.run(p)
	return c, nil
}

// connect makes a connection and queues the subscriptions.
func (c *Conn) connect() (*parser, error) {
	conn, err := c.o.Dial()
	if err != nil {
		return nil, err
	}
	p := newParser(conn)
	most, err := c.greet(conn, p)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.Join(ErrClosed, conn.Close())
	}
	c.conn, c.most = conn, most
	c.buf = c.buf[:0]
	for sid, s := range c.subs {
		if !s.gone {
			c.buf = appendSub(c.buf, s.subject, sid)
		}
	}
	c.wake()
	return p, nil
}

// greet answers the server's greeting and waits until the server accepts the answer. most is
// the size of the largest message that it allows.
func (c *Conn) greet(conn net.Conn, p *parser) (most int, err error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	what, err := p.next()
	if err != nil {
		return 0, err
	}
	var server serverInfo
	if what != opInfo || json.Unmarshal(p.text, &server) != nil {
		return 0, fmt.Errorf("the server's greeting is %q", p.text)
	}
	if server.TLSRequired {
		return 0, errors.New("the server wants TLS, which this connection does not have")
	}
	hello, err := c.hello(server.Nonce)
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s\r\nPING\r\n", hello); err != nil {
		return 0, err
	}
	for {
		switch what, err := p.next(); {
		case err != nil:
			return 0, err
		case what == opError:
			return 0, fmt.Errorf("the server refused the connection: %s", p.text)
		case what == opPong:
			return server.MaxPayload, conn.SetDeadline(time.Time{})
		}
	}
}

type serverInfo struct {
	Nonce       string `json:"nonce"`
	MaxPayload  int    `json:"max_payload"`
	TLSRequired bool   `json:"tls_required"`
}

type clientInfo struct {
	Verbose      bool   `json:"verbose"`
	Pedantic     bool   `json:"pedantic"`
	Protocol     int    `json:"protocol"`
	Headers      bool   `json:"headers"`
	NoResponders bool   `json:"no_responders"`
	Language     string `json:"lang"`
	Version      string `json:"version"`
	Name         string `json:"name,omitempty"`
	User         string `json:"user,omitempty"`
	Password     string `json:"pass,omitempty"`
	Token        string `json:"auth_token,omitempty"`
	Nkey         string `json:"nkey,omitempty"`
	Signature    string `json:"sig,omitempty"`
}

func (c *Conn) hello(nonce string) ([]byte, error) {
	info := clientInfo{
		Protocol: 1, Headers: true, NoResponders: true, Language: "go", Version: "1", Name: c.o.Name,
		User: c.o.User, Password: c.o.Password, Token: c.o.Token, Nkey: c.o.Nkey,
	}
	if c.o.Sign != nil && nonce != "" {
		sig, err := c.o.Sign([]byte(nonce))
		if err != nil {
			return nil, fmt.Errorf("cannot sign the server's nonce: %w", err)
		}
		info.Signature = base64.RawURLEncoding.EncodeToString(sig)
	}
	return json.Marshal(info)
}

// run reads until the connection is closed, and makes another one when it is lost.
func (c *Conn) run(p *parser) {
	defer close(c.done)
	for {
		err := c.serve(p)
		if c.lost() {
			return
		}
		if c.o.Gone != nil {
			c.o.Gone()
		}
		c.o.Log.Error("lost a connection to the broker; connecting again", "connection", c.o.Name, "error", err)
		for p = nil; p == nil; {
			if p, err = c.connect(); err == nil {
				continue
			}
			if c.isClosed() {
				return
			}
			c.o.Log.Debug("cannot connect to the broker; trying again", "connection", c.o.Name, "error", err)
			pause(retryEvery)
		}
	}
}

// serve writes and reads until the connection fails.
func (c *Conn) serve(p *parser) error {
	stop, written := make(chan struct{}), make(chan struct{})
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	go func() {
		defer close(written)
		c.write(conn, stop)
	}()
	err := c.read(p)
	_ = conn.Close()
	close(stop)
	<-written
	return err
}

// lost forgets the connection and reports whether it was closed.
func (c *Conn) lost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
	c.buf = c.buf[:0]
	for _, pong := range c.pongs {
		close(pong)
	}
	c.pongs = nil
	c.room.Broadcast()
	return c.closed
}

func (c *Conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func pause(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

// write writes the buffer out, again and again. Meanwhile another one fills.
func (c *Conn) write(conn net.Conn, stop <-chan struct{}) {
	var out []byte
	for {
		select {
		case <-c.kick:
		case <-stop:
			return
		}
		c.mu.Lock()
		out, c.buf = c.buf, out[:0]
		c.room.Broadcast()
		c.mu.Unlock()
		if len(out) == 0 {
			continue // a pipe waits for a reader even with nothing to write
		}
		if _, err := conn.Write(out); err != nil {
			_ = conn.Close() // so the reader fails, and connects again
		}
		if cap(out) > spareBuffer {
			out = nil
		}
	}
}

// wake wakes the writer up, since there is something in the buffer.
func (c *Conn) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// begin locks the connection and returns its buffer to append operations to. It waits until
// the buffer has no more than limit bytes; 0 is no limit. end must follow, unless there is
// an error.
func (c *Conn) begin(limit int) ([]byte, error) {
	c.mu.Lock()
	for limit > 0 && len(c.buf) > limit && c.conn != nil {
		c.room.Wait()
	}
	switch {
	case c.closed:
		c.mu.Unlock()
		return nil, ErrClosed
	case c.conn == nil:
		c.mu.Unlock()
		return nil, ErrDown
	}
	return c.buf, nil
}

func (c *Conn) end(b []byte) {
	c.buf = b
	c.mu.Unlock()
	c.wake()
}

// Publish sends one message and returns when it is on its way. header is nil or a whole
// header block. It keeps none of its arguments.
func Publish[S, R string | []byte](c *Conn, subject S, reply R, header, body []byte) error {
	b, err := c.begin(c.o.Limit)
	if err != nil {
		return err
	}
	if size := len(header) + len(body); c.most > 0 && size > c.most {
		c.mu.Unlock()
		return fmt.Errorf("the message has %d bytes; the server allows %d", size, c.most)
	}
	c.end(appendPub(b, subject, reply, header, body))
	return nil
}

func appendPub[S, R string | []byte](b []byte, subject S, reply R, header, body []byte) []byte {
	if len(header) > 0 {
		b = append(b, 'H')
	}
	b = append(b, "PUB "...)
	b = append(b, subject...)
	b = append(b, ' ')
	if len(reply) > 0 {
		b = append(b, reply...)
		b = append(b, ' ')
	}
	if len(header) > 0 {
		b = strconv.AppendInt(b, int64(len(header)), 10)
		b = append(b, ' ')
	}
	b = strconv.AppendInt(b, int64(len(header)+len(body)), 10)
	b = append(b, '\r', '\n')
	b = append(b, header...)
	b = append(b, body...)
	return append(b, '\r', '\n')
}

func appendSub(b []byte, subject string, sid int) []byte {
	return fmt.Appendf(b, "SUB %s %d\r\n", subject, sid)
}

// Subscribe calls handle for every message on subject. handle runs on the goroutine that
// reads, so it must not block. The message is valid only until handle returns. The result is
// for Unsubscribe; it is -1 with an error.
func (c *Conn) Subscribe(subject string, handle func(*Msg)) (int, error) {
	b, err := c.begin(0)
	if err != nil {
		return -1, err
	}
	sid := len(c.subs)
	c.subs = append(c.subs, subscription{subject: subject, handle: handle})
	c.end(appendSub(b, subject, sid))
	return sid, nil
}

// Unsubscribe ends a subscription. Messages on their way already still reach the handler.
func (c *Conn) Unsubscribe(sid int) error {
	c.mu.Lock()
	c.subs[sid].gone = true // so a connection that is made again does not have it
	c.mu.Unlock()
	b, err := c.begin(0)
	if err != nil {
		if errors.Is(err, ErrDown) {
			return nil
		}
		return err
	}
	c.end(fmt.Appendf(b, "UNSUB %d\r\n", sid))
	return nil
}

// Flush returns when the server has read everything published before, and everything that it
// had sent by then has been handled.
func (c *Conn) Flush(ctx context.Context) error {
	b, err := c.begin(0)
	if err != nil {
		return err
	}
	pong := make(chan struct{}, 1)
	c.pongs = append(c.pongs, pong)
	c.end(append(b, "PING\r\n"...))
	select {
	case _, ok := <-pong:
		if !ok {
			return ErrDown
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the broker does not answer: %w", context.Cause(ctx))
	}
}

// Close ends the connection for good. Messages that were not flushed may be lost.
func (c *Conn) Close() {
	c.mu.Lock()
	c.closed = true
	conn := c.conn
	c.room.Broadcast()
	c.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // that ends run
	}
	<-c.done
}

// read handles the server's operations until the connection fails.
func (c *Conn) read(p *parser) error {
	for {
		what, err := p.next()
		if err != nil {
			return err
		}
		switch what {
		case opMessage:
			if handle := c.handler(p.sid); handle != nil {
				handle(&p.msg)
			}
		case opPing:
			c.pong()
		case opPong:
			c.ponged()
		case opError:
			c.o.Log.Error("the broker refused something", "connection", c.o.Name, "error", string(p.text))
		case opInfo, opOther:
		}
	}
}

func (c *Conn) handler(sid uint64) func(*Msg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sid < uint64(len(c.subs)) {
		return c.subs[sid].handle
	}
	return nil
}

func (c *Conn) pong() {
	c.mu.Lock()
	c.buf = append(c.buf, "PONG\r\n"...)
	c.mu.Unlock()
	c.wake()
}

func (c *Conn) ponged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pongs) > 0 {
		c.pongs[0] <- struct{}{}
		c.pongs = append(c.pongs[:0], c.pongs[1:]...)
	}
}

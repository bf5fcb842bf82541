package broker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"
)

// A link is a minimal NATS client for the messages that come by the hundred
// thousand: it appends what is published to one buffer that a single goroutine
// writes out, and hands what arrives to a function without allocating anything.
// Everything rarer goes through nats.go.
type link struct {
	name  string
	dial  func() (net.Conn, error)
	log   *slog.Logger
	limit int    // bytes waiting to be written from which on begin waits; 0 = never
	gone  func() // called when a connection was lost; may be nil

	mu     sync.Mutex
	room   *sync.Cond
	buf    []byte    // to be written
	spare  []byte    // the buffer that was written last
	busy   bool      // a buffer is being written
	wrote  time.Time // when a buffer was written last
	conn   net.Conn
	closed bool
	subs   []subscription
	pongs  []chan struct{}

	kick chan struct{} // there is something to write
	done chan struct{} // run has returned
}

type subscription struct {
	subject string
	handle  func(*frame)
	gone    bool
}

// frame is one message that came in. All of it is valid only until the handler
// returns. Handlers run on the link's reading goroutine and must not block.
type frame struct {
	subject, reply, header, body []byte
}

var (
	errLinkClosed = errors.New("the connection to the broker is closed")
	errLinkDown   = errors.New("the connection to the broker is down; it is being made again")
)

const (
	readBuffer  = 128 << 10
	spareBuffer = 4 << 20 // largest write buffer that is kept for reuse

	quiet = time.Millisecond / 2 // with nothing written for as long, a publisher writes itself
)

// openLink connects and returns when messages can be published.
func openLink(name string, limit int, log *slog.Logger, dial func() (net.Conn, error), gone func()) (*link, error) {
	l := &link{
		name: name, dial: dial, log: log, limit: limit, gone: gone,
		kick: make(chan struct{}, 1), done: make(chan struct{}),
	}
	l.room = sync.NewCond(&l.mu)
	r, err := l.connect()
	if err != nil {
		return nil, err
	}
	go l.run(r)
	return l, nil
}

// connect makes a connection and queues the greeting and the subscriptions.
func (l *link) connect() (*bufio.Reader, error) {
	conn, err := l.dial()
	if err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, readBuffer)
	info, err := r.ReadSlice('\n')
	if err == nil && !bytes.HasPrefix(info, []byte("INFO ")) {
		err = fmt.Errorf("the server's greeting is %q", info)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.Join(errLinkClosed, conn.Close())
	}
	l.conn = conn
	l.buf = fmt.Appendf(l.buf[:0], `CONNECT {"verbose":false,"pedantic":false,"protocol":1,"headers":true,"no_responders":true,"lang":"go","version":"1","name":%q}`+"\r\n", l.name)
	for i, s := range l.subs {
		if !s.gone {
			l.buf = appendSub(l.buf, s.subject, i)
		}
	}
	l.wake()
	return r, nil
}

// run reads until the link is closed, and connects again when the connection is
// lost; what was waiting to be written is lost with it.
func (l *link) run(r *bufio.Reader) {
	defer close(l.done)
	for {
		stop := make(chan struct{})
		written := make(chan struct{})
		l.mu.Lock()
		conn := l.conn
		l.mu.Unlock()
		go func() {
			defer close(written)
			l.write(conn, stop)
		}()
		err := l.read(r)
		_ = conn.Close() // it is of no use any more
		close(stop)
		<-written
		if l.lost() {
			return
		}
		if l.gone != nil {
			l.gone()
		}
		l.log.Error("lost a connection to the broker; connecting again", "connection", l.name, "error", err)
		for r = nil; r == nil; {
			if r, err = l.connect(); err != nil {
				if l.isClosed() {
					return
				}
				pause(time.Second / 10)
			}
		}
	}
}

// lost forgets the connection and reports whether the link is closed.
func (l *link) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = nil
	l.buf = l.buf[:0]
	for _, c := range l.pongs {
		close(c)
	}
	l.pongs = nil
	l.room.Broadcast()
	return l.closed
}

func (l *link) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func pause(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

func (l *link) write(conn net.Conn, stop <-chan struct{}) {
	for {
		select {
		case <-l.kick:
		case <-stop:
			return
		}
		l.mu.Lock()
		if l.conn == conn {
			l.writeOut()
		}
		l.mu.Unlock()
	}
}

// writeOut writes the buffer, unless somebody is doing that: they wake the writer
// when they are done. l.mu is held, and left meanwhile.
func (l *link) writeOut() {
	out, conn := l.buf, l.conn
	if len(out) == 0 || l.busy || conn == nil {
		return
	}
	l.buf, l.spare = l.spare[:0], nil
	l.busy = true
	l.mu.Unlock()
	_, err := conn.Write(out)
	if err != nil {
		_ = conn.Close() // the reader notices and connects again
	}
	now := time.Now()
	l.mu.Lock()
	l.busy, l.wrote = false, now
	if cap(out) <= spareBuffer {
		l.spare = out[:0]
	}
	if len(l.buf) > 0 {
		l.wake()
	}
	l.room.Broadcast()
}

// wake tells the writer that there is something in the buffer.
func (l *link) wake() { signal(l.kick) }

// signal leaves a token in a channel that has room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// signalled takes the token out, and says whether there was one.
func signalled(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// begin locks the link and returns its buffer to append protocol to; end must
// follow unless there is an error.
func (l *link) begin() ([]byte, error) {
	l.mu.Lock()
	for l.limit > 0 && len(l.buf) > l.limit && l.conn != nil {
		l.room.Wait()
	}
	switch {
	case l.closed:
		l.mu.Unlock()
		return nil, errLinkClosed
	case l.conn == nil:
		l.mu.Unlock()
		return nil, errLinkDown
	}
	return l.buf, nil
}

func (l *link) end(b []byte) {
	l.buf = b
	l.mu.Unlock()
	l.wake()
}

// endNow is end for callers that may wait until the server has read what they
// published: while little is published it goes out at once, without the way over
// the writer. While there is much, it is left to the writer, who then finds more
// to write at a time. A handler of this link must not use it: the server may be
// waiting for it to return.
func (l *link) endNow(b []byte) {
	if time.Since(l.wrote) < quiet {
		l.end(b)
		return
	}
	l.buf = b
	l.writeOut()
	l.mu.Unlock()
}

// publish sends one message. header is nil or a whole header block.
func (l *link) publish(subject, reply string, header, body []byte) error {
	b, err := l.begin()
	if err != nil {
		return err
	}
	l.end(appendPub(b, subject, reply, header, body))
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

// subscribe has handle called for every message on subject. The number it
// returns is for unsubscribe.
func (l *link) subscribe(subject string, handle func(*frame)) (int, error) {
	b, err := l.begin()
	if err != nil {
		return 0, err
	}
	sid := len(l.subs)
	l.subs = append(l.subs, subscription{subject: subject, handle: handle})
	l.end(appendSub(b, subject, sid))
	return sid, nil
}

// unsubscribe ends the server's interest at once; what is on the way already
// still reaches the handler.
func (l *link) unsubscribe(sid int) error {
	b, err := l.begin()
	if err != nil {
		return err
	}
	l.subs[sid].gone = true
	l.end(fmt.Appendf(b, "UNSUB %d\r\n", sid))
	return nil
}

// flush returns when the server has read all that was published before.
func (l *link) flush(ctx context.Context) error {
	b, err := l.begin()
	if err != nil {
		return err
	}
	pong := make(chan struct{}, 1)
	l.pongs = append(l.pongs, pong)
	l.end(append(b, "PING\r\n"...))
	select {
	case _, ok := <-pong:
		if !ok {
			return errLinkDown
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the broker does not answer: %w", context.Cause(ctx))
	}
}

// close ends the link; what was not flushed may be lost.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	conn := l.conn
	l.room.Broadcast()
	l.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // that ends run
	}
	<-l.done
}

// read dispatches what the server sends until the connection fails.
func (l *link) read(r *bufio.Reader) error {
	var f frame
	var args []byte
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		switch {
		case bytes.HasPrefix(line, []byte("MSG ")):
			args = append(args[:0], line[4:]...)
			err = l.message(r, &f, args, false)
		case bytes.HasPrefix(line, []byte("HMSG ")):
			args = append(args[:0], line[5:]...)
			err = l.message(r, &f, args, true)
		case bytes.HasPrefix(line, []byte("PING")):
			l.pong()
		case bytes.HasPrefix(line, []byte("PONG")):
			l.ponged()
		case bytes.HasPrefix(line, []byte("-ERR")):
			l.log.Error("the broker refused something", "connection", l.name, "error", string(bytes.TrimSpace(line[4:])))
		}
		if err != nil {
			return err
		}
	}
}

func (l *link) pong() {
	l.mu.Lock()
	l.buf = append(l.buf, "PONG\r\n"...)
	l.mu.Unlock()
	l.wake()
}

func (l *link) ponged() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pongs) > 0 {
		l.pongs[0] <- struct{}{}
		l.pongs = append(l.pongs[:0], l.pongs[1:]...)
	}
}

// message reads and hands over one message; args is its line:
// subject sid [reply] [header length] total length.
func (l *link) message(r *bufio.Reader, f *frame, args []byte, header bool) error {
	var token [5][]byte
	n := 0
	for rest := bytes.TrimRight(args, "\r\n"); len(rest) > 0 && n < len(token); n++ {
		i := bytes.IndexByte(rest, ' ')
		if i < 0 {
			i = len(rest)
		}
		token[n] = rest[:i]
		rest = rest[min(i+1, len(rest)):]
	}
	lengths := 1
	if header {
		lengths = 2
	}
	if n < 2+lengths {
		return fmt.Errorf("bad message line %q from the broker", args)
	}
	f.subject, f.reply = token[0], nil
	if n > 2+lengths {
		f.reply = token[2]
	}
	total := int(parseUint(token[n-1]))
	split := 0
	if header {
		split = int(parseUint(token[n-2]))
	}
	if split > total {
		return fmt.Errorf("bad message line %q from the broker", args)
	}
	handle := l.handler(int(parseUint(token[1])))
	if total+2 > readBuffer {
		data := make([]byte, total+2)
		if _, err := io.ReadFull(r, data); err != nil {
			return err
		}
		f.header, f.body = data[:split], data[split:total]
		handle(f)
		return nil
	}
	data, err := r.Peek(total + 2)
	if err != nil {
		return err
	}
	f.header, f.body = data[:split], data[split:total]
	handle(f)
	_, err = r.Discard(total + 2)
	return err
}

func (l *link) handler(sid int) func(*frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sid < len(l.subs) {
		return l.subs[sid].handle
	}
	return func(*frame) {}
}

// parseUint reads decimal digits; anything else gives 0.
func parseUint(b []byte) uint64 {
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + uint64(c-'0')
	}
	return n
}

// status is the code of a header block's first line, "NATS/1.0 408 Request
// Timeout"; 0 for ordinary messages.
func (f *frame) status() int {
	const prefix = "NATS/1.0 "
	if len(f.header) < len(prefix)+3 || string(f.header[:len(prefix)]) != prefix {
		return 0
	}
	return int(parseUint(f.header[len(prefix) : len(prefix)+3]))
}

// statusText is the first line of the header block, for logs.
func (f *frame) statusText() string {
	line, _, _ := bytes.Cut(f.header, []byte("\r\n"))
	return string(line)
}

// get returns a header's value, nil if there is none.
func (f *frame) get(name string) []byte {
	var found []byte
	eachHeader(f.header, func(key, value []byte) {
		if found == nil && equalFold(key, name) {
			found = value
		}
	})
	return found
}

// eachHeader calls fn for every line of a header block but the first.
func eachHeader(block []byte, fn func(key, value []byte)) {
	_, rest, _ := bytes.Cut(block, []byte("\r\n"))
	for len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		if key, value, ok := bytes.Cut(line, []byte(":")); ok {
			fn(bytes.TrimSpace(key), bytes.TrimSpace(value))
		}
	}
}

func equalFold(b []byte, name string) bool {
	return len(b) == len(name) && (string(b) == name || bytes.EqualFold(b, []byte(name)))
}

// ackInfo is what the reply subject of a delivery says.
type ackInfo struct {
	consumer []byte // its name; part of the subject
	seq      uint64 // in the stream
	delivery uint64 // the consumer's own count
	at       int64  // when it was stored, Unix nanoseconds
}

// parseAck reads $JS.ACK.<stream>.<consumer>.<tries>.<seq>.<delivery>.<at>.<pending>
// or the longer form with <domain>.<account> before the stream and perhaps a
// token at the end.
func parseAck(reply []byte) (a ackInfo, ok bool) {
	if !bytes.HasPrefix(reply, []byte("$JS.ACK.")) {
		return a, false
	}
	skip := 3 // tokens in front of the consumer
	switch dots := bytes.Count(reply, []byte(".")); {
	case dots == 8:
	case dots >= 10:
		skip = 5
	default:
		return a, false
	}
	for range skip {
		_, reply, _ = bytes.Cut(reply, []byte("."))
	}
	a.consumer, reply, _ = bytes.Cut(reply, []byte("."))
	_, reply, _ = bytes.Cut(reply, []byte(".")) // the number of tries
	var v [3]uint64
	for i := range v {
		var token []byte
		token, reply, _ = bytes.Cut(reply, []byte("."))
		v[i] = parseUint(token)
	}
	a.seq, a.delivery, a.at = v[0], v[1], int64(v[2])
	return a, a.seq > 0
}

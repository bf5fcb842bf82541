package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	"jobstream/jobs/access"
)

// http is end to end over REST, over real keep-alive connections on the loopback.
func (b *bench) http(ctx context.Context, dir string) error {
	return overREST(ctx, func(serve func(*node) (addr string)) error {
		return b.withNode(ctx, dir, b.options, func(n *node) (err error) {
			addr := serve(n)
			b.report.HTTP, err = b.endToEnd(ctx, n, b.c, phaseHTTP, func(ctx context.Context, c *Options) (int, error) {
				return n.post(ctx, c, addr, "")
			})
			return err
		})
	})
}

// httpToken is http with a token in each request, in turns with none in any, on one node.
func (b *bench) httpToken(ctx context.Context, dir string) error {
	return overREST(ctx, func(serve func(*node) (addr string)) error {
		o := b.options
		o.Token = access.NewToken()
		return b.withNode(ctx, dir, o, func(n *node) (err error) {
			addr := serve(n)
			posts := func(headers string) turns {
				return b.turnsBy(n, b.c, func(ctx context.Context, c *Options) (int, error) { return n.post(ctx, c, addr, headers) })
			}
			b.report.HTTPToken, err = takeTurns(ctx, phaseHTTPToken, posts("Authorization: Bearer "+o.Token+"\r\n"), posts(""))
			return err
		})
	})
}

// overREST listens on the loopback while f runs. A node that f gives to serve answers
// there; f must end it.
func overREST(ctx context.Context, f func(serve func(*node) (addr string)) error) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("cannot listen on the loopback: %w", err)
	}
	defer func() { _ = l.Close() }() // the node closes it, unless it did not start
	var serving sync.WaitGroup
	var served error
	err = f(func(n *node) string {
		serving.Go(func() { served = n.Serve(l) })
		return l.Addr().String()
	})
	serving.Wait()
	return errors.Join(err, served)
}

// post submits over keep-alive connections, one request at a time on each. The clients
// share the machine with the server, so they do no more than they must. The headers are
// further ones, each with its line's end.
func (n *node) post(ctx context.Context, c *Options, addr, headers string) (accepted int, err error) {
	var requests [][]byte
	for _, l := range c.lanes() {
		body := fmt.Sprintf(`{"type":"%s","priority":%d,"payload":%s}`, l.Type, l.Priority, makePayload(c.Payload, 0))
		requests = append(requests, fmt.Appendf(nil,
			"POST /jobs HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s", addr, len(body), headers, body))
	}
	var all connections
	defer all.close()
	defer context.AfterFunc(ctx, all.close)() // so that no read waits for ever
	return n.spread(ctx, c, c.Connections, func() (func(i int) error, error) {
		conn, err := all.dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		in := bufio.NewReader(conn)
		return func(i int) error {
			if _, err := conn.Write(requests[i%len(requests)]); err != nil {
				return err
			}
			return readAccepted(in)
		}, nil
	})
}

// connections are connections that end together.
type connections struct {
	mu     sync.Mutex
	all    []net.Conn
	closed bool
}

func (c *connections) dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	c.all = append(c.all, conn)
	return conn, nil
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, conn := range c.all {
		_ = conn.Close() // everything has been read, or does not matter any more
	}
	c.all = nil
}

// readAccepted reads one answer, which must be a 202.
func readAccepted(in *bufio.Reader) error {
	length, err := readHead(in, "202")
	if err == nil {
		_, err = in.Discard(length)
	}
	return err
}

// readHead reads an answer up to its body, and returns the length of that. An answer with
// another status is an error.
func readHead(in *bufio.Reader, status string) (length int, err error) {
	var first string
	length = -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, fmt.Errorf("reading an answer: %w", err)
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		if first == "" {
			if first = string(line); len(line) > len(protocol) && bytes.HasPrefix(line[len(protocol):], []byte(status)) {
				first = status
			}
			continue
		}
		const name = "content-length:"
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(name):]))); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, fmt.Errorf("an answer has no Content-Length: %s", first)
	}
	if first == status {
		return length, nil
	}
	body, err := io.ReadAll(io.LimitReader(in, int64(min(length, 1<<12))))
	return 0, errors.Join(fmt.Errorf("the answer is %s: %s", first, body), err)
}

const protocol = "HTTP/1.1 "

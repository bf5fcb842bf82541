package httpapi

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// A connection beyond the bound gets an answer before it is closed, so that its client
// can see the reason. At most so many get one at a time, for so long; others are just
// closed.
const (
	maxTurnedAway = 32
	turnedAwayFor = time.Second
)

// boundedAgain is the time between two log lines about refused connections.
const boundedAgain = 10 * time.Second

// bounded is a listener with a bound on open connections. It returns the connections of
// the listener behind it as they are. A wrapper around them would force net/http to
// copy files that it sends.
type bounded struct {
	net.Listener
	most   int
	tls    *tls.Config // of connections that are refused with an answer; nil = they are not encrypted
	log    *slog.Logger
	open   atomic.Int64
	turned chan struct{} // has a token for each that is being refused with an answer
	logged time.Time     // when a log line was written last
	since  int           // refused since then
}

func bound(l net.Listener, most int, secure *tls.Config, log *slog.Logger) *bounded {
	if most <= 0 {
		most = math.MaxInt
	}
	if secure != nil {
		secure = speaks(secure, "http/1.1")
	}
	return &bounded{Listener: l, most: most, tls: secure, log: log, turned: make(chan struct{}, maxTurnedAway)}
}

// Accept returns the next connection that there is room for.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if b.open.Add(1) <= int64(b.most) {
			return c, nil
		}
		b.left()
		b.refuse(c)
	}
}

// left makes room for another connection. It is called once one that Accept returned
// has been closed.
func (b *bounded) left() { b.open.Add(-1) }

// refuse closes a connection, with an answer if not too many are being answered.
// Accept is the only caller, so it needs no lock.
func (b *bounded) refuse(c net.Conn) {
	b.since++
	if now := time.Now(); now.Sub(b.logged) >= boundedAgain {
		b.log.Warn("too many connections; new ones are refused (server.max_connections)", "open", b.most, "refused", b.since)
		b.logged, b.since = now, 0
	}
	select {
	case b.turned <- struct{}{}:
		if b.tls != nil {
			c = tls.Server(c, b.tls)
		}
		go func() {
			defer func() { <-b.turned }()
			turnAway(c, b.most)
		}()
	default:
		_ = c.Close() // nothing was sent on it
	}
}

// turnAway answers any request on a connection with 503 and closes it. First it reads
// all that the client has sent: closing with unread bytes would reset the connection,
// and the client might lose the answer.
func turnAway(c net.Conn, most int) {
	defer func() { _ = c.Close() }() // nothing is waited for any more
	problem := &jobs.Error{
		Kind: jobs.Unavailable, RetryAfter: time.Second,
		Detail: fmt.Sprintf("%d connections are open already; try again later", most),
	}
	body := append(api.Problem(problem), '\n')
	err := c.SetDeadline(time.Now().Add(turnedAwayFor))
	if t, ok := c.(*tls.Conn); ok {
		// Right after a handshake, a client would take the answer for one to no request.
		_, _ = t.Read(make([]byte, 1)) // the write finds out what is wrong
	}
	_, werr := fmt.Fprintf(c, "HTTP/1.1 %d Service Unavailable\r\n%s: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nRetry-After: %s\r\nConnection: close\r\n\r\n%s",
		api.HTTPStatus(problem), requestIDHeader, uuid.NewString(), problemType[0], len(body), api.RetryAfterSeconds(problem), body)
	if t, ok := c.(interface{ CloseWrite() error }); ok && errors.Join(err, werr) == nil && t.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c, maxHeaderBytes)) // until the client has closed, too
	}
}

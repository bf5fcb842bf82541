package httpapi

import (
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

// Connections that are one too many get an answer before they are closed, so that
// whoever waits for one knows what it is: at most so many at a time, for so long.
// The others are just closed.
const (
	maxTurnedAway = 32
	turnedAwayFor = time.Second
)

// boundedAgain is how often the log is told that connections are refused.
const boundedAgain = 10 * time.Second

// bounded is a listener that keeps few enough connections open. The connections are
// those of the listener behind it: with one of our own around them, files could not be
// sent without being copied.
type bounded struct {
	net.Listener
	most   int
	log    *slog.Logger
	open   atomic.Int64
	turned chan struct{} // holds a token for each that is told so
	logged time.Time     // when the log was told last
	since  int           // refused since then
}

func bound(l net.Listener, most int, log *slog.Logger) *bounded {
	if most <= 0 {
		most = math.MaxInt
	}
	return &bounded{Listener: l, most: most, log: log, turned: make(chan struct{}, maxTurnedAway)}
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

// left makes room for another connection: one that Accept returned has been closed.
func (b *bounded) left() { b.open.Add(-1) }

// refuse closes a connection, after a word if there is time for it. Accept is the
// only caller, so nothing here is contended.
func (b *bounded) refuse(c net.Conn) {
	b.since++
	if now := time.Now(); now.Sub(b.logged) >= boundedAgain {
		b.log.Warn("too many connections; new ones are refused (server.max_connections)", "open", b.most, "refused", b.since)
		b.logged, b.since = now, 0
	}
	select {
	case b.turned <- struct{}{}:
		go func() {
			defer func() { <-b.turned }()
			turnAway(c, b.most)
		}()
	default:
		_ = c.Close() // it has heard nothing yet
	}
}

// turnAway answers whatever is asked on a connection with 503 and closes it. What the
// client has sent is read first: to close with it unread would take the answer back.
func turnAway(c net.Conn, most int) {
	defer func() { _ = c.Close() }() // nothing is waited for any more
	problem := &jobs.Error{
		Kind: jobs.Unavailable, RetryAfter: time.Second,
		Detail: fmt.Sprintf("%d connections are open already; try again later", most),
	}
	body := append(api.Problem(problem), '\n')
	err := c.SetDeadline(time.Now().Add(turnedAwayFor))
	_, werr := fmt.Fprintf(c, "HTTP/1.1 %d Service Unavailable\r\n%s: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nRetry-After: %s\r\nConnection: close\r\n\r\n%s",
		api.HTTPStatus(problem), requestIDHeader, uuid.NewString(), problemType[0], len(body), api.RetryAfterSeconds(problem), body)
	if t, ok := c.(*net.TCPConn); ok && errors.Join(err, werr) == nil && t.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c, maxHeaderBytes)) // until the client has closed, too
	}
}

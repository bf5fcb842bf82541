package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// subject is that of the requests of an operation.
func subject(name string) string { return "jobstream." + name }

// patience is how long the answer to a request may take until the request is sent again.
const patience = 10 * time.Second

// Reasons to send a request again. Callers see them only if they give up.
var (
	errAway     = errors.New("there is no connection to the server")
	errDropped  = errors.New("the connection was lost before the answer came")
	errNoAnswer = errors.New("the server does not answer")
)

// call sends a request until it is answered, or ctx ends. patience is how long the server
// may take for the answer.
func (c *Client) call(ctx context.Context, name string, header nats.Header, body []byte, patience time.Duration) ([]byte, error) {
	for n := 1; ; n++ {
		answer, err := c.try(ctx, name, header, body, patience)
		if !again(err) {
			return answer, err
		}
		if end := c.pause(ctx, n, err); end != nil {
			return nil, fmt.Errorf("%w; the last try: %w", end, err)
		}
	}
}

// again says whether the same request may be answered later.
func again(err error) bool {
	if e, known := jobs.AsError(err); err != nil && known {
		return e.Kind == jobs.Unavailable || e.Kind == jobs.ShuttingDown
	}
	for _, passing := range [...]error{errAway, errDropped, errNoAnswer, nats.ErrNoResponders, nats.ErrReconnectBufExceeded} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// pause waits before the n-th repetition, until there is a connection. It returns the cause
// of ctx's end.
func (c *Client) pause(ctx context.Context, n int, err error) error {
	const least, most = 50 * time.Millisecond, 5 * time.Second
	wait := min(most, least<<min(n, 10))
	var e *jobs.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		wait = e.RetryAfter
	}
	if errors.Is(err, errAway) || errors.Is(err, errDropped) {
		wait = least
		if err := c.connected(ctx); err != nil {
			return err
		}
	}
	timer := time.NewTimer(wait/2 + rand.N(wait/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// connected waits for a connection. The error is the cause of ctx's end, or says that the
// connection is closed.
func (c *Client) connected(ctx context.Context) error {
	if c.way != nil {
		return nil
	}
	changes := c.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer c.nc.RemoveStatusListener(changes)
	for !c.nc.IsConnected() {
		if err := c.closed(); err != nil {
			return err
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// closed is the reason why there will be no connection any more; nil if there may be.
func (c *Client) closed() error {
	if c.way != nil || !c.nc.IsClosed() {
		return nil
	}
	if err := c.nc.LastError(); err != nil {
		return fmt.Errorf("%w: %w", nats.ErrConnectionClosed, err)
	}
	return nats.ErrConnectionClosed
}

// try sends a request once, unless there is no connection. It waits for the answer until
// the connection is lost.
func (c *Client) try(ctx context.Context, name string, header nats.Header, body []byte, patience time.Duration) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if c.way != nil {
		timer := time.AfterFunc(patience, func() { cancel(errNoAnswer) })
		defer timer.Stop()
		answer, err := c.way.Do(ctx, name, body)
		if err != nil && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return answer, err
	}
	dropped := c.nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	defer c.nc.RemoveStatusListener(dropped)
	if err := c.closed(); err != nil {
		return nil, err
	}
	if !c.nc.IsConnected() { // else the request would be sent some time later, when nobody waits for its answer
		return nil, errAway
	}
	timer := time.AfterFunc(patience, func() { cancel(errNoAnswer) })
	defer timer.Stop()
	go func() {
		select {
		case <-dropped:
			cancel(errDropped)
		case <-ctx.Done():
		}
	}()
	m, err := c.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject(name), Header: header, Data: body})
	switch {
	case err == nil:
		return answerOf(m)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case (errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrDisconnected)) && c.closed() == nil:
		return nil, errDropped // nats.go says so of requests under way, whatever ends a connection
	case errors.Is(err, nats.ErrMaxPayload):
		return nil, &jobs.Error{Kind: jobs.PayloadTooLarge, Detail: fmt.Sprintf("the request has %d bytes, and a message has room for %d", len(body), c.nc.MaxPayload())}
	}
	return nil, err
}

// answerOf is the body of an answer, or its problem as an [*jobs.Error].
func answerOf(m *nats.Msg) ([]byte, error) {
	if m.Header.Get("Status") == "503" && len(m.Data) == 0 {
		return nil, nats.ErrNoResponders
	}
	if code := m.Header.Get(micro.ErrorCodeHeader); code != "" {
		status, err := strconv.Atoi(code)
		if err != nil {
			status = 500
		}
		return nil, api.ReadProblem(status, m.Data)
	}
	return m.Data, nil
}

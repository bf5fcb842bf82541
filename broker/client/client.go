package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
)

// Client is a connection to the NATS service of a server. Its methods may be called from
// any goroutine. They send what they have to say again, until there is an answer: while the
// server starts, or is too busy. The scopes submit and work are enough for all of them.
type Client struct {
	nc  *nats.Conn // nil: way is there
	own bool       // Close closes it
	way *Way
}

// Way is how requests reach the server without a connection of NATS, as those of a member of
// a cluster do.
type Way struct {
	// Do sends a request of an operation, like worker.next, and waits for the answer.
	Do func(ctx context.Context, name string, body []byte) ([]byte, error)
	// Files sends requests to the server's REST side, whatever their host is; see
	// [Options.REST].
	Files http.RoundTripper
	// Most is how many jobs run at a time, instead of [Options.Concurrency].
	Most func() int
	// Listen calls look whenever an execution may have been ended by the server, or Most may
	// have changed, until stop is called.
	Listen func(look func()) (stop func())
	// Grace is called when the worker is to stop. It ends when running jobs are to end,
	// instead of [Options.Grace].
	Grace func() context.Context
}

// Over makes a client whose requests go that way.
func Over(w *Way) *Client { return &Client{way: w} }

var _ jobs.Client = (*Client)(nil)

// Connect makes a connection to a server, like nats://127.0.0.1:4222. Tokens, users and
// TLS are options of nats.go: [nats.Token], [nats.UserInfo], [nats.RootCAs]. A token may
// also stand in the URL. The server need not run yet. A connection that is lost is made
// again, however long that takes, unless the server refuses who asks twice.
func Connect(url string, options ...nats.Option) (*Client, error) {
	all := []nats.Option{
		nats.Name("jobstream client"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond), nats.ReconnectJitter(250*time.Millisecond, time.Second),
	}
	nc, err := nats.Connect(url, append(all, options...)...)
	if err != nil {
		return nil, err
	}
	return &Client{nc: nc, own: true}, nil
}

// New makes a client of a connection, which stays the caller's. It should have
// [nats.MaxReconnects] of -1.
func New(nc *nats.Conn) *Client { return &Client{nc: nc} }

// Connected reports whether there is a connection to a server now.
func (c *Client) Connected() bool { return c.way != nil || c.nc.IsConnected() }

// Close closes the connection, if [Connect] has made it.
func (c *Client) Close() {
	if c.own {
		c.nc.Close()
	}
}

// Submit makes a job and returns it when it is on disk. Until ctx ends it asks again while
// the server is away, starts or is too busy. However often that is, there is one job: a
// submission without an idempotency key gets one. The error of a submission that is refused
// is an [*jobs.Error].
func (c *Client) Submit(ctx context.Context, s *jobs.Submission) (*jobs.Job, error) {
	switch {
	case s.ID != (jobs.ID{}):
		return nil, jobs.Invalid("/id", "is chosen by the server")
	case s.Token != nil:
		return nil, jobs.Invalid("/token", "is made by the server, of the idempotency key")
	}
	key := s.IdempotencyKey
	if key == "" {
		key = rand.Text()
	}
	answer, err := c.call(ctx, "submit", nats.Header{"Idempotency-Key": {key}}, s.AppendJSON(nil), patience)
	if err != nil {
		return nil, err
	}
	return readJob(answer)
}

// waitTime is how long the server waits for the end of a job until it answers anyway.
const waitTime = 30 * time.Second

// Wait returns the job with this id when it has ended, however often the server restarts
// meanwhile. When ctx ends before, it returns the job as it was last known, and the error of
// ctx if nothing was. It is nil if there is no such job, or if it is another token's and this
// one may not read.
func (c *Client) Wait(ctx context.Context, id jobs.ID) (last *jobs.Job, err error) {
	body := fmt.Appendf(nil, `{"id":%q,"wait":%q}`, id, waitTime)
	for n := 0; ; {
		asked := time.Now()
		answer, err := c.call(ctx, "get", nil, body, waitTime+patience)
		if err != nil {
			return asKnown(ctx, last, err)
		}
		if last, err = readJob(answer); err != nil || last.Status.Ended() {
			return last, err
		}
		if n++; time.Since(asked) > waitTime/2 {
			n = 0
		}
		if c.pause(ctx, n, nil) != nil { // a server that stops answers at once
			return last, nil //nolint:nilerr // the end of a wait is no error
		}
	}
}

// asKnown is what a wait returns that ends with an error.
func asKnown(ctx context.Context, last *jobs.Job, err error) (*jobs.Job, error) {
	switch e, _ := jobs.AsError(err); {
	case e.Kind == jobs.NotFound:
		return nil, nil
	case ctx.Err() != nil && last != nil:
		return last, nil
	}
	return nil, err
}

// readJob reads a job resource.
func readJob(answer []byte) (*jobs.Job, error) {
	j := &jobs.Job{}
	err := json.Unmarshal(answer, j)
	if err == nil {
		return j, nil
	}
	// The job of an idempotency key that was deleted since has no place in the stream.
	first := &jobs.Job{}
	if e := jobs.ReadFieldsJSON(answer, jobs.JobFields, first); e == nil && first.ID != (jobs.ID{}) {
		return first, nil
	}
	return nil, fmt.Errorf("the server's answer is no job: %w", err)
}

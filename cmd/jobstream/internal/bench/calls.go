package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"sync"
	"sync/atomic"
	"time"

	"jobstream/jobs"
)

// mostCalls bounds the jobs of the run-http phase: each takes as long as several others.
const mostCalls = 60_000

// runHTTP is jobs that an endpoint does, compared with the same requests by Go's client
// alone, on as many connections.
func (b *bench) runHTTP(ctx context.Context, dir string) error {
	e, err := startEndpoint(ctx)
	if err != nil {
		return fmt.Errorf("cannot listen on the loopback: %w", err)
	}
	defer e.stop()
	h, err := b.server.Endpoint(e.url)
	if err != nil {
		return err
	}
	c, o := *b.c, b.options
	c.Jobs = min(c.Jobs, mostCalls)
	o.Registry = c.registryOf(h)
	// One request goes ahead, so that the client alone sends the same headers.
	body := makePayload(c.Payload, 0)
	one := &jobs.Job{ID: jobs.NewID(), Type: c.lanes()[0].Type, Run: 1, Attempt: 1, MaxAttempts: 1, CreatedAt: jobs.Now(), Payload: body}
	task := jobs.NewTask(one, 1, nil)
	task.Until = time.Now().Add(time.Minute)
	if _, err := h.Handle(ctx, task); err != nil {
		return err
	}
	return b.withNode(ctx, dir, o, func(n *node) (err error) {
		b.report.RunHTTP, err = takeTurns(ctx, phaseRunHTTP, b.turnsOf(n, &c), b.calls(e, body, &c))
		return err
	})
}

// endpoint answers each request with a small result.
type endpoint struct {
	url     string
	server  nethttp.Server
	serving sync.WaitGroup
	first   atomic.Pointer[nethttp.Header] // of the first request
}

func startEndpoint(ctx context.Context) (*endpoint, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &endpoint{url: "http://" + l.Addr().String() + "/"}
	e.server.Handler, e.server.ReadHeaderTimeout = e, time.Minute
	e.serving.Go(func() { _ = e.server.Serve(l) }) // until it is closed
	return e, nil
}

func (e *endpoint) stop() {
	_ = e.server.Close()
	e.serving.Wait()
}

// ServeHTTP reads a job's payload and answers with a result.
func (e *endpoint) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	if e.first.Load() == nil {
		header := r.Header.Clone()
		e.first.CompareAndSwap(nil, &header)
	}
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"ok":true}`)
}

// calls are the turns of the requests alone, as many at a time as there are workers.
func (b *bench) calls(e *endpoint, body json.RawMessage, c *Options) turns {
	client := &nethttp.Client{Transport: &nethttp.Transport{MaxIdleConnsPerHost: c.Workers}}
	header := e.first.Load().Clone()
	header.Del("Accept-Encoding") // the transport sets both
	header.Del("Content-Length")
	return turns{c: c, turn: func(ctx context.Context, name string, c *Options) (*Throughput, error) {
		limited, cancel := context.WithTimeout(ctx, c.MaxTime)
		defer cancel()
		defer client.CloseIdleConnections()
		var begun, done atomic.Int64
		var failed atomic.Pointer[error]
		b.show(name, c.Jobs, done.Load)
		watch := startWatch()
		var group sync.WaitGroup
		for range c.Workers {
			group.Go(func() {
				for limited.Err() == nil && begun.Add(1) <= int64(c.Jobs) {
					if err := callOnce(limited, client, e.url, header, body); err != nil {
						if limited.Err() == nil {
							failed.CompareAndSwap(nil, &err)
						}
						cancel()
						return
					}
					done.Add(1)
				}
			})
		}
		group.Wait()
		if p := failed.Load(); p != nil {
			return nil, fmt.Errorf("cannot call the endpoint: %w", *p)
		}
		return watch.throughput(int(done.Load()), c.Jobs), context.Cause(ctx)
	}}
}

// callOnce makes a request and reads its answer as JSON, which a job's result is.
func callOnce(ctx context.Context, client *nethttp.Client, url string, header nethttp.Header, body []byte) error {
	req, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(resp.Body)
	if !json.Valid(answer) {
		err = errors.Join(err, errors.New("the answer is not JSON"))
	}
	return errors.Join(err, resp.Body.Close())
}

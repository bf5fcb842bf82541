package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"jobstream/jobs"
)

// ServiceName is the NATS micro service that [Broker.Serve] runs; its endpoints
// answer on jobstream.<name>.
const ServiceName = "jobstream"

const maxCalls = 256 // requests being answered at a time

// Endpoint answers requests on jobstream.<Name>. Handle is called concurrently;
// its body is its own. An error goes back as problem JSON with the HTTP status
// as Nats-Service-Error-Code; one that is no [*jobs.Error] is logged and not
// shown.
type Endpoint struct {
	Name   string
	Handle func(ctx context.Context, body []byte) ([]byte, error)
}

// endpointStats is the data of an endpoint in "nats micro stats": requests are
// answered concurrently, so micro's own counts see only their arrival.
type endpointStats struct {
	errors   atomic.Int64
	answered atomic.Int64
	nanos    atomic.Int64
}

func (s *endpointStats) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]int64{
		"answered": s.answered.Load(), "errors": s.errors.Load(), "processing_time_ns": s.nanos.Load(),
	})
}

// Serve starts answering requests with these endpoints; version must be a
// semantic version. At most 256 requests are answered at a time, more get the
// problem "unavailable".
func (b *Broker) Serve(version, description string, endpoints []Endpoint) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.service != nil {
		return errors.New("the service runs already")
	}
	stats := make(map[string]*endpointStats, len(endpoints))
	for _, e := range endpoints {
		stats[e.Name] = new(endpointStats)
	}
	service, err := micro.AddService(b.nc, micro.Config{
		Name: ServiceName, Version: version, Description: description,
		StatsHandler: func(e *micro.Endpoint) any { return stats[e.Name] },
	})
	if err != nil {
		return fmt.Errorf("cannot start the NATS service: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	slots := make(chan struct{}, maxCalls)
	group := service.AddGroup(ServiceName)
	for _, e := range endpoints {
		c := &caller{b: b, endpoint: e, slots: slots, stats: stats[e.Name], ctx: ctx}
		if err := group.AddEndpoint(e.Name, micro.HandlerFunc(c.call)); err != nil {
			cancel()
			return errors.Join(fmt.Errorf("cannot start the endpoint %s.%s: %w", ServiceName, e.Name, err), service.Stop())
		}
	}
	b.service, b.serving = service, cancel
	return b.nc.FlushTimeout(ackTimeout)
}

// StopServing ends the service: no new requests are taken, those being
// answered get five seconds, then their contexts end.
func (b *Broker) StopServing() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.service == nil {
		return nil
	}
	err := b.service.Stop()
	late := time.AfterFunc(ackTimeout, b.serving)
	b.calls.Wait()
	late.Stop()
	b.serving()
	b.service = nil
	if e := b.nc.FlushTimeout(ackTimeout); err == nil {
		err = e
	}
	return err
}

// caller runs the requests of one endpoint.
type caller struct {
	b        *Broker
	endpoint Endpoint
	slots    chan struct{}
	stats    *endpointStats
	ctx      context.Context // ends when the service must have stopped
}

// call runs on the subscription's goroutine, so it must not wait for the answer.
func (c *caller) call(r micro.Request) {
	reply, body := r.Reply(), r.Data()
	select {
	case c.slots <- struct{}{}:
	default:
		c.fail(reply, &jobs.Error{
			Kind: jobs.Unavailable, RetryAfter: time.Second,
			Detail: fmt.Sprintf("%d requests are being answered already; try again later", maxCalls),
		})
		return
	}
	c.b.calls.Go(func() {
		defer func() { <-c.slots }()
		c.answer(reply, body)
	})
}

func (c *caller) answer(reply string, body []byte) {
	start := time.Now()
	out, err := c.run(body)
	c.stats.nanos.Add(int64(time.Since(start)))
	c.stats.answered.Add(1)
	if err != nil {
		c.fail(reply, err)
		return
	}
	if reply == "" {
		return
	}
	if err := c.b.nc.Publish(reply, out); err != nil {
		c.fail(reply, fmt.Errorf("the answer of %d bytes cannot be sent: %w", len(out), err))
	}
}

// run calls the handler; a panic is an internal error like any other.
func (c *caller) run(body []byte) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return c.endpoint.Handle(c.ctx, body)
}

func (c *caller) fail(reply string, err error) {
	c.stats.errors.Add(1)
	problem, expected := jobs.AsError(err)
	if !expected {
		c.b.log.Error("a NATS request failed", "endpoint", ServiceName+"."+c.endpoint.Name, "error", err)
	}
	if reply == "" {
		return
	}
	m := nats.NewMsg(reply)
	m.Header[micro.ErrorHeader] = []string{problem.Detail}
	m.Header[micro.ErrorCodeHeader] = []string{strconv.Itoa(problem.Status())}
	m.Data = problem.Problem()
	if err := c.b.nc.PublishMsg(m); err != nil {
		c.b.log.Error("a NATS request was not answered", "endpoint", ServiceName+"."+c.endpoint.Name, "error", err)
	}
}

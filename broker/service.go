package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/api"
)

// ServiceName is the NATS micro service that [Service.Serve] runs; its endpoints
// answer on jobstream.<name>.
const ServiceName = "jobstream"

// Bounds of requests at a time.
const (
	maxCalls = 256    // being answered
	maxWaits = 10_000 // waiting for something, see [Request.Wait]
)

// Endpoint answers requests on jobstream.<Name>. Handle is called concurrently. Its error
// goes back as problem JSON, with the HTTP status as Nats-Service-Error-Code. An error that
// is no [*jobs.Error] is logged and not shown.
type Endpoint struct {
	Name   string
	Handle func(ctx context.Context, r *Request) ([]byte, error)
}

// Request is a request to an endpoint. Its handler may keep and change it.
type Request struct {
	Body []byte
	// Principal is whom it is by.
	Principal *access.Principal
	// Realm separates its idempotency keys from those of others; "" = that of the service.
	Realm string
	// JobID is that of the job that it makes, if another node has chosen it; zero = none.
	JobID jobs.ID
	// MaxAnswer is how many bytes the answer may have.
	MaxAnswer int
	// Omitted is set by the handler: the fields that it left out of its answer to keep to
	// MaxAnswer, in the form of [HeaderOmitted].
	Omitted string

	header map[string][]string
	reply  string
	server *Server
	place  chan struct{} // where the request occupies a place
	waits  chan struct{}
	gone   func() bool // instead of the server's; nil: that counts
}

// NewRequest makes a request that has come to another member. It counts among those of that
// one. gone is [Request.Gone].
func NewRequest(p *access.Principal, header map[string][]string, body []byte, maxAnswer int, gone func() bool) *Request {
	return &Request{Body: body, Principal: p, MaxAnswer: maxAnswer, header: header, gone: gone}
}

// All returns all headers, as they were written.
func (r *Request) All() map[string][]string { return r.header }

// Header returns the values of a header. Its name may be written in any case,
// unlike elsewhere in NATS: the headers here are those of the REST door.
func (r *Request) Header(name string) (values []string) {
	for given, v := range r.header {
		if strings.EqualFold(given, name) {
			values = append(values, v...)
		}
	}
	return values
}

// Wait announces that the handler is about to wait, perhaps for minutes. Its request then
// counts no longer among those being answered, but among those that wait. There may be
// 10,000 of these; the error for one more is a [*jobs.Error]. The body is gone
// afterwards.
func (r *Request) Wait() error {
	if r.place == r.waits {
		return nil
	}
	select {
	case r.waits <- struct{}{}:
	default:
		return busy("%d requests are waiting already; try again later", maxWaits)
	}
	<-r.place
	r.place = r.waits
	r.Body = nil // it may wait for long
	return nil
}

// Gone says that nobody listens for the answer any more: the client has closed its
// connection, or has never wanted an answer.
func (r *Request) Gone() bool {
	if r.gone != nil {
		return r.gone()
	}
	return !r.server.awaited(r.reply, r.header)
}

func busy(format string, args ...any) error {
	return &jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: fmt.Sprintf(format, args...)}
}

// Service answers requests on jobstream.<name>. mu guards its start and its stop.
type Service struct {
	server *Server
	calls  sync.WaitGroup // requests being answered

	mu     sync.Mutex
	open   *microService
	cancel context.CancelFunc // ends the contexts of the requests
}

// Serve starts answering requests with these endpoints. version must be a semantic version.
// At most 256 requests are answered at a time, besides those that wait. More get the problem
// "unavailable".
func (s *Service) Serve(version, description string, endpoints []Endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != nil {
		return errors.New("the service runs already")
	}
	ctx, cancel := context.WithCancel(context.Background())
	slots, waits := make(chan struct{}, maxCalls), make(chan struct{}, maxWaits)
	nc, m := s.server.nc, newMicroService(version, description)
	for _, e := range endpoints {
		c := &caller{service: s, endpoint: e, slots: slots, waits: waits, stats: m.newEndpoint(e.Name), ctx: ctx}
		if err := m.subscribe(nc, c); err != nil {
			cancel()
			return errors.Join(fmt.Errorf("cannot start the endpoint %s.%s: %w", ServiceName, e.Name, err), m.stop())
		}
	}
	if err := m.introduce(nc); err != nil {
		cancel()
		return errors.Join(fmt.Errorf("cannot start the NATS service: %w", err), m.stop())
	}
	s.open, s.cancel = m, cancel
	return nc.FlushTimeout(ackTimeout)
}

// Stop ends the service. New requests find nobody. Those being answered get five seconds,
// then their contexts end.
func (s *Service) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return nil
	}
	err := s.open.stop()
	late := time.AfterFunc(ackTimeout, s.cancel)
	s.open.called() // else a request could begin during the wait for all of them
	s.calls.Wait()
	late.Stop()
	s.cancel()
	s.open = nil
	if e := s.server.nc.FlushTimeout(ackTimeout); err == nil {
		err = e
	}
	return err
}

// caller runs the requests to one endpoint. It has no state, so no lock.
type caller struct {
	service  *Service
	endpoint Endpoint
	slots    chan struct{}
	waits    chan struct{}
	stats    *endpointStats
	ctx      context.Context // ends when the service must have stopped
}

// call runs on the subscription's goroutine, so it does not wait for the answer.
func (c *caller) call(m *nats.Msg) {
	begun := time.Now()
	request := &Request{
		Body: m.Data, Principal: c.service.server.accounts.caller(m.Subject, m.Reply), MaxAnswer: c.service.server.o.MaxPayload + batchAnswer,
		header: m.Header, reply: m.Reply, server: c.service.server, place: c.slots, waits: c.waits,
	}
	if request.Principal == stranger {
		c.answer(m.Reply, begun, request, nil, busy("the request came by way of another node that does not know you; try again"))
		return
	}
	select {
	case c.slots <- struct{}{}:
	default:
		c.answer(m.Reply, begun, request, nil, busy("%d requests are being answered already; try again later", maxCalls))
		return
	}
	c.service.calls.Go(func() {
		defer func() { <-request.place }()
		out, err := c.run(request)
		c.answer(request.reply, begun, request, out, err)
	})
}

// answer sends an answer or a problem. It counts it first: a client that has an answer
// finds it in the statistics.
func (c *caller) answer(reply string, begun time.Time, request *Request, out []byte, err error) {
	c.stats.answered(time.Since(begun))
	if err == nil && len(out) > request.MaxAnswer {
		err = &jobs.Error{Kind: jobs.AnswerTooLarge, Detail: fmt.Sprintf(
			"the answer has %d bytes, and a message has room for %d; what was asked for is done, and can be seen over REST", len(out), request.MaxAnswer,
		)}
	}
	if err == nil && reply != "" {
		m := nats.NewMsg(reply)
		m.Data = out
		if request.Omitted != "" {
			m.Header[HeaderOmitted] = []string{request.Omitted}
		}
		if err = c.service.server.nc.PublishMsg(m); err != nil {
			err = fmt.Errorf("the answer of %d bytes cannot be sent: %w", len(out), err)
		}
	}
	if err == nil {
		return
	}
	problem, expected := jobs.AsError(err)
	c.stats.failed(problem)
	if !expected {
		c.service.server.log.Error("a NATS request failed", "endpoint", ServiceName+"."+c.endpoint.Name, "error", err)
	}
	if reply != "" {
		c.fail(reply, problem)
	}
}

// run calls the handler, and makes an error of its panic.
func (c *caller) run(request *Request) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return c.endpoint.Handle(c.ctx, request)
}

func (c *caller) fail(reply string, problem *jobs.Error) {
	m := nats.NewMsg(reply)
	m.Header[micro.ErrorHeader] = []string{problem.Detail}
	m.Header[micro.ErrorCodeHeader] = []string{strconv.Itoa(api.HTTPStatus(problem))}
	m.Data = api.Problem(problem)
	if err := c.service.server.nc.PublishMsg(m); err != nil {
		c.service.server.log.Error("a NATS request was not answered", "endpoint", ServiceName+"."+c.endpoint.Name, "error", err)
	}
}

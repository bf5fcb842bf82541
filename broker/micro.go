package broker

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// microService is a NATS micro service: its endpoints, and its answers to questions about
// itself. Package micro counts an answer when the handler returns. Ours answer later, so
// its statistics would have neither errors nor times.
type microService struct {
	id      micro.ServiceIdentity
	about   string
	started time.Time
	all     []*endpointStats
	subs    []*nats.Subscription
	calling sync.WaitGroup // subscriptions to requests, until their last one is called
}

// serviceQueue is the queue group of the endpoints, the one that micro uses.
const serviceQueue = micro.DefaultQueueGroup

func newMicroService(version, description string) *microService {
	return &microService{
		id:    micro.ServiceIdentity{Name: ServiceName, ID: nuid.Next(), Version: version, Metadata: map[string]string{}},
		about: description, started: time.Now().UTC(),
	}
}

// newEndpoint appends an endpoint to those that the service has. Clients such as nats micro
// refuse the whole service if a name has a dot, which its subject may have.
func (s *microService) newEndpoint(name string) *endpointStats {
	e := &endpointStats{EndpointStats: micro.EndpointStats{
		Name: strings.ReplaceAll(name, ".", "-"), Subject: ServiceName + "." + name, QueueGroup: serviceQueue,
	}}
	s.all = append(s.all, e)
	return e
}

// Requests to an endpoint that have come and are not looked at. A flood of more is dropped,
// since nothing can be answered as fast.
const (
	maxQueued      = 8192
	maxQueuedBytes = 8 << 20
)

// subscribe subscribes to the requests to an endpoint.
func (s *microService) subscribe(nc *nats.Conn, c *caller) error {
	for _, subject := range []string{c.stats.Subject, servicePrefix + "*." + c.endpoint.Name} {
		sub, err := nc.QueueSubscribe(subject, serviceQueue, c.call)
		if err != nil {
			return err
		}
		if err := sub.SetPendingLimits(maxQueued, maxQueuedBytes); err != nil {
			return err
		}
		s.calling.Add(1)
		sub.SetClosedHandler(func(string) { s.calling.Done() })
		s.subs = append(s.subs, sub)
	}
	return nil
}

// introduce answers the questions that every micro service is asked.
func (s *microService) introduce(nc *nats.Conn) error {
	for verb, about := range map[micro.Verb]func() any{micro.PingVerb: s.ping, micro.InfoVerb: s.info, micro.StatsVerb: s.stats} {
		for _, to := range [...]struct{ name, id string }{{}, {s.id.Name, ""}, {s.id.Name, s.id.ID}} {
			subject, err := micro.ControlSubject(verb, to.name, to.id)
			if err != nil {
				return err
			}
			sub, err := nc.Subscribe(subject, func(m *nats.Msg) {
				if body, err := json.Marshal(about()); err == nil {
					_ = m.Respond(body) // it fails for a question without a reply subject
				}
			})
			if err == nil {
				err = sub.SetPendingLimits(maxQueued, maxQueuedBytes)
			}
			if err != nil {
				return err
			}
			s.subs = append(s.subs, sub)
		}
	}
	return nil
}

func (s *microService) ping() any {
	return micro.Ping{ServiceIdentity: s.id, Type: micro.PingResponseType}
}

func (s *microService) info() any {
	info := micro.Info{ServiceIdentity: s.id, Type: micro.InfoResponseType, Description: s.about}
	for _, e := range s.all {
		info.Endpoints = append(info.Endpoints, micro.EndpointInfo{Name: e.Name, Subject: e.Subject, QueueGroup: e.QueueGroup})
	}
	return info
}

func (s *microService) stats() any {
	stats := micro.Stats{ServiceIdentity: s.id, Type: micro.StatsResponseType, Started: s.started}
	for _, e := range s.all {
		stats.Endpoints = append(stats.Endpoints, e.now())
	}
	return stats
}

// called waits until the requests that had come before stop are called, but not for ever: a
// sick broker does not say that a subscription has ended.
func (s *microService) called() {
	done := make(chan struct{})
	go func() { s.calling.Wait(); close(done) }()
	timer := time.NewTimer(ackTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// stop ends the subscriptions. Requests that have come are still called.
func (s *microService) stop() error {
	var failed []error
	for _, sub := range s.subs {
		failed = append(failed, sub.Drain())
	}
	return errors.Join(failed...)
}

// endpointStats are the figures of an endpoint in "nats micro stats". mu guards them.
type endpointStats struct {
	mu sync.Mutex
	micro.EndpointStats
}

// longestError is how many bytes of an error are remembered.
const longestError = 512

// answered counts an answer that took so long.
func (e *endpointStats) answered(took time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.NumRequests++
	e.ProcessingTime += took
	e.AverageProcessingTime = e.ProcessingTime / time.Duration(e.NumRequests)
}

// failed counts an answer as an error.
func (e *endpointStats) failed(problem *jobs.Error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.NumErrors++
	e.LastError = strconv.Itoa(api.HTTPStatus(problem)) + ":" + problem.Detail[:min(len(problem.Detail), longestError)]
}

func (e *endpointStats) now() *micro.EndpointStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.EndpointStats
	return &now
}

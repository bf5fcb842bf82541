package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"jobstream/broker"
	"jobstream/cmd/node/natsdoor"
	"jobstream/httpapi"
	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/api"
)

// The doors of a member answer every request. Where an operation is done stands in the table
// of operations. What is done at the leader goes to its inner door, over a connection of the
// cluster. Only members can connect there, and they say whose a request is.

// leaderTime is how long a request waits for a node that leads.
const (
	leaderTime  = 5 * time.Second
	leaderPause = 50 * time.Millisecond
	askTime     = 500 * time.Millisecond // for the leader's number
	dialTime    = 2 * time.Second
)

var _ httpapi.Cluster = (*member)(nil)

// Leads says that this node decides now.
func (m *member) Leads() bool { return m.n.core.Load() != nil && m.machine.Leads() }

// Position is the number of the last entry of this node, and how old that is.
func (m *member) Position() (number uint64, age time.Duration) {
	s := m.machine.State()
	if m.machine.Leads() {
		return s.Position.Number, 0
	}
	return s.Position.Number, max(0, time.Since(s.Moved))
}

// decides says that this node does now what is done at the leader: it leads, and the parts
// for that stand behind its doors.
func (m *member) decides() bool { return m.Leads() && m.back.Load().Submitter != nil }

// stands changes what stands behind the doors.
func (m *member) stands(back *api.Backend) {
	m.back.Store(back)
	m.n.rest.Replace(back, m)
}

// reader looks jobs up in this node's tracker.
func (m *member) reader() *reader {
	return &reader{store: m.store, broker: m.broker, waits: m.waits, waiting: m.waiting, lists: make(chan struct{}, maxLists)}
}

// waiting is why a job does not run, as far as its record says. The leader knows more.
func (m *member) waiting(j *jobs.Job) *jobs.Waiting {
	switch {
	case j.DueAt > jobs.Now() && j.Status == jobs.Retrying:
		return &jobs.Waiting{Reason: jobs.WaitBackoff, Until: j.DueAt}
	case j.DueAt > jobs.Now():
		return &jobs.Waiting{Reason: jobs.WaitScheduled, Until: j.DueAt}
	}
	w := &jobs.Waiting{Reason: jobs.WaitQueue, Detail: "the node that leads knows more"}
	if j.Place == jobs.InQueue {
		w.Position, _ = m.store.Position(j) // it may have begun meanwhile
	}
	return w
}

// backend is what a member does that does not lead.
func (m *member) backend() *api.Backend {
	return &api.Backend{
		Reader: m.reader(), Logs: memberLogs{m.logs, m}, Artifacts: m.n.o.Handlers.Artifacts, Audit: m.store, Changes: m.changes,
		Metrics: m.n.metrics.Handler(), Reloader: m.n, Nodes: m, Figures: m.n.figures, Info: infoOn(&m.n.o, m.n.registry, m.n.o.Name),
		Inspector: inspector{&coreOptions{Options: m.n.o, dirs: m.n.dirs, registry: m.n.registry, member: m}, m.store, nil, make(chan struct{}, 1)},
	}
}

// index asks the leader for its number. Who asks while a question is under way shares the
// next one.
type index struct {
	mu   sync.Mutex
	next *question // that is not sent yet
	busy bool      // one is under way
}

type question struct {
	done   chan struct{}
	number uint64
	err    error
}

// Current waits until this node knows all that the leader knew at the call.
func (m *member) Current(ctx context.Context) error {
	if leads, err := m.machine.Settled(ctx); leads || err != nil {
		return err
	}
	x := &m.index
	x.mu.Lock()
	if x.next == nil {
		x.next = &question{done: make(chan struct{})}
	}
	q := x.next
	if !x.busy {
		x.busy = true
		go m.ask() //nolint:contextcheck // others wait for it, too
	}
	x.mu.Unlock()
	select {
	case <-q.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if q.err != nil {
		return q.err
	}
	waiting, cancel := context.WithTimeout(ctx, leaderTime)
	defer cancel()
	if err := m.machine.Applied(waiting, q.number); err != nil && ctx.Err() == nil {
		return &jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: "this node is behind the others, and does not catch up at the moment; try again"}
	}
	return ctx.Err()
}

// ask sends the questions, one after the other, until there is none.
func (m *member) ask() {
	x := &m.index
	for {
		x.mu.Lock()
		q := x.next
		x.next, x.busy = nil, q != nil
		x.mu.Unlock()
		if q == nil {
			return
		}
		q.number, q.err = m.number()
		close(q.done)
	}
}

// number is that of the leader's last entry.
func (m *member) number() (number uint64, err error) {
	err = m.withLeader(context.Background(), func(ctx context.Context, leader string) error {
		if leader == m.n.o.Name {
			return nil // it has everything
		}
		asking, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		number, err = m.broker.Peers.Index(asking, leader)
		return err
	})
	return number, err
}

// errFinal wraps an error after which nothing is tried again.
type errFinal struct{ error }

// withLeader calls try with the name of the node that leads until it succeeds, for some
// seconds.
func (m *member) withLeader(ctx context.Context, try func(ctx context.Context, leader string) error) error {
	for begun := time.Now(); ; {
		why := errors.New("no node leads")
		if leader, ok := m.machine.Leader(); ok {
			err := try(ctx, leader.Name)
			var final errFinal
			switch {
			case err == nil:
				return nil
			case errors.As(err, &final):
				return final.error
			}
			why = err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(begun) > leaderTime {
			return &jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: fmt.Sprintf("the cluster has no node that leads at the moment; try again (%v)", why)}
		}
		sleep(ctx, leaderPause)
	}
}

// errDial wraps why there is no connection, so that nothing can have been done.
type errDial struct{ error }

func (e errDial) Unwrap() error { return e.error }

func (m *member) newTransport() *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			name, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			dialing, cancel := context.WithTimeout(ctx, dialTime)
			defer cancel()
			c, err := m.broker.Peers.Dial(dialing, name)
			if err != nil {
				return nil, errDial{err}
			}
			return c, nil
		},
		MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, DisableCompression: true,
	}
}

// Send sends a request to the node that leads; see [httpapi.Cluster].
func (m *member) Send(r *http.Request, repeatable bool) (a *http.Response, err error) {
	begun := false // the body has been read
	err = m.withLeader(r.Context(), func(ctx context.Context, leader string) error {
		out := r.Clone(ctx)
		out.URL.Host = leader
		switch {
		case r.GetBody != nil:
			if out.Body, err = r.GetBody(); err != nil {
				return errFinal{err}
			}
		case r.Body != nil && r.Body != http.NoBody:
			if begun {
				return errFinal{&jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: "another node begins to lead; send the file again"}}
			}
			out.Body = io.NopCloser(readNotes{r.Body, &begun})
		}
		a, err = m.passing.RoundTrip(out) //nolint:bodyclose // the caller does
		var dial errDial
		switch {
		case err == nil && a.Header.Get(httpapi.Undone) != "":
			_ = a.Body.Close() // it is short
			return errors.New("it does not lead any more, or not yet")
		case err == nil, errors.As(err, &dial), repeatable:
			return err
		}
		return errFinal{err}
	})
	return a, err
}

// readNotes notes that something is read.
type readNotes struct {
	io.Reader
	begun *bool
}

func (r readNotes) Read(b []byte) (int, error) {
	*r.begun = true
	return r.Reader.Read(b)
}

// innerPath begins the paths of requests that have come over NATS.
const innerPath = "/inner/nats/"

// innerBody is how much one of them may have.
const innerBody = 64 << 20

// open opens the inner door, and the one over NATS.
func (m *member) open() error {
	if err := m.broker.Peers.Answer(m.machine.Number); err != nil {
		return err
	}
	l, err := m.broker.Peers.Listen()
	if err != nil {
		return err
	}
	endpoints := natsdoor.Endpoints(m.back.Load, m.n.o.traceNATS())
	everywhere := m.everywhere(endpoints)
	mux := http.NewServeMux()
	mux.Handle("/", m.n.rest.Inner())
	mux.HandleFunc("GET "+innerLogs+"{id}", m.serveLog)
	for _, e := range endpoints {
		mux.HandleFunc("POST "+innerPath+e.Name, func(w http.ResponseWriter, r *http.Request) { m.serveInner(w, r, e.Handle) })
	}
	mux.HandleFunc("POST "+resizePath+"{most}", m.serveResize)
	m.inner = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = m.inner.Serve(l) }() // it ends with the listener
	m.work(everywhere)
	return m.n.serveNATS(m.broker, everywhere)
}

// askInner makes a request at the inner door of another member. Whoever gets the answer closes
// it. An answer that is not 200 is an error.
func (m *member) askInner(ctx context.Context, method, name, path string) (answer io.ReadCloser, err error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://member"+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	r.URL.Host = name
	a, err := m.passing.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if a.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("it answers %s", a.Status), a.Body.Close())
	}
	return a.Body, nil
}

// close closes what open has opened.
func (m *member) close() {
	if err := m.broker.Service.Stop(); err != nil {
		m.n.log.Warn("the service has not ended in good order", "error", err)
	}
	if m.inner != nil {
		_ = m.inner.Close() // all that matters has ended
	}
	m.passing.CloseIdleConnections()
}

// everywhere are endpoints that do each operation at its place.
func (m *member) everywhere(all []broker.Endpoint) []broker.Endpoint {
	places := make(map[string]*api.Operation)
	for _, op := range api.Operations() {
		places[op.Name] = op
	}
	out := make([]broker.Endpoint, len(all))
	for i, e := range all {
		op := places[e.Name]
		out[i] = broker.Endpoint{Name: e.Name, Handle: func(ctx context.Context, r *broker.Request) ([]byte, error) {
			switch op.PlaceFor("", r.Body) {
			case api.Current:
				if err := m.Current(ctx); err != nil {
					return nil, err
				}
			case api.AtLeader:
				if !m.decides() {
					return m.passOn(ctx, op, r)
				}
			}
			return e.Handle(ctx, r)
		}}
	}
	return out
}

// passed is a request over NATS on its way to the leader.
type passed struct {
	Principal *access.Principal
	Header    map[string][]string
	Body      []byte
	MaxAnswer int
	Realm     string
	JobID     jobs.ID // see api.Caller
}

// passOn has the leader answer a request over NATS.
func (m *member) passOn(ctx context.Context, op *api.Operation, r *broker.Request) ([]byte, error) {
	p := passed{Principal: r.Principal, Header: r.All(), Body: r.Body, MaxAnswer: r.MaxAnswer, Realm: r.Realm}
	if op.MakesOne() {
		p.JobID = jobs.NewID()
	}
	text, err := json.Marshal(&p)
	if err != nil {
		return nil, err
	}
	if err := r.Wait(); err != nil { // it may wait at the leader
		return nil, err
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://leader"+innerPath+op.Name, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	reads := op.Scope == access.Read
	a, err := m.Send(q, reads || op.MakesOne() || len(r.Header("Idempotency-Key")) > 0)
	if err != nil {
		if _, known := jobs.AsError(err); known {
			return nil, err
		}
		return nil, unsure("lost", err)
	}
	defer func() { _ = a.Body.Close() }() // it has been read
	out, err := io.ReadAll(a.Body)
	switch {
	case err != nil:
		return nil, unsure("cut off", err)
	case a.StatusCode != http.StatusOK:
		return nil, api.ReadProblem(a.StatusCode, out)
	}
	r.Omitted = a.Header.Get(broker.HeaderOmitted)
	if !reads && !r.Principal.Member { // a member that works looks nothing up
		settling, cancel := context.WithTimeout(ctx, leaderTime)
		defer cancel()
		_ = m.Current(settling) // it is done, whether this node knows or not
	}
	return out, nil
}

// unsure is the answer when that of the leader was lost, or cut off.
func unsure(how string, why error) *jobs.Error {
	return &jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: fmt.Sprintf("the answer of another node was %s, so the request may have been done, or not: %v", how, why)}
}

// serveInner answers a request that has come to another member over NATS.
func (m *member) serveInner(w http.ResponseWriter, r *http.Request, handle func(context.Context, *broker.Request) ([]byte, error)) {
	if !m.decides() {
		w.Header().Set(httpapi.Undone, "true")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var in passed
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, innerBody)).Decode(&in); err != nil || in.Principal == nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return
	}
	q := broker.NewRequest(in.Principal, in.Header, in.Body, in.MaxAnswer, func() bool { return r.Context().Err() != nil })
	q.Realm, q.JobID = in.Realm, in.JobID
	out, err := handle(r.Context(), q)
	if err != nil {
		problem, known := jobs.AsError(err)
		if !known {
			m.n.log.Error("a NATS request of another node failed", "path", r.URL.Path, "error", err)
		}
		w.WriteHeader(api.HTTPStatus(problem))
		_, _ = w.Write(api.Problem(problem)) // the other node notices
		return
	}
	w.Header().Set(broker.HeaderOmitted, q.Omitted)
	_, _ = w.Write(out) // the other node notices
}

// submit has the leader admit a job of this program.
func (m *member) submit(ctx context.Context, s *jobs.Submission) (*jobs.Job, error) {
	text, header := s.AppendJSON(nil), map[string][]string{}
	if s.IdempotencyKey != "" {
		header["Idempotency-Key"] = []string{s.IdempotencyKey}
	}
	program := &access.Principal{Name: access.Anonymous, Scopes: []access.Scope{access.Admin}}
	r := broker.NewRequest(program, header, text, innerBody, func() bool { return ctx.Err() != nil })
	for _, op := range api.Operations() {
		if op.Name != "submit" {
			continue
		}
		r.Realm = realm
		out, err := m.passOn(ctx, op, r)
		if err != nil {
			return nil, err
		}
		var made struct{ ID jobs.ID }
		if err := json.Unmarshal(out, &made); err != nil {
			return nil, err
		}
		return m.store.Job(ctx, made.ID)
	}
	panic("there is no operation submit")
}

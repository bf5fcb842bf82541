package client_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"jobstream/broker/client"
	"jobstream/cmd/node"
	"jobstream/jobs"
)

// longest is how long anything may take on the slowest machine.
const longest = time.Minute

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// server is a node with a port for NATS, which may be opened again.
type server struct {
	*node.Node
	t *testing.T
	o node.Options
	r *jobs.Registry
}

// serve opens a node with a port, in a folder of its own.
func serve(t *testing.T, o node.Options, types ...*jobs.Type) *server {
	t.Helper()
	o.Dir, o.NATS = t.TempDir(), freePort(t)
	s := &server{t: t, o: o, r: jobs.NewRegistry(types...)}
	s.open()
	t.Cleanup(s.close)
	return s
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	mustDo(t, err)
	mustDo(t, l.Close())
	return l.Addr().String()
}

func (s *server) open() {
	s.t.Helper()
	n, err := node.Open(context.Background(), s.o, s.r)
	mustDo(s.t, err)
	s.Node = n
}

func (s *server) close() {
	s.t.Helper()
	if s.Node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		s.t.Error(err)
	}
	s.Node = nil
}

// client is a connection to the server.
func (s *server) client() *client.Client {
	s.t.Helper()
	c, err := client.Connect("nats://" + s.o.NATS)
	mustDo(s.t, err)
	s.t.Cleanup(c.Close)
	return c
}

// rest serves REST, and returns its address.
func (s *server) rest() string {
	s.t.Helper()
	l := httptest.NewServer(s.Handler())
	s.t.Cleanup(l.Close)
	return l.URL
}

// get is the answer of REST.
func (s *server) get(path string) string {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://localhost"+path, nil))
	return w.Body.String()
}

// post sends a request to REST, which must be answered with 2xx.
func (s *server) post(path, body string) {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://localhost"+path, strings.NewReader(body)))
	if w.Code/100 != 2 {
		s.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
}

// submit makes a job of a type.
func submit(t *testing.T, c jobs.Client, typ string, payload any, change ...func(*jobs.Submission)) jobs.ID {
	t.Helper()
	b, err := json.Marshal(payload)
	mustDo(t, err)
	s := &jobs.Submission{Type: typ, Payload: b, Priority: jobs.DefaultPriority, RetryCount: -1}
	for _, f := range change {
		f(s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	defer cancel()
	j, err := c.Submit(ctx, s)
	mustDo(t, err)
	return j.ID
}

// ended is a job when it has ended.
func ended(t *testing.T, c jobs.Client, id jobs.ID) *jobs.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	defer cancel()
	j, err := c.Wait(ctx, id)
	mustDo(t, err)
	if j == nil || !j.Status.Ended() {
		t.Fatalf("the job is %+v", j)
	}
	return j
}

// work runs a worker until stop is called, which returns its error.
func work(t *testing.T, c *client.Client, r *jobs.Registry, o client.Options) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	if o.Grace == 0 {
		o.Grace = -1
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	go func() { done <- c.Work(ctx, r, o) }()
	var err error
	stopped := false
	stop = func() error {
		if !stopped {
			stopped = true
			cancel()
			err = <-done
		}
		return err
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the worker ended with: %v", err)
		}
	})
	return stop
}

// remote is a type for workers elsewhere.
func remote(name string) *jobs.Type {
	return &jobs.Type{Name: name, Remote: true, Timeout: time.Minute, RetryCount: 2, Backoff: jobs.Backoff{Kind: jobs.Constant, Base: time.Millisecond}}
}

// doing is the same type with a function that does it.
func doing(name string, f jobs.HandlerFunc) *jobs.Type {
	t := remote(name)
	t.Remote, t.Handler = false, f
	return t
}

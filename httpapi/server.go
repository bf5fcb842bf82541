package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs/access"
	"jobstream/jobs/api"
)

// Health knows the state of the parts of the process.
type Health interface {
	// Check returns the state of every part by its name: nil, or an error whose text
	// is shown to anybody who asks.
	Check(ctx context.Context) map[string]error
}

// Options configure a [Server].
type Options struct {
	Backend *api.Backend // required
	Health  Health       // nil = only the server itself is checked
	MaxBody int64        // bytes of a request's body; 0 = DefaultMaxBody
	// MaxUpload bounds the bytes of an uploaded file; 0 = DefaultMaxUpload.
	MaxUpload int64
	Keyring   *access.Keyring // who may do what; nil = everybody may do everything
	MaxConns  int             // connections at a time; more are refused; 0 = no bound
	Hosts     []string        // names and addresses that requests may be for, besides loopback and where they come in
	TLS       *tls.Config     // of connections that come in by Serve; nil = they are not encrypted
	Bounds    Bounds          // how much is done at a time
	Version   string          // of the program, for the descriptions of the API; "" = unknown
	Logger    *slog.Logger    // nil = silence
	Count     Counter         // nil = answers are not counted
	// Cluster are the other nodes; nil = there are none.
	Cluster Cluster
	// Around returns a handler around the one that answers requests; nil = none. A request
	// has the pattern of its operation when it comes back.
	Around func(http.Handler) http.Handler
}

// Counter gives what counts the answers to an operation. Those to requests that came to
// none have the name "(none)". waited says that an answer took as long as its client
// wanted.
type Counter func(operation string) func(status int, took time.Duration, waited bool)

// DefaultMaxBody is the bound of a request's body without another one in [Options]: 1 MiB.
const DefaultMaxBody = 1 << 20

// DefaultMaxUpload is the bound of an uploaded file without another one in [Options]: 1 GiB.
const DefaultMaxUpload = 1 << 30

// Bounds on how long and how much a client may keep a connection busy with one request.
// A download gets more time by its size, a wait by its length.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = time.Minute
	writeTimeout      = 2 * time.Minute // from the end of the header on, so it includes reading
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
)

// Server is the REST door. Its methods may be called from any goroutine.
type Server struct {
	maxBody   int64
	maxUpload int64
	maxConns  int
	bounds    Bounds
	calls     chan struct{} // has a token for each request that is worked on
	waits     chan struct{} // has a token for each request that waits
	uploads   chan struct{} // has a token for each file that comes in
	bodies    atomic.Int64  // bytes of the bodies of all
	sources   *sources
	cluster   Cluster // nil = there is none
	keyring   *access.Keyring
	sessions  *sessions
	log       *slog.Logger

	described func() *documents // makes them once

	behind   atomic.Pointer[inside]
	http     *http.Server
	listener atomic.Pointer[bounded] // set by Serve
	draining atomic.Bool
	open     context.Context // ends when the server drains, and ends all waits
	close    context.CancelFunc
	silent   sync.Map // connections without a request so far; see hush
}

// New makes a server. It does not listen before [Server.Serve].
func New(o Options) *Server {
	s := &Server{
		maxBody: o.MaxBody, maxUpload: o.MaxUpload, maxConns: o.MaxConns, log: o.Logger, keyring: o.Keyring, cluster: o.Cluster,
		sources: newSources(o.Hosts), sessions: newSessions(),
	}
	if o.Keyring != nil {
		o.Keyring.OnChange(s.sessions.end)
	}
	s.bounds = o.Bounds.orDefault(o.MaxConns)
	s.calls, s.waits = make(chan struct{}, s.bounds.Calls), make(chan struct{}, s.bounds.Waits)
	s.uploads = make(chan struct{}, s.bounds.Uploads)
	s.described = sync.OnceValue(func() *documents { return describe(o.Version) })
	s.behind.Store(&inside{backend: o.Backend, health: o.Health})
	s.open, s.close = context.WithCancel(context.Background())
	if s.maxBody <= 0 {
		s.maxBody = DefaultMaxBody
	}
	if s.maxUpload <= 0 {
		s.maxUpload = DefaultMaxUpload
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	e := echo.New()
	if o.Count == nil {
		o.Count = func(string) func(int, time.Duration, bool) { return func(int, time.Duration, bool) {} }
	}
	e.Use(s.around(o.Count("(none)")))
	s.routes(e, o.Count)
	s.http = &http.Server{
		Handler:           e,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		ConnState:         s.follow,
	}
	if o.TLS != nil {
		s.http.TLSConfig = speaks(o.TLS, "h2", "http/1.1")
	}
	if o.Around != nil {
		s.http.Handler = o.Around(e)
	}
	s.http.RegisterOnShutdown(s.hush)
	return s
}

// follow keeps the set of silent connections up to date.
func (s *Server) follow(c net.Conn, state http.ConnState) {
	if state == http.StateNew {
		s.silent.Store(c, nil)
		return
	}
	s.silent.Delete(c)
	if state == http.StateClosed || state == http.StateHijacked {
		s.listener.Load().left()
	}
}

// hush closes the connections without a request. Browsers and other clients open some
// in advance, and net/http would wait seconds for each.
func (s *Server) hush() {
	s.silent.Range(func(c, _ any) bool {
		if c, ok := c.(net.Conn); ok {
			_ = c.Close() // nobody waits for anything from it
		}
		return true
	})
}

// Connections is the number of open connections.
func (s *Server) Connections() int {
	if l := s.listener.Load(); l != nil {
		return int(l.open.Load())
	}
	return 0
}

// Handler serves all routes, for use without [Server.Serve].
func (s *Server) Handler() http.Handler { return s.http.Handler }

// Serve answers the requests that come in by l. It returns nil after [Server.Shutdown].
// It closes l, and is called once.
func (s *Server) Serve(l net.Listener) error {
	bounded := bound(l, s.maxConns, s.http.TLSConfig, s.log)
	s.listener.Store(bounded)
	serve := s.http.Serve
	if s.http.TLSConfig != nil {
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") } // the certificates are in TLSConfig
	}
	if err := serve(bounded); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// speaks is c for connections that speak one of these protocols.
func speaks(c *tls.Config, protocols ...string) *tls.Config {
	c = c.Clone()
	c.NextProtos = protocols
	if of := c.GetConfigForClient; of != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			its, err := of(hello)
			if its == nil || err != nil {
				return its, err
			}
			return speaks(its, protocols...), nil
		}
	}
	return c
}

// Drain announces the end. From then on /readyz answers 503, and submissions are refused
// with shutting_down. Requests that wait for a job are answered with the job as it is.
// Everything else goes on.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.close()
}

// Shutdown drains, accepts no more connections and waits until the running requests are
// answered. If ctx ends first, it cuts them off and returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	err := s.http.Shutdown(ctx)
	if err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

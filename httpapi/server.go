package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs/api"
)

// Health knows how the parts of the process are.
type Health interface {
	// Check looks at every part and returns, by the part's name, nil or what is
	// wrong with it. The text of an error is shown to whoever asks.
	Check(ctx context.Context) map[string]error
}

// Options configure a [Server].
type Options struct {
	Backend  *api.Backend // required
	Health   Health       // nil: nothing to check but the server itself
	MaxBody  int64        // bytes of a request's body; 0 = DefaultMaxBody
	MaxConns int          // connections at a time; more are refused; 0 = no bound
	Hosts    []string     // names and addresses that requests may be for, besides loopback and where they come in
	Bounds   Bounds       // how much is done at a time
	Logger   *slog.Logger // nil: silence
}

// DefaultMaxBody bounds a request's body unless [Options] say otherwise: 1 MiB.
const DefaultMaxBody = 1 << 20

// Bounds on how long and how much a client may keep a connection busy with one
// request. Downloads get more time by their size, waiting by its length.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = time.Minute
	writeTimeout      = 2 * time.Minute // from the end of the header on, so it includes reading
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
)

// Server is the REST door. Its methods may be called from any goroutine.
type Server struct {
	maxBody  int64
	maxConns int
	bounds   Bounds
	calls    chan struct{} // holds a token for each request that is worked on
	waits    chan struct{} // and one for each that waits
	bodies   atomic.Int64  // bytes of the bodies of all
	sources  *sources
	log      *slog.Logger

	behind   atomic.Pointer[inside]
	echo     *echo.Echo
	http     *http.Server
	listener *bounded // set by Serve
	draining atomic.Bool
	open     context.Context // ends when the server drains, and with it all waiting
	close    context.CancelFunc
	silent   sync.Map // connections that have not asked for anything yet; see hush
}

// New makes a server. It listens nowhere before [Server.Serve].
func New(o Options) *Server {
	s := &Server{
		maxBody: o.MaxBody, maxConns: o.MaxConns, log: o.Logger,
		sources: newSources(o.Hosts), echo: echo.New(),
	}
	s.bounds = o.Bounds.orDefault(o.MaxConns)
	s.calls, s.waits = make(chan struct{}, s.bounds.Calls), make(chan struct{}, s.bounds.Waits)
	s.Replace(o.Backend, o.Health)
	s.open, s.close = context.WithCancel(context.Background())
	if s.maxBody <= 0 {
		s.maxBody = DefaultMaxBody
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.echo.Use(s.around)
	s.routes(s.echo)
	s.http = &http.Server{
		Handler:           s.echo,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		ConnState:         s.follow,
	}
	s.http.RegisterOnShutdown(s.hush)
	return s
}

// follow keeps silent up to date.
func (s *Server) follow(c net.Conn, state http.ConnState) {
	if state == http.StateNew {
		s.silent.Store(c, nil)
		return
	}
	s.silent.Delete(c)
	if state == http.StateClosed || state == http.StateHijacked {
		s.listener.left()
	}
}

// hush closes the connections that have not asked for anything. Browsers and
// other clients open some in advance; net/http would wait seconds for each.
func (s *Server) hush() {
	s.silent.Range(func(c, _ any) bool {
		if c, ok := c.(net.Conn); ok {
			_ = c.Close() // nobody waits for anything from it
		}
		return true
	})
}

// Handler is everything that is served, for use without [Server.Serve].
func (s *Server) Handler() http.Handler { return s.echo }

// Serve answers requests that come in by l until [Server.Shutdown], after which
// it returns nil. It closes l, and is called once.
func (s *Server) Serve(l net.Listener) error {
	s.listener = bound(l, s.maxConns, s.log)
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Drain announces the end: /readyz answers 503, submissions are refused with
// shutting_down, and whoever waits for a job to end gets it as it is, while
// everything else goes on.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.close()
}

// Shutdown drains, takes no more connections and waits until the requests that
// run are answered. When ctx ends first it cuts them off and returns ctx's
// error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	err := s.http.Shutdown(ctx)
	if err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

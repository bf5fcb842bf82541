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

	"jobstream/jobs"
)

// Submitter takes jobs in.
type Submitter interface {
	// Submit checks and admits s, waits until it is durable and returns the
	// committed job, which is shared. It may keep s and its payload. What is wrong
	// with s, or keeps the server from taking it, comes back as a *jobs.Error.
	Submit(ctx context.Context, s *jobs.Submission) (*jobs.Job, error)
}

// Reader looks jobs up. The jobs it returns are shared and never changed.
type Reader interface {
	// Job finds a job by its id; nil without an error if there is none.
	Job(ctx context.Context, id jobs.ID) (*jobs.Job, error)
	// JobBySeq finds a job by its sequence in JOBS; nil without an error if there
	// is none.
	JobBySeq(ctx context.Context, seq uint64) (*jobs.Job, error)
	// List finds a page of jobs and the cursor of the next page, "" if there is
	// none. A cursor that makes no sense is a *jobs.Error of kind invalid_request
	// with the pointer "query/cursor".
	List(ctx context.Context, p jobs.Page) (found []*jobs.Job, next string, err error)
}

// Workers is the pool as its operator sees it.
type Workers interface {
	// Stats says how it stands.
	Stats(ctx context.Context) (jobs.Stats, error)
	// Resize changes its bounds and returns the stats after that. A type that does
	// not exist is a *jobs.Error.
	Resize(ctx context.Context, r jobs.Resize) (jobs.Stats, error)
}

// Backend is what the door needs from behind it.
type Backend interface {
	Submitter
	Reader
	Workers
}

// Health knows how the parts of the process are.
type Health interface {
	// Check looks at every part and returns, by the part's name, nil or what is
	// wrong with it. The text of an error is shown to whoever asks.
	Check(ctx context.Context) map[string]error
}

// Options configure a [Server].
type Options struct {
	Backend   Backend          // required
	Health    Health           // nil: nothing to check but the server itself
	Schedules Schedules        // nil: there are none, and no paths for them
	Artifacts jobs.ArtifactDir // where GET /jobs/{id}/result finds files
	MaxBody   int64            // bytes of a request's body; 0 = DefaultMaxBody
	Logger    *slog.Logger     // nil: silence
}

// DefaultMaxBody bounds a request's body unless [Options] say otherwise: 1 MiB.
const DefaultMaxBody = 1 << 20

// Bounds on how long and how much a client may keep a connection busy with one
// request. Downloads get more time by their size; see downloadTime.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = time.Minute
	writeTimeout      = 2 * time.Minute // from the end of the header on, so it includes reading
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
)

// Server is the REST door. Its methods may be called from any goroutine.
type Server struct {
	backend   Backend
	health    Health
	schedules Schedules
	artifacts jobs.ArtifactDir
	maxBody   int64
	log       *slog.Logger

	echo     *echo.Echo
	http     *http.Server
	draining atomic.Bool
	silent   sync.Map // connections that have not asked for anything yet; see hush
}

// New makes a server. It listens nowhere before [Server.Serve].
func New(o Options) *Server {
	s := &Server{
		backend: o.Backend, health: o.Health, schedules: o.Schedules, artifacts: o.Artifacts, maxBody: o.MaxBody, log: o.Logger,
		echo: echo.New(),
	}
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
// it returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Drain announces the end: /readyz answers 503 and submissions are refused with
// shutting_down, while everything else goes on.
func (s *Server) Drain() { s.draining.Store(true) }

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

package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// Submitter takes jobs in.
type Submitter interface {
	// Submit checks and admits s, waits until it is durable and returns the
	// committed job, which is shared; replayed says that it is the one which s's
	// token made before. It may keep s and its payload. What is wrong with s, or
	// keeps the server from taking it, comes back as a *jobs.Error.
	Submit(ctx context.Context, s *jobs.Submission) (j *jobs.Job, replayed bool, err error)
	// SubmitBatch does that for all of subs or none, by the token of them all, which
	// may be nil.
	SubmitBatch(ctx context.Context, subs []*jobs.Submission, token *jobs.Token) (made []*jobs.Job, replayed bool, err error)
}

// Reader looks jobs up. The jobs it returns are shared and never changed.
type Reader interface {
	// Job finds a job by its id; nil without an error if there is none.
	Job(ctx context.Context, id jobs.ID) (*jobs.Job, error)
	// JobBySeq finds a job by its sequence in JOBS; nil without an error if there
	// is none.
	JobBySeq(ctx context.Context, seq uint64) (*jobs.Job, error)
	// Wait returns the job with this id once it has ended; when ctx ends or the
	// server stops before that, as it is then. It is nil if there is none.
	Wait(ctx context.Context, id jobs.ID) (*jobs.Job, error)
	// Waiting says why a job is not running; nil if it is, or has ended.
	Waiting(j *jobs.Job) *jobs.Waiting
	// List finds a page of jobs. A cursor that makes no sense is a *jobs.Error of
	// kind invalid_request with the pointer "query/cursor".
	List(ctx context.Context, p jobs.Page, take func(*jobs.Job) bool) (jobs.Listing, error)
	// Counts counts the jobs that f chooses.
	Counts(ctx context.Context, f jobs.Filter) (jobs.Counts, error)
}

// Operator changes jobs by hand; see [api.Operator]. An actor is who asks for that.
type Operator interface {
	// Cancel ends a job that has not ended.
	Cancel(ctx context.Context, actor string, j *jobs.Job, reason string) (*jobs.Job, error)
	// Retry lets a failed or cancelled job run again.
	Retry(ctx context.Context, actor string, j *jobs.Job) (*jobs.Job, error)
	// Delete removes an ended job and what it has left behind.
	Delete(ctx context.Context, j *jobs.Job) error
	// Bulk submits the job that does a change of many jobs.
	Bulk(ctx context.Context, request json.RawMessage, token *jobs.Token) (j *jobs.Job, replayed bool, err error)
	// CountBulk is the number of jobs that b would change.
	CountBulk(ctx context.Context, b *api.Bulk) (int, error)
}

// Types are the job types. A type that does not exist, or is internal, is a
// *jobs.Error of kind not_found.
type Types interface {
	// Types lists all that are not internal.
	Types(ctx context.Context) ([]api.TypeInfo, error)
	// Type finds one by its name.
	Type(ctx context.Context, name string) (*api.TypeInfo, error)
	// SetPaused pauses one for good, or lets it go on.
	SetPaused(ctx context.Context, actor, name string, paused bool) (*api.TypeInfo, error)
}

// Workers is the pool as its operator sees it.
type Workers interface {
	// Stats says how it stands.
	Stats(ctx context.Context) (api.Stats, error)
	// Resize changes its bounds and returns the stats after that. A type that does
	// not exist is a *jobs.Error.
	Resize(ctx context.Context, r jobs.Resize) (api.Stats, error)
}

// Backend is what the door needs from behind it.
type Backend interface {
	Submitter
	Reader
	Operator
	Types
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
	Backend   Backend        // required
	Health    Health         // nil: nothing to check but the server itself
	Schedules Schedules      // nil: there are none, and no paths for them
	Artifacts jobs.Artifacts // where GET /jobs/{id}/result finds files; nil only where no job leaves one
	MaxBody   int64          // bytes of a request's body; 0 = DefaultMaxBody
	MaxConns  int            // connections at a time; more are refused; 0 = no bound
	Hosts     []string       // names and addresses that requests may be for, besides loopback and where they come in
	Bounds    Bounds         // how much is done at a time
	Logger    *slog.Logger   // nil: silence
}

// actor is who asks for what comes in here, see [jobs.Stamp]. Nobody has to log in.
const actor = "rest"

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
	artifacts jobs.Artifacts
	maxBody   int64
	maxConns  int
	bounds    Bounds
	calls     chan struct{} // holds a token for each request that is worked on
	waits     chan struct{} // and one for each that waits
	bodies    atomic.Int64  // bytes of the bodies of all
	sources   *sources
	log       *slog.Logger

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
		artifacts: o.Artifacts, maxBody: o.MaxBody, maxConns: o.MaxConns, log: o.Logger,
		sources: newSources(o.Hosts), echo: echo.New(),
	}
	s.bounds = o.Bounds.orDefault(o.MaxConns)
	s.calls, s.waits = make(chan struct{}, s.bounds.Calls), make(chan struct{}, s.bounds.Waits)
	s.Replace(o.Backend, o.Health, o.Schedules)
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

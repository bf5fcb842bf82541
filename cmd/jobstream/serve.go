package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/cmd/node/traces"
	"jobstream/jobs/access"
)

type serveCommand struct {
	configFlag
	Port     *string `placeholder:"PORT" help:"REST port, instead of server.port; 0 for any free one."`
	NATSPort *string `name:"nats-port" placeholder:"PORT" help:"NATS port, instead of broker.port; --nats-port=-1 for any free one, 0 for none."`
	Data     *string `placeholder:"DIR" help:"Data folder, instead of data.dir."`
}

// flags are the given flags.
func (c *serveCommand) flags() (given []config.Flag) {
	for _, f := range []struct {
		name, key string
		value     *string
	}{{"--port", "server.port", c.Port}, {"--nats-port", "broker.port", c.NATSPort}, {"--data", "data.dir", c.Data}} {
		if f.value != nil {
			given = append(given, config.Flag{Name: f.name, Key: f.key, Value: *f.value})
		}
	}
	return given
}

// errSecondSignal ends the server at once.
var errSecondSignal = errors.New("stopped at once by a second signal; the next start recovers what was under way")

// Run serves until a signal comes or something breaks.
func (c *serveCommand) Run(p *program) error {
	cfg, err := loadConfig(p, c.File, c.flags()...)
	if err != nil {
		return err
	}
	signals, reloads, stop := watchSignals()
	defer stop()
	log, level := newLogger(cfg.Log, p.Stderr)
	s := &server{cfg: cfg, log: log, level: level, signals: signals, reloads: reloads}
	s.reread = func(further ...config.Flag) (*config.Config, error) {
		if err := configFile(c.File); err != nil {
			return nil, err
		}
		return loadConfig(p, c.File, append(c.flags(), further...)...)
	}
	if cfg.IsWorker() {
		return (&workerNode{server: s}).work(p.Ctx)
	}
	return s.serve(p.Ctx)
}

// server is the process in serve mode: a node, its REST port and the signals.
type server struct {
	cfg     *config.Config
	log     *slog.Logger
	level   *slog.LevelVar                                       // of log
	signals <-chan os.Signal                                     // end the server
	reloads <-chan os.Signal                                     // nil: none
	reread  func(further ...config.Flag) (*config.Config, error) // nil: the configuration never changes
	change  func(*node.Options)                                  // tests change the options before the start; may be nil
	node    *node.Node
	tracer  *traces.Tracer // nil: none
	tasks   sync.WaitGroup
	// operator is the token of whoever may read the data folder.
	operator string
}

// serve is the life of the server, or several of them if it has to begin again. It returns
// nil after a clean stop, which the first signal or the end of ctx begins.
func (s *server) serve(ctx context.Context) error {
	defer flushLog(s.log)
	keepInherited()
	for {
		err := s.live(ctx)
		if !errors.Is(err, node.ErrAgain) {
			return err
		}
		s.log.Warn("starting again", "reason", err)
	}
}

// live is one life.
func (s *server) live(ctx context.Context) error {
	listener, err := s.listen(ctx)
	if err != nil {
		return err
	}
	s.warn()
	defer func() { _ = listener.Close() }() // the REST door closes it, if it is ever reached
	defer s.tasks.Wait()
	version, _, _ := versions()
	if s.tracer, err = traces.FromEnv(ctx, version, s.log); err != nil {
		return &usageError{Err: err}
	}
	defer s.flushSpans(ctx)
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan error, 1)
	go func() { started <- s.start(starting, listener.Addr()) }()
	select {
	case err = <-started:
	case <-s.signals:
		cancel()
		select {
		case err = <-started:
		case <-s.signals: // a start may be reading a large folder
			return errSecondSignal
		}
		if errors.Is(err, context.Canceled) {
			return nil // nothing was accepted before the server was up
		}
		if err != nil {
			return err
		}
		return s.stop(ctx, nil)
	}
	if err != nil {
		return err
	}
	serving := make(chan error, 1)
	go func() { serving <- s.node.Serve(listener) }()
	s.ready(listener.Addr())
	return s.stop(ctx, s.run(ctx, serving))
}

// lastSpans is how long a stop may take for the export of the last spans.
const lastSpans = 5 * time.Second

// flushSpans exports the last spans.
func (s *server) flushSpans(ctx context.Context) {
	if s.tracer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSpans)
	defer cancel()
	if err := s.tracer.Close(ctx); err != nil {
		s.log.Warn("the last spans were lost", "error", err)
	}
}

// run returns when the server has to end: with an error if a part has broken.
func (s *server) run(ctx context.Context, serving <-chan error) error {
	reloading, cancel := context.WithCancel(ctx)
	var reloads sync.WaitGroup
	defer reloads.Wait()
	defer cancel()
	for {
		select {
		case <-s.reloads:
			reloads.Go(func() { _, _ = s.node.Reload(reloading) }) // it logs the outcome
		case <-s.signals:
			return nil
		case <-ctx.Done():
			return nil
		case err := <-s.node.Broken():
			return err
		case err := <-serving:
			return fmt.Errorf("the REST server broke: %w", err)
		}
	}
}

// listen opens the REST port, before anything else is touched.
func (s *server) listen(ctx context.Context) (net.Listener, error) {
	addr := net.JoinHostPort(s.cfg.Server.Host, strconv.Itoa(s.cfg.Server.Port))
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %d on %s is in use (server.port); stop what uses it or choose another", s.cfg.Server.Port, s.cfg.Server.Host)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s (server.host, server.port): %w", addr, err)
	}
	return l, nil
}

// warn logs a warning if other machines can use the server without a token.
func (s *server) warn() {
	open, may := s.cfg.Exposed(), s.cfg.Server.Auth.Anonymous
	if len(open) > 0 && len(may) > 0 {
		s.log.Warn("other machines can reach this server, and whoever does has these scopes without a token (server.insecure)",
			"addresses", strings.Join(open, ", "), "scopes", strings.Join(may, ", "))
	}
}

// start opens the node that the configuration describes. Its REST door is at an address.
func (s *server) start(ctx context.Context, at net.Addr) error {
	o, types, err := nodeOptions(s.cfg, s.reread, s.tracer, s.log)
	if err != nil {
		return err
	}
	if err := s.encrypt(ctx, &o); err != nil {
		return err
	}
	o.LogLevel = s.level
	s.operator = access.NewToken()
	tokens := watch(s.cfg.Server.Auth.TokensFile)
	keys, err := s.keys()
	if err != nil {
		return &usageError{Err: err}
	}
	signed, follow, err := s.verifier(ctx)
	if err != nil {
		return &usageError{Err: err}
	}
	o.Keyring = access.NewKeyring(access.Options{Anonymous: s.cfg.Anonymous(), Tokens: keys, Verifier: signed, Logger: s.log})
	if s.change != nil {
		s.change(&o)
	}
	warnOfPrograms(s.cfg, s.log)
	if s.node, err = node.Open(ctx, o, types); err != nil {
		return err
	}
	if s.cfg.Server.Auth.TokensFile != "" {
		s.tasks.Go(func() { s.followTokens(ctx, tokens, o.Keyring) })
	}
	if follow != nil {
		s.tasks.Go(func() { follow(o.Keyring) })
	}
	s.writeOperator(at)
	return nil
}

// ready logs the addresses of the server and a first command to try.
func (s *server) ready(addr net.Addr) {
	rest := "http://" + addr.String()
	try := "curl " + rest
	if cert := s.cfg.Server.TLS.Cert; cert != "" {
		rest = "https://" + addr.String()
		try = "curl --cacert " + cert + " " + rest
	}
	if url := s.cfg.Callbacks.PublicURL; url != "" {
		try = "curl " + url
	}
	login := ""
	if !slices.Contains(s.cfg.Server.Auth.Anonymous, string(access.Submit)) {
		login = ` -H "Authorization: Bearer $TOKEN"`
	}
	args := []any{"rest", rest}
	if url := s.node.NATSURL(); url != "" {
		args = append(args, "nats", url)
	}
	dir, err := filepath.Abs(s.cfg.Data.Dir)
	if err != nil {
		dir = s.cfg.Data.Dir
	}
	args = append(args, "data", dir, "workers", s.cfg.Worker.MaxWorkers,
		"try", fmt.Sprintf(`%s/jobs%s -d '%s'`, try, login, firstJob(s.cfg.Jobs)))
	s.log.Info("ready", args...)
}

// firstJobs are first submissions for a newcomer, by their run, the most rewarding
// first.
var firstJobs = []struct{ run, payload string }{
	{"report", ""},
	{"export", ""},
	{"cleanup", `,"payload":{"older_than":"30d","dry_run":true}`},
	{"email", `,"payload":{"to":"user@example.com","subject":"Hello","body":"Test email"}`},
	{"", ""},
}

// firstJob is a submission that works with these types.
func firstJob(types map[string]config.JobType) string {
	names := slices.Sorted(maps.Keys(types))
	for _, try := range firstJobs {
		for _, name := range names {
			if try.run == types[name].Run || try.run == "" {
				return fmt.Sprintf(`{"type":"%s"%s}`, name, try.payload)
			}
		}
	}
	return "{}"
}

// stop is the graceful end. why is the failure that caused it, if any.
func (s *server) stop(ctx context.Context, why error) error {
	s.log.Info("stopping: no new jobs; running ones get their grace", "grace", s.cfg.Worker.ShutdownGrace)
	done := make(chan error, 1)
	go func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Worker.ShutdownGrace)
		defer cancel()
		done <- s.node.Shutdown(grace)
	}()
	select {
	case err := <-done:
		if err = errors.Join(why, err); err != nil {
			return err
		}
		s.log.Info("stopped")
		return nil
	case <-s.signals:
		return errSecondSignal
	}
}

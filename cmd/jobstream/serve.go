package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/jobstream/internal/lograte"
	"jobstream/cmd/node"
	"jobstream/cmd/node/natsdoor"
	"jobstream/httpapi"
	"jobstream/jobs"
	"jobstream/jobs/handlers/bulk"
	"jobstream/jobs/handlers/cleanup"
	"jobstream/jobs/handlers/email"
)

type serveCommand struct {
	configFlag
	Port     *string `placeholder:"PORT" help:"REST port, instead of server.port; 0 for any free one."`
	NATSPort *string `name:"nats-port" placeholder:"PORT" help:"NATS port, instead of broker.port; --nats-port=-1 for any free one, 0 for none."`
	Data     *string `placeholder:"DIR" help:"Data folder, instead of data.dir."`
}

// flags are those that were given.
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
	cfg, err := p.loadConfig(c.File, c.flags()...)
	if err != nil {
		return err
	}
	signals, stop := endSignals()
	defer stop()
	s := &server{cfg: cfg, log: newLogger(cfg.Log, p.stderr), signals: signals}
	return s.serve(p.ctx)
}

// newLogger makes a logger that logs the same thing seldom: see lograte. Whoever is done
// with it calls flushLog.
func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(lograte.New(slog.NewJSONHandler(w, o)))
	}
	return slog.New(lograte.New(slog.NewTextHandler(w, o)))
}

// flushLog logs what newLogger's logger has only counted so far.
func flushLog(log *slog.Logger) {
	if h, ok := log.Handler().(*lograte.Handler); ok {
		h.Close()
	}
}

// server is the process in serve mode: a node, its REST door and its service.
type server struct {
	cfg     *config.Config
	log     *slog.Logger
	signals <-chan os.Signal

	began    time.Time
	rest     *httpapi.Server
	dirs     node.Folders
	maxConns int // at each port
	natsPort int // as the configuration says; then the one that was taken

	node          *node.Core   // nil between two; see heal.go
	lives         atomic.Int64 // nodes that were started, or tried to be
	healer        healer
	stopRetention func()
}

// serve is the life of the server: it returns nil after a clean stop, which the
// first signal or the end of ctx begins.
func (s *server) serve(ctx context.Context) error {
	defer flushLog(s.log)
	listener, err := s.listen(ctx)
	if err != nil {
		return err
	}
	s.warn()
	defer func() { _ = listener.Close() }() // closed by the REST door, unless it never came to that
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan error, 1)
	go func() { started <- s.start(starting) }()
	select {
	case err = <-started:
	case <-s.signals:
		cancel()
		select {
		case err = <-started:
		case <-s.signals: // a start may be in the middle of reading a large folder
			return errSecondSignal
		}
		if errors.Is(err, context.Canceled) {
			return nil // stopped before it was up; nothing was accepted
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
	go func() { serving <- s.rest.Serve(listener) }()
	s.ready(listener.Addr())
	if err = s.run(ctx, serving); errors.Is(err, errSecondSignal) {
		return err
	}
	return s.stop(ctx, err)
}

// run returns when the server is to end: with an error if something has broken.
func (s *server) run(ctx context.Context, serving <-chan error) error {
	for {
		select {
		case <-s.signals:
			return nil
		case <-ctx.Done():
			return nil
		case err := <-s.node.Failed:
			s.log.Error("a part of the server broke; stopping", "error", err)
			return err
		case err := <-serving:
			return fmt.Errorf("the REST server broke: %w", err)
		case why := <-s.node.Mend:
			if over, err := s.healing(ctx, why); over {
				return err
			}
		}
	}
}

// listen takes the REST port, before anything else is touched.
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

// warn says so if there is reason to worry about who reaches the server.
func (s *server) warn() {
	if open := s.cfg.Exposed(); len(open) > 0 {
		s.log.Warn("other machines can reach this server and nobody has to log in: whoever does may do everything (server.insecure)",
			"addresses", strings.Join(open, ", "))
	}
}

// leastMessage is the least bound of the broker's messages, in bytes: the event
// that ends a job carries its result and error, which max_body does not bound.
const leastMessage = 2*jobs.MaxResult + 64<<10

// start brings node and doors up.
func (s *server) start(ctx context.Context) (err error) {
	s.began, s.dirs, s.natsPort = time.Now(), node.FoldersIn(s.cfg.Data.Dir), s.cfg.Broker.Port
	if s.maxConns, err = conns(s.cfg.Server.MaxConnections, s.cfg.Worker.MaxWorkers, s.log); err != nil {
		return err
	}
	return s.up(ctx)
}

// up starts a node and opens the doors to it.
func (s *server) up(ctx context.Context) (err error) {
	s.lives.Add(1)
	tracker := &node.LateTracker{}
	tools := handlerServer(s.cfg, s.dirs, tracker)
	types, err := makeTypes(s.cfg, tools)
	if err != nil {
		return err
	}
	cleaner := tools.Cleaner()
	registry := jobs.NewRegistry(append(types, bulkType(bulk.New(tracker, cleaner.Remove)))...)
	if err := checkSchedules(registry, s.cfg.Schedules); err != nil {
		return err
	}
	if s.rest == nil { // else who has taken the folder away has to put it back
		if err := s.dirs.Make(); err != nil {
			return err
		}
	}
	if err := email.SweepOutbox(s.dirs.Outbox); err != nil {
		return err
	}
	n, err := node.Start(ctx, node.Options{
		Dirs: s.dirs, Registry: registry, Tracker: tracker,
		Host: s.cfg.Broker.Host, Port: s.natsPort, MaxConns: s.maxConns,
		Sync: s.cfg.Broker.Sync, SyncAlways: s.cfg.Broker.Sync == config.SyncAlways,
		MaxWorkers: s.cfg.Worker.MaxWorkers, MinWorkers: s.cfg.Worker.MinWorkers,
		QueueSize: s.cfg.Worker.QueueSize, Scheduled: s.cfg.Worker.MaxScheduled, Schedules: s.cfg.Schedules, MaxPayload: max(int(s.cfg.Server.MaxBody), leastMessage),
		Lease: s.cfg.Worker.Lease, MaxLost: s.cfg.Worker.MaxLost, Started: s.began, Again: s.rest != nil, Logger: s.log,
	})
	if err != nil {
		return err
	}
	back := node.NewBackend(n, cleaner.Remove)
	version, _, _ := versions()
	if err := n.Broker.Service.Serve(serviceVersion(version), "background jobs: submit, run, watch and control them", natsdoor.Endpoints(back)); err != nil {
		n.Abandon(err)
		return err
	}
	s.node, s.natsPort = n, n.Broker.Port()
	s.stopRetention = s.startRetention(cleaner)
	if s.rest != nil {
		s.rest.Replace(back, n)
		return nil
	}
	s.rest = httpapi.New(httpapi.Options{
		Backend: back, Health: n,
		MaxBody: s.cfg.Server.MaxBody, Hosts: append([]string{s.cfg.Server.Host}, s.cfg.Server.Hosts...), MaxConns: s.maxConns, Logger: s.log,
	})
	return nil
}

// down ends the node without settling anything, as it is stuck.
func (s *server) down(why error) {
	s.stopRetention()
	s.node.Abandon(why)
	s.node = nil
}

// serviceVersion is version as the service protocol wants it: a semantic one.
func serviceVersion(version string) string {
	if len(version) > 1 && version[0] == 'v' {
		return version[1:]
	}
	return "0.0.0"
}

// ready says where the server is and what to type next.
func (s *server) ready(addr net.Addr) {
	rest := "http://" + addr.String()
	args := []any{"rest", rest}
	if url := s.node.Broker.ClientURL(); url != "" {
		args = append(args, "nats", url)
	}
	dir, err := filepath.Abs(s.dirs.Root)
	if err != nil {
		dir = s.dirs.Root
	}
	args = append(args, "data", dir, "workers", s.cfg.Worker.MaxWorkers,
		"try", fmt.Sprintf(`curl %s/jobs -d '%s'`, rest, firstJob(s.cfg.Jobs)))
	s.log.Info("ready", args...)
}

// firstJobs are what a newcomer can submit, by what runs it, the most rewarding
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

// stop is the graceful end. why is what broke, if anything did.
func (s *server) stop(ctx context.Context, why error) error {
	s.log.Info("stopping: no new jobs; running ones get their grace", "grace", s.cfg.Worker.ShutdownGrace)
	done := make(chan error, 1)
	go func() { done <- s.drain(context.WithoutCancel(ctx)) }()
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

func (s *server) drain(ctx context.Context) error {
	s.rest.Drain()
	var err error
	if s.node != nil {
		s.stopRetention()
		err = s.node.StopTaking(s.cfg.Worker.ShutdownGrace)
	}
	closing, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if e := s.rest.Shutdown(closing); e != nil {
		s.log.Warn("some requests were cut off", "error", e)
	}
	if s.node != nil {
		err = errors.Join(err, s.node.Close())
	}
	return err
}

// retentionEvery is how often what is old is deleted.
const retentionEvery = time.Hour

// startRetention deletes finished jobs that are old enough, now and then hourly, until
// stop is called.
func (s *server) startRetention(cleaner *cleanup.Handler) (stop func()) {
	if s.cfg.Retention.Finished <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.retention(ctx, cleaner)
	}()
	return func() { cancel(); <-done }
}

func (s *server) retention(ctx context.Context, cleaner *cleanup.Handler) {
	tick := time.NewTicker(retentionEvery)
	defer tick.Stop()
	for {
		deleted, freed, err := cleaner.Run(ctx, s.cfg.Retention.Finished, nil)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Warn("deleting old jobs failed; it is tried again in an hour", "error", err)
		case deleted > 0:
			s.log.Info("deleted old jobs", "jobs", deleted, "bytes", freed, "older_than", s.cfg.Retention.Finished)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	jobclient "jobstream/broker/client"
	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/httpapi/metrics"
	"jobstream/jobs"
)

// workerNode is the process in serve mode with node.role: worker. It has no jobs: it takes
// leases of a server, or of the cluster that it finds by broker.url.
type workerNode struct {
	*server
	figures  jobclient.Figures
	client   *jobclient.Client
	stopping atomic.Bool
}

// work is the life of a worker. It returns nil after a clean stop, which the first signal or
// the end of ctx begins.
func (w *workerNode) work(ctx context.Context) error {
	defer flushLog(w.log)
	keepInherited()
	listener, err := w.listen(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }() // the doors close it, if they are ever opened
	dirs := node.FoldersIn(w.cfg.Data.Dir)
	release, err := ownFolder(dirs)
	if err != nil {
		return err
	}
	defer release()
	types, err := (&typeMaker{tools: handlerServer(w.cfg, dirs, &node.Tools{}, jobs.NewArtifactDir(dirs.Artifacts, 0))}).make(w.cfg)
	if err != nil {
		return err
	}
	warnOfPrograms(w.cfg, w.log)
	if err := sweep(dirs, w.log); err != nil {
		return err
	}
	if w.client, err = w.connect(); err != nil {
		return err
	}
	defer w.client.Close()
	doors := &http.Server{Handler: w.doors(), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	serving := make(chan error, 1)
	go func() { serving <- doors.Serve(listener) }()
	defer func() { _ = doors.Close() }() // nobody waits for an answer that matters
	return w.run(ctx, jobs.NewRegistry(types...), listener.Addr(), serving)
}

// run takes leases until the worker has to end.
func (w *workerNode) run(ctx context.Context, types *jobs.Registry, at net.Addr, serving <-chan error) error {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	o := jobclient.Options{
		Concurrency: w.cfg.Worker.MaxWorkers, Name: w.workerName(), REST: w.cfg.Callbacks.PublicURL,
		Grace: cmp.Or(w.cfg.Worker.ShutdownGrace, -1), Figures: &w.figures, Logger: w.log,
	}
	go func() { ended <- w.client.Work(asking, types, o) }()
	var names []string
	for _, t := range types.Types() {
		names = append(names, t.Name)
	}
	w.log.Info("the worker has started", "health", "http://"+at.String(), "worker", o.Name, "types", strings.Join(names, ", "), "workers", o.Concurrency)
	var why error
	for over := false; !over; {
		select {
		case <-w.reloads:
			w.log.Warn("a worker reads its configuration at its start only; restart it, which costs its jobs no attempt")
		case err := <-ended:
			if errors.Is(err, nats.ErrAuthorization) {
				err = fmt.Errorf("the server does not let this worker in: broker.token, or the one in broker.url, must be a token of the server with the scope work: %w", err)
			}
			return err
		case why = <-serving:
			why, over = fmt.Errorf("the doors for health and metrics broke: %w", why), true
		case <-w.signals:
			over = true
		case <-ctx.Done():
			over = true
		}
	}
	return w.finish(stop, ended, why)
}

// finish lets running jobs end, and gives back what does not.
func (w *workerNode) finish(stop func(), ended <-chan error, why error) error {
	w.stopping.Store(true)
	w.log.Info("stopping: no new jobs; running ones get their grace and go back to the server then", "grace", w.cfg.Worker.ShutdownGrace, "jobs", w.figures.Running())
	stop()
	select {
	case err := <-ended:
		if err = errors.Join(why, err); err == nil {
			w.log.Info("stopped")
		}
		return err
	case <-w.signals:
		return errSecondSignal
	}
}

// workerName is the name of this life of the worker, so that the server never takes it for
// an earlier one.
func (w *workerNode) workerName() string {
	name := w.cfg.Node.Name
	if name == "" {
		if name, _ = os.Hostname(); !jobs.ValidTypeName(name) || len(name) > 40 {
			name = "worker"
		}
	}
	return name[:min(len(name), 40)] + "#" + strings.ToLower(rand.Text()[:8])
}

// connect makes the connection to the servers, which need not run yet.
func (w *workerNode) connect() (*jobclient.Client, error) {
	to := &w.cfg.Broker.Servers
	files, err := to.TLS.Load()
	if err != nil {
		return nil, &usageError{Err: err}
	}
	options := []nats.Option{
		nats.ConnectHandler(func(nc *nats.Conn) { w.log.Info("connected to a server", "nats", nc.ConnectedUrlRedacted()) }),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			if !w.stopping.Load() {
				w.log.Info("connected to a server again", "nats", nc.ConnectedUrlRedacted())
			}
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			switch {
			case w.stopping.Load():
			case err == nil: // the client has ended it
				w.log.Info("the server cannot answer now; the worker connects anew, to another one if there is one")
			default:
				w.log.Warn("the connection to the server is lost; jobs go on, and another one is made", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { w.log.Warn("the server complains", "error", err) }),
	}
	if to.Token != "" {
		options = append(options, nats.Token(to.Token))
	}
	if files != nil {
		options = append(options, nats.Secure(files))
	}
	c, err := jobclient.Connect(to.URL, options...)
	if err != nil {
		return nil, fmt.Errorf("cannot use broker.url: %w", err)
	}
	return c, nil
}

// doors are what a worker answers: everybody who reaches it, since there is nothing to do.
func (w *workerNode) doors() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(to http.ResponseWriter, _ *http.Request) { answerHealth(to, nil) })
	mux.HandleFunc("GET /readyz", func(to http.ResponseWriter, _ *http.Request) { answerHealth(to, map[string]error{"server": w.ready()}) })
	version, _, _ := versions()
	mux.Handle("GET /metrics", metrics.WorkerHandler(func() *metrics.Worker {
		s := &metrics.Worker{Version: version, Connected: w.client.Connected(), Max: w.cfg.Worker.MaxWorkers, Running: w.figures.Running()}
		for end, n := range w.figures.Ended() {
			s.Attempts = append(s.Attempts, metrics.Attempts{Type: end.Type, End: end.How, Count: n})
		}
		return s
	}, w.log))
	return mux
}

// ready is nil if the worker is connected, and what it asks is answered.
func (w *workerNode) ready() error {
	switch {
	case w.stopping.Load():
		return errors.New("the worker is stopping")
	case !w.client.Connected():
		return errors.New("there is no connection to the server")
	}
	return w.figures.Asking()
}

// answerHealth answers a probe like a server does.
func answerHealth(to http.ResponseWriter, checks map[string]error) {
	report := struct {
		Status string            `json:"status"`
		Checks map[string]string `json:"checks"`
	}{"ok", make(map[string]string)}
	code := http.StatusOK
	for name, err := range checks {
		report.Checks[name] = "ok"
		if err != nil {
			report.Status, report.Checks[name], code = "unavailable", err.Error(), http.StatusServiceUnavailable
		}
	}
	to.Header().Set("Content-Type", "application/json")
	to.WriteHeader(code)
	_ = json.NewEncoder(to).Encode(report) // whoever asked may be gone
}

// ownFolder makes the folder in which programs work this process's own, until release is
// called: what a killed worker has left there is removed at the next start.
func ownFolder(dirs node.Folders) (release func(), err error) {
	if _, err := os.Stat(dirs.Tracker); err == nil {
		return nil, &usageError{Err: config.Problems{{Key: "data.dir", Value: dirs.Root, Text: "is the data folder of a server; a worker needs another one, for files of jobs that run"}}}
	}
	if err := dirs.Make(); err != nil {
		return nil, err
	}
	release, err = lockFolder(dirs.Root)
	if err != nil {
		return nil, fmt.Errorf("data.dir: another worker may use the folder %s; each needs one of its own: %w", dirs.Root, err)
	}
	return release, nil
}

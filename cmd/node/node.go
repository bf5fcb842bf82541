package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"jobstream/broker"
	"jobstream/cmd/node/natsdoor"
	"jobstream/httpapi"
	"jobstream/httpapi/metrics"
	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/api"
	"jobstream/jobs/figures"
	"jobstream/jobs/handlers/bulk"
	"jobstream/jobs/handlers/cleanup"
	"jobstream/jobs/intake"
	"jobstream/jobs/joblog"
)

// Node is a running server: its doors, and the core behind them, which is replaced when
// the broker is stuck. Its methods may be called from any goroutine, but Serve and
// Shutdown only once. Only the watcher's goroutine changes the watcher's fields, from Open
// to Close.
type Node struct {
	o        Options
	dirs     Folders
	registry *jobs.Registry
	log      *slog.Logger
	started  time.Time
	rest     *httpapi.Server
	member   *member              // of a cluster; nil = the node is alone
	core     atomic.Pointer[core] // nil while another one is being made, and on a member that does not lead
	figures  *figures.Collector
	metrics  *metrics.Metrics
	httpURL  string         // "" = no port
	serving  sync.WaitGroup // of the port
	internal []*jobs.Type   // those of the node's own
	limits   limits         // of types, changed by hand
	changing sync.Mutex     // guards the types, logLevel, and the change from core to core
	logLevel slog.Level     // of the configuration

	// fields of the watcher
	nats          address // first as in Options, then with the port in use
	lives         int     // cores that were started, tries included
	paused        bool    // the workers of the last core were
	healer        healer
	unhealed      error // the error without a core, if Close has interrupted its start
	stopRetention func()

	broken    chan error // the reason why the node cannot go on
	stopWatch context.CancelFunc
	watched   chan struct{} // closed when the watcher has ended
}

// Open starts a node that does the jobs of these types. nil is none. A type that is added
// to the registry later is not known. When Open returns, everything unfinished in the
// data folder is in the queue again, and workers run it. No port is open but those that
// the options ask for; [Node.Handler] is REST without one. The end of ctx interrupts the
// start, and has no effect later.
func Open(ctx context.Context, o Options, r *jobs.Registry) (*Node, error) {
	rest, nats, err := o.addresses()
	if err != nil {
		return nil, err
	}
	o = o.withDefaults()
	if rest == nil {
		return openQuietly(ctx, o, r, nats)
	}
	l, err := rest.listen(ctx) // before anything else is touched
	if err != nil {
		return nil, err
	}
	o.REST.Hosts = append(slices.Clone(o.REST.Hosts), rest.host)
	n, err := openQuietly(ctx, o, r, nats)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	n.httpURL = "http://" + l.Addr().String()
	if o.REST.TLS != nil {
		n.httpURL = "https://" + l.Addr().String()
	}
	n.serving.Go(func() {
		if err := n.Serve(l); err != nil {
			n.breaks(fmt.Errorf("the REST server broke: %w", err))
		}
	})
	return n, nil
}

// openQuietly is Open without a REST port.
func openQuietly(ctx context.Context, o Options, r *jobs.Registry, nats *address) (*Node, error) {
	n := &Node{
		o: o, dirs: FoldersIn(o.Dir), log: o.Logger, started: time.Now(),
		healer: healer{first: o.Recovery.HealPause, longest: longestEnd}, figures: figures.New(), broken: make(chan error, 1), watched: make(chan struct{}),
	}
	n.nats.host = loopbackHost
	if nats != nil {
		n.nats = *nats
		orElse(&n.nats.port, -1)
	}
	if o.LogLevel != nil {
		n.logLevel = o.LogLevel.Level()
	}
	n.metrics = metrics.New(n.snapshot, n.log)
	if n.o.Handlers.Artifacts == nil {
		n.o.Handlers.Artifacts = jobs.NewArtifactDir(n.dirs.Artifacts, 0)
	}
	if n.o.Handlers.Cleaner == nil {
		n.o.Handlers.Cleaner = cleanup.New(&o.Handlers.Tools.Tracker, n.o.Handlers.Artifacts, cleanup.Leftover{Name: "its log", Remove: joblog.New(n.dirs.Logs, nil).Remove})
	}
	callbacks, err := callbackType(&n.o.Callbacks, o.Version, &o.Handlers.Tools.Tracker)
	if err != nil {
		return nil, err
	}
	n.internal = []*jobs.Type{bulkType(bulk.New(&o.Handlers.Tools.Tracker, n.o.Handlers.Cleaner.Remove)), callbacks}
	var types []*jobs.Type
	if r != nil {
		types = r.Types()
	}
	n.registry = jobs.NewRegistry(n.withInternal(types)...)
	if err := n.dirs.Make(); err != nil {
		return nil, err
	}
	if err := n.dirs.claim(o.identity()); err != nil {
		return nil, err
	}
	open := n.up
	if o.Broker.Cluster != nil {
		open = n.join
	}
	if err := open(ctx); err != nil {
		return nil, err
	}
	// The tracker has locked the folder, so the file is nobody else's.
	n.figures.Open(n.dirs.Figures, n.log)
	if o.Keyring != nil {
		o.Keyring.OnChange(n.changed)
	}
	if n.member != nil {
		return n, nil
	}
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	n.stopWatch = cancel
	go n.watch(watching)
	return n, nil
}

// withInternal are these types and those of the server's own.
func (n *Node) withInternal(types []*jobs.Type) []*jobs.Type {
	return append(slices.Clone(types), n.internal...)
}

// changed cuts off the clients of a principal that has lost its token or a right.
func (n *Node) changed(principal string) {
	if n.member != nil {
		n.member.broker.Disconnect(principal)
	} else if c := n.core.Load(); c != nil {
		c.Broker.Disconnect(principal)
	}
}

// bulkType is the type of bulk jobs. Few run at once, as each keeps the tracker busy:
// it may change millions of jobs.
func bulkType(h jobs.Handler) *jobs.Type {
	return &jobs.Type{
		Name: api.BulkType, Internal: true, Handler: h,
		Needs: access.Manage, RetryCount: 3, Timeout: 24 * time.Hour, MaxWorkers: 2, Backoff: jobs.DefaultBackoff(),
	}
}

// coreOptions are those of the next core.
func (n *Node) coreOptions() coreOptions {
	return coreOptions{
		Options: n.o, dirs: n.dirs, registry: n.registry, nats: n.nats, started: n.started, again: n.rest != nil && n.member == nil, paused: n.paused,
		limits: &n.limits, figures: n.figures, member: n.member,
	}
}

// up starts a core and opens the doors to it.
func (n *Node) up(ctx context.Context) error {
	n.lives++
	c, err := startCore(ctx, n.coreOptions())
	if err != nil {
		return err
	}
	back := newBackend(c, n.o.Handlers.Cleaner.Remove)
	back.Reloader = n
	back.Figures = n.figures
	back.Metrics = n.metrics.Handler()
	if n.member != nil {
		back.Nodes, back.Logs = n.member, memberLogs{n.member.logs, n.member}
	} else if err := n.serveNATS(c.Broker, natsdoor.Endpoints(func() *api.Backend { return back }, n.o.traceNATS())); err != nil {
		c.abandon(err)
		return err
	}
	n.nats.port, c.natsURL = c.Broker.Port(), c.Broker.ClientURL()
	n.stopRetention = n.startRetention()
	n.core.Store(c)
	switch {
	case n.member != nil:
		n.member.stands(back)
	case n.rest != nil:
		n.rest.Replace(back, c.health)
	default:
		n.rest = n.newRest(back, c.health, nil)
	}
	return nil
}

// serveNATS opens the door over NATS.
func (n *Node) serveNATS(b *broker.Broker, endpoints []broker.Endpoint) error {
	return b.Service.Serve(serviceVersion(n.o.Version), "background jobs: submit, run, watch and control them", endpoints)
}

// newRest makes the REST door. A node that is alone has no cluster, which is nil then.
func (n *Node) newRest(back *api.Backend, h httpapi.Health, cluster httpapi.Cluster) *httpapi.Server {
	return httpapi.New(httpapi.Options{
		Backend: back, Health: h, Cluster: cluster,
		Count: func(operation string) func(int, time.Duration, bool) {
			return n.metrics.Requests.Of(operation).Answered
		},
		Around:  n.o.traceREST(),
		Keyring: n.o.Keyring, MaxBody: n.o.REST.MaxBody, MaxUpload: n.o.REST.MaxUpload, Hosts: n.o.REST.Hosts, TLS: n.o.REST.TLS, MaxConns: n.o.Bounds.Conns, Version: n.o.Version, Logger: n.log,
	})
}

// serviceVersion is a semantic version, as the service protocol requires.
func serviceVersion(version string) string {
	if len(version) > 1 && version[0] == 'v' {
		return version[1:]
	}
	return "0.0.0"
}

// down breaks the stuck core off, without an orderly end. The channel is closed when it
// has ended.
func (n *Node) down(why error) <-chan struct{} {
	c := n.core.Swap(nil)
	n.figures.Stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.stopRetention()
		c.abandon(why)
	}()
	return ended
}

// watch heals the node when it is stuck, until ctx ends or the node cannot go on.
func (n *Node) watch(ctx context.Context) {
	defer close(n.watched)
	for {
		c := n.core.Load()
		select {
		case <-ctx.Done():
			return
		case err := <-c.loops.broken:
			n.log.Error("a part of the server broke; stopping", "error", err)
			n.breaks(err)
			return
		case why := <-c.health.stuck:
			err := n.heal(ctx, why)
			switch {
			case err == nil:
				continue
			case ctx.Err() != nil:
				n.unhealed = err
			default:
				n.breaks(err)
			}
			return
		}
	}
}

// breaks says why the node cannot go on; the first reason counts.
func (n *Node) breaks(why error) {
	select {
	case n.broken <- why:
	default:
	}
}

// Broken returns a channel with the reason if the node cannot go on. Then close the
// node.
func (n *Node) Broken() <-chan error { return n.broken }

// Handler is all of REST, for a server of the program's own. Requests must be for
// localhost, an address of this machine or one of [REST].Hosts, because web pages could
// use the server by other names. It may stand behind an http.StripPrefix; only the
// dashboard works at the root of a host alone.
func (n *Node) Handler() http.Handler { return n.rest.Handler() }

// Serve answers REST requests from l until [Node.Shutdown], after which it returns nil. It
// closes l.
func (n *Node) Serve(l net.Listener) error {
	if n.member != nil {
		n.member.serves(l)
	}
	return n.rest.Serve(l)
}

// HTTPURL is where REST listens by [Options.HTTP]; "" if it does not.
func (n *Node) HTTPURL() string { return n.httpURL }

// NATSURL is the address of the NATS door; "" if there is no port, or the node is
// healing.
func (n *Node) NATSURL() string {
	if n.member != nil {
		return n.member.broker.ClientURL()
	}
	if c := n.core.Load(); c != nil {
		return c.natsURL
	}
	return ""
}

// Parts are the present parts of the node, for measurements. A node that has healed has
// others. While it heals they are nil.
func (n *Node) Parts() Parts {
	if c := n.core.Load(); c != nil {
		return c.Parts
	}
	return Parts{}
}

// present is the core, or why there is none.
func (n *Node) present() (*core, error) {
	if c := n.core.Load(); c != nil && (n.member == nil || n.member.Leads()) {
		return c, nil
	}
	return nil, errHealing()
}

// realm is that of idempotency keys of this program; see [jobs.NewToken].
const realm = "go"

var _ jobs.Client = (*Node)(nil)

// Submit admits a job, waits until it is durable and returns it; see [jobs.Client].
func (n *Node) Submit(ctx context.Context, s *jobs.Submission) (*jobs.Job, error) {
	c, err := n.present()
	switch {
	case n.member != nil && err != nil:
		return n.member.submit(ctx, s)
	case err != nil:
		return nil, err
	}
	if s, err = s.Admit(realm, jobs.Now()); err != nil {
		return nil, err
	}
	j, _, err := c.Submitter.Submit(ctx, s)
	return j, err
}

// Wait returns the job with this id when it has ended. When ctx ends or the node stops
// before, it returns its present state. It is nil if there is none.
func (n *Node) Wait(ctx context.Context, id jobs.ID) (*jobs.Job, error) {
	if n.member != nil {
		if err := n.member.Current(ctx); err != nil {
			return nil, err
		}
		return n.member.reader().Wait(ctx, id)
	}
	c, err := n.present()
	if err != nil {
		return nil, err
	}
	last := context.WithoutCancel(ctx) // for a look after the end of ctx
	return c.Waits.Wait(ctx, id, intake.Ended, func() (*jobs.Job, error) { return c.Store.Job(last, id) })
}

// closeTime is how long REST requests may still take after the workers have stopped.
const closeTime = 5 * time.Second

// Close ends the node: it is [Node.Shutdown] with the grace of [Workers].
func (n *Node) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), max(n.o.Workers.Grace, 0))
	defer cancel()
	return n.Shutdown(ctx)
}

// Shutdown ends the node. It admits no more jobs. Running ones have until the end of ctx;
// then they are interrupted, and run again after the next [Open]. When it returns,
// everything that was answered is on disk. After an error the next start repairs the
// folder.
func (n *Node) Shutdown(ctx context.Context) error {
	if n.member != nil {
		return n.leave(ctx)
	}
	n.stopWatch()
	<-n.watched
	n.rest.Drain()
	c := n.core.Load()
	err := n.unhealed
	if c != nil {
		n.stopRetention()
		err = c.drain(ctx)
	}
	n.closeDoor(ctx)
	if c != nil {
		err = errors.Join(err, c.close())
	}
	n.serving.Wait()
	return err
}

// closeDoor ends what the doors and the handlers have in use after the last job has ended,
// while the folder is still locked.
func (n *Node) closeDoor(ctx context.Context) {
	n.figures.Close()
	closeIdle(n.registry.Types(), nil)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	if err := n.rest.Shutdown(closing); err != nil {
		n.log.Warn("some requests were cut off", "error", err)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"jobstream/cmd/jobstream/internal/bench"
	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/cmd/node/archive"
	"jobstream/cmd/node/traces"
	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/fsync"
	"jobstream/jobs/handlers/exec"
	"jobstream/jobs/handlers/http"
)

// benchCommand measures the server on this machine.
type benchCommand struct {
	bench.Options
	CPUProfile string `name:"cpu-profile" placeholder:"FILE" help:"Write a CPU profile of it all, for go tool pprof."`
	JSON       bool   `name:"json" help:"Print one JSON object instead of a table."`
}

// Run measures and prints. A signal ends it with an error, after it has cleaned up. A
// second one ends the process at once.
func (c *benchCommand) Run(p *program) error {
	ctx, stop := signal.NotifyContext(p.Ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	profiled, err := c.profile()
	if err != nil {
		return err
	}
	log, _ := newLogger(config.Log{Level: "error"}, p.Stderr)
	report, err := bench.Run(ctx, c.Options, measured(), log, p.Stderr)
	if err := errors.Join(err, profiled()); err != nil {
		return err
	}
	return report.Print(p.Stdout, c.JSON)
}

// profile begins a CPU profile, if one is wanted, and returns the function that ends
// it.
func (c *benchCommand) profile() (end func() error, err error) {
	if c.CPUProfile == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(c.CPUProfile)
	if err != nil {
		return nil, fmt.Errorf("--cpu-profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// measured describes this server to the bench.
func measured() bench.Server {
	version, _, nats := versions()
	return bench.Server{
		Start: startMeasured, StartCluster: startCluster, TrackerFile: func(dir string) string { return node.FoldersIn(dir).Tracker }, SyncFolder: fsync.Tree,
		Program: programHandler, Endpoint: endpointHandler, Version: version, NATSServer: nats,
	}
}

func startMeasured(ctx context.Context, o bench.NodeOptions) (*bench.Node, error) {
	options, tracer, err := measuredOptions(ctx, o)
	if err != nil {
		return nil, err
	}
	n, err := node.Open(ctx, options, o.Registry)
	if err != nil {
		return nil, err
	}
	return measuredNode(n, tracer), nil
}

// measuredOptions are the options of a measured node, and its tracer, which may be nil.
func measuredOptions(ctx context.Context, o bench.NodeOptions) (node.Options, *traces.Tracer, error) {
	who := access.Options{Anonymous: config.Default(nil).Anonymous()} // as without any configuration
	if o.Token != "" {
		who.Tokens = []access.Token{{Hash: access.HashOf(o.Token), Principal: access.Principal{Name: "bench", Scopes: access.Scopes()}}}
	}
	version, _, _ := versions()
	tracer, err := traces.FromEnv(ctx, version, o.Logger)
	if err != nil {
		return node.Options{}, nil, err
	}
	options := node.Options{
		Dir: o.Dir, NATS: natsAddress(o.Host, o.Port), Broker: node.Broker{Sync: o.Sync},
		Workers: node.Workers{Max: o.Workers, Lease: o.Lease, MaxLost: o.MaxLost}, Bounds: node.Bounds{Queue: o.QueueSize},
		REST: node.REST{MaxBody: int64(o.MaxPayload + 1<<10)}, Logger: o.Logger,
		Keyring: access.NewKeyring(who),
	}
	if tracer != nil {
		options.Tracer = tracer
	}
	return options, tracer, nil
}

// measuredNode is a node for the bench.
func measuredNode(n *node.Node, tracer *traces.Tracer) *bench.Node {
	atOnce, cancel := context.WithCancel(context.Background())
	cancel()
	p := n.Parts()
	return &bench.Node{
		Submitter: p.Submitter, Waits: p.Waits, Pool: p.Pool, Store: p.Store, Broker: p.Broker, Tail: p.Tail,
		Failed: n.Broken(), Serve: n.Serve, Stop: func() error {
			err := n.Shutdown(atOnce)
			if tracer != nil {
				_ = tracer.Close(atOnce) // nobody looks at the last spans
			}
			return err
		},
		Backup: func(ctx context.Context, rate int) (int64, error) { return measuredBackup(ctx, n, rate) },
	}
}

// measuredBackup makes a backup and verifies it, as its client does.
func measuredBackup(ctx context.Context, n *node.Node, mib int) (int64, error) {
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := n.Backup(ctx, in)
		_ = in.CloseWithError(err) // always nil
		done <- err
	}()
	got, err := archive.Read(newPaced(ctx, out, int64(mib)<<20), nil, pass)
	_ = out.Close() // always nil
	if err = errors.Join(err, <-done); err != nil {
		return 0, err
	}
	return got.Bytes, nil
}

// programHandler makes the handler of a type that runs a program and sets nothing else.
func programHandler(dir string, command ...string) (jobs.Handler, error) {
	o := exec.NewOptions()
	o.Command = command
	var wrong []error
	o.Check(dir, func(path, text string) { wrong = append(wrong, fmt.Errorf("%s: %s", path, text)) })
	dirs := node.FoldersIn(dir)
	return exec.New(o, exec.Host{Data: dirs.Root, Work: dirs.Work}), errors.Join(wrong...)
}

// endpointHandler makes the handler of a type that calls an endpoint and sets nothing else.
func endpointHandler(url string) (jobs.Handler, error) {
	o := http.NewOptions()
	o.URL = url
	var wrong []error
	o.Check("", func(path, text string) { wrong = append(wrong, fmt.Errorf("%s: %s", path, text)) })
	return http.New(o, "", nil), errors.Join(wrong...)
}

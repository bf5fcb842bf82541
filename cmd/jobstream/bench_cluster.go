package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"jobstream/broker"
	"jobstream/cmd/jobstream/internal/bench"
	"jobstream/cmd/node"
	"jobstream/cmd/node/traces"
	"jobstream/jobs"
)

// benchMembers is the number of nodes of a measured cluster.
const benchMembers = 3

// benchPatience is how long a measured cluster may take to form.
const benchPatience = 2 * time.Minute

// measuredCluster is a cluster whose first node is in this process. The others are child
// processes, or in this one, too.
type measuredCluster struct {
	o      bench.NodeOptions
	routes []string
	others []ending // nil: that one does not run
	own    *node.Node
}

// ending stops a node, in good order or at once.
type ending func(atOnce bool) error

// startCluster starts a cluster, and returns its node in this process as soon as that leads.
func startCluster(ctx context.Context, o bench.NodeOptions) (*bench.Node, error) {
	m := &measuredCluster{o: o, others: make([]ending, benchMembers)}
	ctx, cancel := context.WithTimeout(ctx, benchPatience)
	defer cancel()
	b, err := m.start(ctx)
	if err != nil {
		return nil, errors.Join(err, m.stop()) //nolint:contextcheck // ctx may have ended
	}
	return b, nil
}

func (m *measuredCluster) start(ctx context.Context) (*bench.Node, error) {
	if err := m.findRoutes(ctx); err != nil {
		return nil, err
	}
	var tracer *traces.Tracer
	var err error
	if m.own, tracer, err = m.open(ctx, 0, m.o.Registry); err != nil {
		return nil, err
	}
	if err := errors.Join(m.startOther(ctx, 1), m.startOther(ctx, 2), m.lead(ctx)); err != nil {
		return nil, err
	}
	b := measuredNode(m.own, tracer) //nolint:contextcheck // it lives longer
	b.Stop = m.stop
	return b, nil
}

// open starts a node in this process.
func (m *measuredCluster) open(ctx context.Context, i int, types *jobs.Registry) (*node.Node, *traces.Tracer, error) {
	o, tracer, err := measuredOptions(ctx, m.o)
	if err != nil {
		return nil, nil, err
	}
	o.Name, o.Broker.SyncAlways = m.name(i), true
	o.Dir = filepath.Join(m.o.Dir, o.Name)
	o.Broker.Cluster = &broker.Cluster{Name: "bench", Listen: m.routes[i], Routes: m.routes}
	n, err := node.Open(ctx, o, types)
	return n, tracer, err
}

func (m *measuredCluster) name(i int) string { return fmt.Sprintf("n%d", i+1) }

// findRoutes finds free ports for the routes.
func (m *measuredCluster) findRoutes(ctx context.Context) error {
	for range benchMembers {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }() // the ports are used after all are found
		m.routes = append(m.routes, l.Addr().String())
	}
	return nil
}

// turnOver is how long a cluster has to choose a leader, before one of the others is started
// anew, so that it chooses again.
const turnOver = 5 * time.Second

// lead waits until the node in this process leads.
func (m *measuredCluster) lead(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	i, since := 1, time.Now()
	for m.own.Parts().Store == nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("no node leads: %w", context.Cause(ctx))
		case err := <-m.own.Broken():
			return err
		case <-tick.C:
		}
		if time.Since(since) < turnOver {
			continue
		}
		if err := errors.Join(m.stopOther(i, false), m.startOther(ctx, i)); err != nil {
			return err
		}
		i, since = benchMembers-i, time.Now()
	}
	return nil
}

// startOther starts another node. One in a process of its own does no jobs, as long as it
// does not lead.
func (m *measuredCluster) startOther(ctx context.Context, i int) error {
	if m.o.Other == nil {
		return m.startProcess(i)
	}
	n, _, err := m.open(ctx, i, m.o.Other())
	if err != nil {
		return err
	}
	m.others[i] = func(atOnce bool) error { //nolint:contextcheck // it is stopped when ctx may have ended
		if atOnce {
			_ = n.Shutdown(ended()) // without the others it cannot end in good order
			return nil
		}
		return n.Close()
	}
	return nil
}

// ended is a context that has ended.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func (m *measuredCluster) startProcess(i int) error {
	dir := filepath.Join(m.o.Dir, m.name(i))
	var file bytes.Buffer
	fmt.Fprintf(&file, "log: {level: error}\nnode: {name: %s}\nserver: {port: 0}\ndata: {dir: %q}\nworker: {queue_size: %d}\n", m.name(i), dir, m.o.QueueSize)
	fmt.Fprintf(&file, "broker: {port: 0, cluster: {name: bench, listen: %q, routes: [%q, %q, %q]}}\njobs:\n", m.routes[i], m.routes[0], m.routes[1], m.routes[2])
	for _, t := range m.o.Registry.Types() {
		fmt.Fprintf(&file, "  %s: {run: remote}\n", t.Name)
	}
	path := dir + ".yaml"
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command(self, "serve", "--config", path) //nolint:noctx // it ends by stop
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return fmt.Errorf("cannot start another node: %w", err)
	}
	m.others[i] = func(atOnce bool) error {
		if atOnce {
			err := c.Process.Kill()
			_ = c.Wait() // it was killed
			return err
		}
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			return errors.Join(err, c.Process.Kill())
		}
		return c.Wait()
	}
	return nil
}

func (m *measuredCluster) stopOther(i int, atOnce bool) error {
	end := m.others[i]
	if end == nil {
		return nil
	}
	m.others[i] = nil
	return end(atOnce)
}

// stop ends all nodes, at once.
func (m *measuredCluster) stop() error {
	errs := make([]error, benchMembers)
	var group sync.WaitGroup
	for i := range m.others {
		group.Go(func() { errs[i] = m.stopOther(i, true) })
	}
	if m.own != nil {
		_ = m.own.Shutdown(ended()) // without the others it cannot end in good order
	}
	group.Wait()
	return errors.Join(errs...)
}

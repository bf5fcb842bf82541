package bench

import (
	"context"
	"log/slog"
	"net"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/jobs/intake"
	"jobstream/jobs/pool"
	"jobstream/status"
)

// Server is the measured server: how to make a node, and the layout of its folder.
type Server struct {
	Start func(context.Context, NodeOptions) (*Node, error)
	// StartCluster starts a node in this process that leads two others; see NodeOptions.Other.
	StartCluster func(context.Context, NodeOptions) (*Node, error)
	TrackerFile  func(dir string) string // of a node in that folder
	SyncFolder   func(dir string) error  // brings everything in a folder to disk
	// Program makes the handler of jobs that run a program, with the defaults, on a node in
	// that folder.
	Program    func(dir string, command ...string) (jobs.Handler, error)
	Endpoint   func(url string) (jobs.Handler, error) // makes the handler of jobs that an endpoint does, with the defaults
	Version    string
	NATSServer string // the version of it
}

// NodeOptions are the options of a node.
type NodeOptions struct {
	Dir        string
	Registry   *jobs.Registry
	Other      func() *jobs.Registry // of another node of a cluster, in this process; nil: those are processes that do no jobs
	Host       string                // of the NATS port
	Port       int                   // -1 any, 0 none
	Sync       time.Duration
	Workers    int
	QueueSize  int
	MaxPayload int
	Lease      time.Duration
	MaxLost    int
	Token      string // of a client with all scopes, beside those without one; "" = there is none
	Logger     *slog.Logger
}

// Node is a running node, with the parts that a bench loads and reads.
type Node struct {
	Submitter *intake.Submitter
	Waits     *intake.Waits
	Pool      *pool.Pool
	Store     *status.Store
	Broker    *broker.Broker
	Tail      *broker.Tail
	Serve     func(net.Listener) error // answers REST requests until Stop
	// Backup makes and verifies a backup, of which it reads so many MiB in a second, and
	// returns its size in bytes.
	Backup func(ctx context.Context, rate int) (int64, error)
	Failed <-chan error // why it cannot go on
	Stop   func() error // ends it at once, with unfinished jobs
}

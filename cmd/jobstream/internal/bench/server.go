package bench

import (
	"context"
	"log/slog"
	"time"

	"jobstream/broker"
	"jobstream/httpapi"
	"jobstream/jobs"
	"jobstream/jobs/intake"
	"jobstream/jobs/pool"
	"jobstream/status"
)

// Server is what is measured: how to make a node, and what its folder looks like.
type Server struct {
	Start       func(context.Context, NodeOptions) (*Node, error)
	TrackerFile func(dir string) string // of a node in that folder
	SyncFolder  func(dir string) error  // brings all that is in a folder to disk
	Version     string
	NATSServer  string // the version of it
}

// NodeOptions are what a node is made of.
type NodeOptions struct {
	Dir        string
	Registry   *jobs.Registry
	Host       string // of the NATS port
	Port       int    // -1 any, 0 none
	Sync       time.Duration
	Workers    int
	QueueSize  int
	MaxPayload int
	Lease      time.Duration
	MaxLost    int
	Logger     *slog.Logger
}

// Node is a running node, in the parts that are used to load it and to look at it.
type Node struct {
	Submitter *intake.Submitter
	Waits     *intake.Waits
	Pool      *pool.Pool
	Store     *status.Store
	Broker    *broker.Broker
	Tail      *broker.Tail
	REST      func() *httpapi.Server // makes its REST door
	Failed    <-chan error           // the first part that broke
	Stop      func() error           // ends it at once, and leaves unfinished jobs
}

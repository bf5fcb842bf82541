package node

import (
	"log/slog"
	"time"

	"jobstream/httpapi"
	"jobstream/jobs"
	"jobstream/jobs/handlers/cleanup"
	"jobstream/jobs/schedule"
)

// Options are what a node is made of. Only Dir and Types are required.
type Options struct {
	Dir       string           // the data folder; made if it is not there
	Types     []*jobs.Type     // the job types, beside those that the node has for itself
	Tracker   *Tracker         // what the handlers of the types were made with; nil: they need none
	Cleaner   *cleanup.Handler // deletes ended jobs with all that they have left; nil: with their artifacts
	Sweep     func() error     // removes what handlers left half done; called before any job runs; may be nil
	Schedules []schedule.Spec  // of the configuration; others are made by REST
	Retention time.Duration    // ended jobs are deleted after that; 0 = never

	REST     REST
	NATS     NATS
	MaxConns int // connections to each of the two doors; 0 = no bound of ours

	Workers      Workers
	QueueSize    int // unfinished jobs that are let in; 0 = 100,000
	MaxScheduled int // jobs with a time to come that are let in; 0 = 1,000,000, below 0 = none

	Version string       // of the program, as the NATS service reports it; "" = unknown
	Logger  *slog.Logger // nil: silence

	BootFile  string        // a file with a new text after every start of the operating system; "" = that of Linux
	HealPause time.Duration // the shortest pause between two tries to heal, where there is one; 0 = 1 s
}

// REST is what a node's REST door is made of. It listens only by [Node.Serve].
type REST struct {
	Hosts   []string // names and addresses that requests may be for, besides loopback and where they come in
	MaxBody int64    // bytes of a request's body; 0 = 1 MiB
}

// NATS is what a node's broker is made of.
type NATS struct {
	Host       string        // where the port is opened; "" = 127.0.0.1
	Port       int           // 0 = none, -1 = any free one
	Sync       time.Duration // between two syncs of the streams to disk; 0 = 1 s
	SyncAlways bool          // sync each message instead
}

// Workers is what a node's pool is made of.
type Workers struct {
	Max     int           // jobs that run at a time; 0 = 10
	Min     int           // the pool shrinks to so many; 0 = it always has Max
	Lease   time.Duration // silence after which a worker counts as dead; 0 = 30 s
	MaxLost int           // workers that a job may lose before it fails; 0 = 5
}

// withDefaults fills in what is not set.
func (o Options) withDefaults() Options {
	orElse(&o.REST.MaxBody, httpapi.DefaultMaxBody)
	orElse(&o.NATS.Host, "127.0.0.1")
	if !o.NATS.SyncAlways {
		orElse(&o.NATS.Sync, time.Second)
	}
	orElse(&o.Workers.Max, 10)
	orElse(&o.Workers.Lease, 30*time.Second)
	orElse(&o.Workers.MaxLost, 5)
	orElse(&o.QueueSize, 100_000)
	orElse(&o.MaxScheduled, 1_000_000)
	o.MaxScheduled = max(o.MaxScheduled, 0)
	orElse(&o.Logger, slog.New(slog.DiscardHandler))
	orElse(&o.BootFile, "/proc/sys/kernel/random/boot_id")
	orElse(&o.HealPause, time.Second)
	orElse(&o.Tracker, &Tracker{})
	return o
}

// orElse sets what has no value.
func orElse[T comparable](v *T, value T) {
	var none T
	if *v == none {
		*v = value
	}
}

// leastMessage is the least bound of the broker's messages, in bytes: the event
// that ends a job carries its result and error, which MaxBody does not bound.
const leastMessage = 2*jobs.MaxResult + 64<<10

// maxPayload bounds the broker's messages, in bytes.
func (o *Options) maxPayload() int { return max(int(o.REST.MaxBody), leastMessage) }

// releaseRoom is the number of unfinished jobs from which scheduled ones wait
// though their time has come: they come on top of the jobs that the doors let in.
func (o *Options) releaseRoom() int { return o.QueueSize + o.QueueSize/2 }

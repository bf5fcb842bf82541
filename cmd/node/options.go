package node

import (
	"crypto/tls"
	"log/slog"
	"time"

	"jobstream/broker"
	"jobstream/httpapi"
	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/handlers/cleanup"
	"jobstream/jobs/handlers/webhook"
	"jobstream/jobs/replica"
	"jobstream/jobs/schedule"
)

// Options are the settings of a node. Only Dir is required. The zero value of every other
// one is a sensible default.
type Options struct {
	Dir  string // the data folder; made if need be
	Name string // of a member of a cluster, which never changes; else ""

	// HTTP and NATS are the addresses where the doors listen, like ":8080" or
	// "0.0.0.0:4222"; "" = no port. Without a host that is 127.0.0.1, and port 0 is any
	// free one. See [Node.HTTPURL] and [Node.NATSURL].
	HTTP, NATS string
	// Keyring says who may do what at the doors. Without one, whoever reaches a port may do
	// all but what needs [access.Admin], and [Node.Handler] lets everybody do everything
	// if there is no port.
	Keyring *access.Keyring
	// Insecure confirms that whoever reaches a port from another machine needs no token.
	Insecure bool
	REST     REST
	Broker   Broker

	Workers   Workers
	Bounds    Bounds
	Schedules []schedule.Spec // those of the program, see [schedule.ParseSpec]; requests make others
	Callbacks webhook.Options // who is notified of the ends of jobs by requests, and how
	Retention time.Duration   // ended jobs are deleted after that; 0 = never

	Tracer  Tracer       // exports spans; nil: none are made
	Version string       // of the program, for the NATS service; "" = unknown
	Logger  *slog.Logger // nil: silence
	// LogLevel is the level of Logger, for those who change it; nil: nobody does.
	LogLevel *slog.LevelVar

	Handlers Handlers
	Recovery Recovery
}

// REST are the settings of a node's REST door, which listens by [Options.HTTP] or
// [Node.Serve].
type REST struct {
	Hosts     []string // names and addresses in requests, besides loopback and those of the connection
	MaxBody   int64    // bytes of a request's body; 0 = 1 MiB
	MaxUpload int64    // bytes of an uploaded file; 0 = 1 GiB
	// TLS encrypts what comes in by a port; nil = it is not encrypted.
	TLS *tls.Config
}

// Broker are the settings of a node's broker.
type Broker struct {
	Sync       time.Duration // between two syncs of the streams to disk; 0 = 1 s
	SyncAlways bool          // sync each message instead
	TLS        *tls.Config   // of the NATS port; nil = it is not encrypted

	Cluster *broker.Cluster // makes the node a member of a cluster; nil = it is alone
	// Bootstrap lets a new cluster begin with the data folder of a server that was alone.
	// It changes nothing in a folder with which a cluster has begun. Any other is refused.
	Bootstrap bool
}

// Bounds are those of what a node takes.
type Bounds struct {
	Queue     int   // unfinished jobs; 0 = 100,000
	Scheduled int   // jobs whose time is to come; 0 = 1,000,000, below 0 = none
	Conns     int   // connections to each of the two doors; 0 = no bound
	MinFree   int64 // bytes free on the disk, below which nothing new is admitted; 0 = no bound
}

// Handlers are what handlers share with their node. Those of a program's own need none of
// it.
type Handlers struct {
	Tools     *Tools            // what the types' handlers use of the node; nil: nothing
	Cleaner   *cleanup.Handler  // deletes ended jobs and everything that they left; nil: with their artifacts
	Artifacts *jobs.ArtifactDir // the files of jobs, in [Folders]; nil: without a bound. Share it with the cleaner
	// Reread reads the types anew, see [Node.Reload]; nil: they never change. Its error is
	// an [*jobs.Error] for whoever asked.
	Reread func() (Reread, error)
	Sweep  func() error // removes half-done work of handlers; called before any job runs; may be nil
}

// Recovery are settings that tests of restarts change.
type Recovery struct {
	BootFile  string        // a file with a new text after every start of the operating system; "" = that of Linux
	HealPause time.Duration // the shortest pause between two tries to heal, where there is one; 0 = 1 s
	// format is what the tracker reads, in tests that play other versions; 0 = as it is.
	format replica.Format
}

// Workers are the settings of a node's pool.
type Workers struct {
	Max     int           // jobs that run at a time; 0 = 10
	Min     int           // the lower bound of a pool that follows the load; 0 = always Max
	Lease   time.Duration // silence after which a worker counts as dead; 0 = 30 s
	MaxLost int           // workers that a job may lose before it fails; 0 = 5
	// Grace is what running jobs get to end after [Node.Close]; 0 = 30 s, below 0 = none.
	Grace time.Duration
}

// everybody are the scopes at the ports of a node without a keyring.
var everybody = []access.Scope{access.Submit, access.Read, access.Manage, access.Work}

// withDefaults fills in missing settings.
func (o Options) withDefaults() Options {
	orElse(&o.REST.MaxBody, httpapi.DefaultMaxBody)
	if !o.Broker.SyncAlways {
		orElse(&o.Broker.Sync, time.Second)
	}
	orElse(&o.Workers.Max, 10)
	orElse(&o.Workers.Lease, 30*time.Second)
	orElse(&o.Workers.MaxLost, 5)
	orElse(&o.Workers.Grace, 30*time.Second)
	orElse(&o.Bounds.Queue, 100_000)
	orElse(&o.Bounds.Scheduled, 1_000_000)
	o.Bounds.Scheduled = max(o.Bounds.Scheduled, 0)
	orElse(&o.Logger, slog.New(slog.DiscardHandler))
	orElse(&o.Recovery.BootFile, "/proc/sys/kernel/random/boot_id")
	orElse(&o.Recovery.HealPause, time.Second)
	orElse(&o.Handlers.Tools, &Tools{})
	if o.Keyring == nil && o.HTTP+o.NATS != "" {
		o.Keyring = access.NewKeyring(access.Options{Anonymous: everybody, Logger: o.Logger})
	}
	return o
}

// orElse sets v if it is zero.
func orElse[T comparable](v *T, value T) {
	var none T
	if *v == none {
		*v = value
	}
}

// leastMessage is the least bound of the broker's messages, in bytes. The event that
// ends a job carries its result and error, which MaxBody does not bound.
const leastMessage = 2*jobs.MaxResult + 64<<10

// maxPayload bounds the broker's messages, in bytes.
func (o *Options) maxPayload() int { return max(int(o.REST.MaxBody), leastMessage) }

// releaseRoom is the number of unfinished jobs from which due jobs have to wait. It
// leaves room beyond the jobs that the doors admit.
func (o *Options) releaseRoom() int { return o.Bounds.Queue + o.Bounds.Queue/2 }

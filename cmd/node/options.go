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
	"jobstream/jobs/schedule"
)

// Options are the settings of a node. Only Dir and Types are required. The sections of
// the configuration are structs of their own; the rest is a field for each setting.
type Options struct {
	Name      string            // of a member of a cluster, which never changes; else ""
	Dir       string            // the data folder; made if need be
	MinFree   int64             // bytes free on its disk, below which nothing new is admitted; 0 = no bound
	Types     []*jobs.Type      // the job types, beside the node's own
	Tools     *Tools            // what the types' handlers use of the node; nil: nothing
	Cleaner   *cleanup.Handler  // deletes ended jobs and everything that they left; nil: with their artifacts
	Artifacts *jobs.ArtifactDir // the files of jobs, in [Folders]; nil: without a bound. Share it with the cleaner
	// Reread reads Types anew, see [Node.Reload]; nil: they never change. Its error is an
	// [*jobs.Error] for whoever asked.
	Reread    func() (Reread, error)
	Sweep     func() error    // removes half-done work of handlers; called before any job runs; may be nil
	Schedules []schedule.Spec // of the configuration; REST makes others
	Retention time.Duration   // ended jobs are deleted after that; 0 = never

	Callbacks webhook.Options // who is notified of the ends of jobs by requests, and how

	Keyring  *access.Keyring // who may do what at the doors; nil = everybody may do everything
	REST     REST
	NATS     NATS
	MaxConns int // bound of connections to each of the two doors; 0 = none

	Workers      Workers
	QueueSize    int // bound of unfinished jobs; 0 = 100,000
	MaxScheduled int // bound of jobs whose time is to come; 0 = 1,000,000, below 0 = none

	Version string       // of the program, for the NATS service; "" = unknown
	Logger  *slog.Logger // nil: silence
	// LogLevel is the level of Logger, for those who change it; nil: nobody does.
	LogLevel *slog.LevelVar

	BootFile  string        // a file with a new text after every start of the operating system; "" = that of Linux
	HealPause time.Duration // the shortest pause between two tries to heal, where there is one; 0 = 1 s
}

// REST are the settings of a node's REST door. It listens only by [Node.Serve].
type REST struct {
	Hosts     []string // names and addresses in requests, besides loopback and those of the connection
	MaxBody   int64    // bytes of a request's body; 0 = 1 MiB
	MaxUpload int64    // bytes of an uploaded file; 0 = 1 GiB
	// TLS encrypts what comes in by [Node.Serve]; nil = it is not encrypted.
	TLS *tls.Config
}

// NATS are the settings of a node's broker.
type NATS struct {
	Host       string        // of the port; "" = 127.0.0.1
	Port       int           // 0 = none, -1 = any free one
	Sync       time.Duration // between two syncs of the streams to disk; 0 = 1 s
	SyncAlways bool          // sync each message instead
	TLS        *tls.Config   // of the port; nil = it is not encrypted

	Cluster *broker.Cluster // makes the node a member of a cluster; nil = it is alone
}

// Workers are the settings of a node's pool.
type Workers struct {
	Max     int           // jobs that run at a time; 0 = 10
	Min     int           // the lower bound of a pool that follows the load; 0 = always Max
	Lease   time.Duration // silence after which a worker counts as dead; 0 = 30 s
	MaxLost int           // workers that a job may lose before it fails; 0 = 5
}

// withDefaults fills in missing settings.
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
	orElse(&o.Tools, &Tools{})
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
func (o *Options) releaseRoom() int { return o.QueueSize + o.QueueSize/2 }

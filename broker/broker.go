// Package broker is everything NATS: an embedded nats-server with JetStream, and the
// parts that the domain needs on top of it. They implement jobs.Queue, jobs.EventLog,
// jobs.Inbox and jobs.Notifier, and feed a jobs.Sink.
//
// Where to start:
//
//   - [Open] starts the server and makes the streams. Their settings, and all names and
//     subjects that other NATS clients see, stand in streams.go.
//   - [Broker] has a part for each subject. Each part has its own state and lock.
//   - [Inbox] publishes to JOBS, [EventLog] to STATUS, [Notifier] to NOTIFICATIONS.
//   - [Reader] follows JOBS and STATUS from a position; feed.go shows how a stream is read.
//   - [Lanes] hands out JOBS lane by lane, as pulled. [Tail] removes the messages of
//     ended jobs.
//   - [Service] answers requests as a NATS micro service.
//   - A [Cluster] of brokers has its streams on several servers; cluster.go has what differs.
//     [TrackerLog] is the stream that their trackers follow, [Peers] are the other members.
//   - Package wire is the small client under the messages of the hot path. All else goes
//     through nats.go.
package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
	"jobstream/jobs/access"
)

// Options say how to run the broker. Only Dir is required; zero values are the defaults.
type Options struct {
	Dir  string // where nats-server keeps its data, in a folder jetstream
	Node string // the server's name; "jobstream" if empty
	Host string // where NATS clients connect; 127.0.0.1 if empty
	Port int    // likewise; -1 = any free port, 0 = none

	// TLS encrypts the port; nil = it is not encrypted. Connections of this process never are.
	TLS *tls.Config

	// SyncInterval is how often streams are fsynced; 0 is the server's default, two minutes.
	// SyncAlways syncs every message.
	SyncInterval time.Duration
	SyncAlways   bool

	MaxConns   int           // clients connected at a time; the server's default, 65,536, if 0
	MaxBehind  int           // bytes that all clients together may still have to read; 64 MiB if 0
	QueueSize  int           // JOBS has room for twice as many messages; 100,000 if 0
	MaxPayload int           // bytes of a job's payload; 1 MiB if 0
	Lease      time.Duration // until a delivery without an ack comes again; 30 s if 0

	// Rebuild says that the last stop was not clean. The state of lanes is dropped then,
	// and streams that do not load are made anew.
	Rebuild bool
	// HoldPort keeps the port for NATS clients closed until [Broker.Listen].
	HoldPort bool

	// Cluster makes the server a member of a cluster; nil = it is alone. Such a server
	// listens at once, and repairs nothing, whatever HoldPort and Rebuild say. Call
	// [Broker.Join] after Open, and [Broker.Lead] before anything else is used.
	Cluster *Cluster

	// Identify returns the principal of a client, nil if it is refused. Without it everybody
	// is an admin.
	Identify func(Credentials) *access.Principal
	// Surface returns what a principal may use beside the service. nil = all that its
	// scopes allow.
	Surface func(*access.Principal) Surface

	// Trace returns where the notification of a job is in a trace; nil = where the job is.
	Trace func(*jobs.Job) jobs.Trace

	Logger *slog.Logger // slog.Default() if nil
}

func (o *Options) fill() {
	if o.Node == "" {
		o.Node = "jobstream"
	}
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	if o.MaxBehind <= 0 {
		o.MaxBehind = defaultBehind
	}
	if o.QueueSize <= 0 {
		o.QueueSize = defaultQueue
	}
	if o.MaxPayload <= 0 {
		o.MaxPayload = defaultMax
	}
	if o.Lease <= 0 {
		o.Lease = defaultLease
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Broker is a running embedded server with the parts that work on it. A part knows only
// the parts in its fields. The Broker itself has no lock: its fields do not change after
// [Open].
type Broker struct {
	*Server
	Streams  *Streams
	Inbox    *Inbox
	Lanes    *Lanes
	EventLog *EventLog
	Notifier *Notifier
	Reader   *Reader
	Service  *Service
	// These are a cluster's; nil for a server that is alone.
	TrackerLog *TrackerLog
	Peers      *Peers
	Files      *Files

	pub  *wire.Conn // submissions, events, notifications
	work *wire.Conn // lanes and acks

	stop   context.CancelFunc // ends the background goroutines
	tasks  sync.WaitGroup
	closed atomic.Bool
}

var (
	_ jobs.Queue    = (*Lanes)(nil)
	_ jobs.EventLog = (*EventLog)(nil)
	_ jobs.Inbox    = (*Inbox)(nil)
	_ jobs.Notifier = (*Notifier)(nil)
)

const (
	writeLimit = 16 << 20 // bytes that may wait to be written; with more, publishers wait

	publisherName = "jobstream publisher"
	lanesName     = "jobstream lanes"
)

// Open starts the server in o.Dir and makes or adopts the three streams. The caller must
// have a lock on o.Dir: the server has none of its own, and two servers in one folder
// destroy it. A port in use is an error that names it.
func Open(ctx context.Context, o Options) (*Broker, error) {
	o.fill()
	if o.Dir == "" {
		return nil, errors.New("broker: no folder given (Options.Dir)")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("cannot use the broker's folder %s: %w", o.Dir, err)
	}
	o.Dir = dir
	b := &Broker{Server: &Server{o: o, log: o.Logger}}
	b.accounts = newAccounts(b.Server)
	if err := b.open(ctx); err != nil {
		b.shutDown()
		return nil, err
	}
	return b, nil
}

func (b *Broker) open(ctx context.Context) error {
	if err := b.folder().checkKind(b.clustered()); err != nil {
		return err
	}
	if b.clustered() {
		return b.openMember(ctx)
	}
	if b.o.Rebuild {
		if err := b.folder().dropLanes(); err != nil {
			return err
		}
	}
	if err := b.start(ctx); err != nil {
		return err
	}
	if err := b.openStreams(ctx); err != nil {
		return err
	}
	if err := b.openSeal(ctx); err != nil {
		return err
	}
	if err := b.openParts(); err != nil {
		return err
	}
	if err := b.accounts.openGate(ctx); err != nil {
		return err
	}
	if err := b.accounts.openRefusals(); err != nil {
		return err
	}
	if !b.o.HoldPort {
		if err := b.Listen(ctx); err != nil {
			return err
		}
	}
	return b.pub.Flush(ctx)
}

// openParts connects and makes the parts.
func (b *Broker) openParts() (err error) {
	s := b.Server
	if b.pub, err = s.connect(wire.Options{Name: publisherName, Limit: writeLimit}); err != nil {
		return err
	}
	b.Lanes = &Lanes{server: s}
	// The handlers of this one publish on it, so publishing must never wait here.
	if b.work, err = s.connect(wire.Options{Name: lanesName, Gone: b.Lanes.pulls.disconnected}); err != nil {
		return err
	}
	b.Lanes.conn = b.work
	b.Streams = &Streams{server: s}
	b.Reader = &Reader{server: s, streams: b.Streams}
	b.EventLog = &EventLog{server: s, conn: b.pub}
	b.Service = &Service{server: s}
	if b.Inbox, err = openInbox(s, b.pub); err != nil {
		return err
	}
	c := &crowd{server: s}
	if b.Notifier, err = openNotifier(s, b.pub, c); err != nil {
		return err
	}
	tasks, stop := context.WithCancel(context.Background()) // they live until Close
	b.stop = stop
	b.tasks.Go(func() { b.watch(tasks) })
	b.tasks.Go(func() { c.watch(tasks) })
	b.tasks.Go(func() { (&floods{server: s}).watch(tasks) })
	return nil
}

// Close ends the lanes and the service, sends everything published, and shuts the server
// down. Reader.Read must have returned.
func (b *Broker) Close() {
	if b.closed.Swap(true) {
		return
	}
	b.Lanes.Close()
	if err := b.Service.Stop(); err != nil {
		b.log.Warn("the NATS service did not stop cleanly", "error", err)
	}
	if err := b.Flush(); err != nil {
		b.log.Warn("not all messages were sent before the broker stopped", "error", err)
	}
	b.shutDown()
}

// shutDown ends everything that runs. After a failed Open that may be little.
func (b *Broker) shutDown() {
	if b.stop != nil {
		b.stop()
	}
	b.tasks.Wait()
	for _, c := range []*wire.Conn{b.pub, b.work} {
		if c != nil {
			c.Close()
		}
	}
	b.halt()
}

// Flush returns when the server has read everything published so far, at most
// five seconds later.
func (b *Broker) Flush() error {
	ctx, cancel := context.WithTimeout(context.Background(), ackTimeout)
	defer cancel()
	return errors.Join(b.pub.Flush(ctx), b.work.Flush(ctx))
}

// watch does from time to time what no message triggers. It fails submissions without an
// answer and ends pull requests that ran out unnoticed.
func (b *Broker) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			b.Inbox.failUnanswered(now)
			b.Lanes.endLostPulls(ctx, now)
		}
	}
}

// Package broker is everything NATS: an embedded nats-server with JetStream and
// what the domain needs from it. It implements jobs.Queue, jobs.EventLog,
// jobs.Inbox and jobs.Notifier and feeds a jobs.Sink.
//
// Where to start:
//
//   - [Open] starts the server and makes the streams; their settings, and all
//     names and subjects that other NATS clients see, stand in streams.go.
//   - [Broker] has a part for each subject, and each part its own state and lock.
//   - [Inbox] → JOBS, [EventLog] → STATUS and [Notifier] → NOTIFICATIONS publish;
//     [Reader] follows the first two from a position. feed.go is how a stream is read.
//   - [Lanes] hands out JOBS lane by lane, as pulled; [Tail] removes what jobs leave
//     behind there.
//   - [Service] answers requests as a NATS micro service.
//   - Package wire is the small client under the messages of the hot path; all else
//     goes through nats.go.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
)

// Options say how to run the broker. Only Dir is required.
type Options struct {
	Dir  string // where nats-server keeps its data, in a folder jetstream
	Node string // the server's name; "jobstream" if empty
	Host string // where NATS clients connect; 127.0.0.1 if empty
	Port int    // likewise; -1 = any free port, 0 = none

	// SyncInterval is how often streams are fsynced, SyncAlways does it for every
	// message. 0 is the server's default, two minutes.
	SyncInterval time.Duration
	SyncAlways   bool

	MaxConns   int           // clients connected at a time; the server's default, 65,536, if 0
	MaxBehind  int           // bytes that all clients together may have to read yet; 64 MiB if 0
	QueueSize  int           // JOBS takes twice as many messages; 100,000 if 0
	MaxPayload int           // bytes of a job's payload; 1 MiB if 0
	Lease      time.Duration // after which a delivery that nobody ended comes again; 30 s if 0

	// Rebuild says that the last stop was not clean: state of lanes is thrown
	// away, and lanes and streams that do not load are made anew.
	Rebuild bool
	// HoldPort keeps the port for NATS clients closed until [Broker.Listen].
	HoldPort bool

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

// Broker is a running embedded server and what this process does with it, in parts that
// know of each other only what their fields say. It has no lock: its fields are set when
// [Open] returns.
type Broker struct {
	*Server
	Streams  *Streams
	Inbox    *Inbox
	Lanes    *Lanes
	EventLog *EventLog
	Notifier *Notifier
	Reader   *Reader
	Service  *Service

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
	writeLimit = 16 << 20 // bytes that publishers may be ahead of the server

	publisherName = "jobstream publisher"
	lanesName     = "jobstream lanes"
)

// Open starts the server in o.Dir and makes or adopts the three streams. The
// caller must hold a lock on o.Dir: the server has none of its own, and two
// servers in one folder destroy it. A port in use is an error that names it.
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
	if err := b.open(ctx); err != nil {
		b.shutDown()
		return nil, err
	}
	return b, nil
}

func (b *Broker) open(ctx context.Context) error {
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
	if err := b.openParts(); err != nil {
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
	// the handlers on this one publish, so publishing on it must never wait
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
	return nil
}

// Close sends what is still to be sent, ends the service, the lanes and the
// connections and shuts the server down. Reader.Read must have returned.
func (b *Broker) Close() {
	if b.closed.Swap(true) {
		return
	}
	b.Lanes.Close()
	if err := b.Service.Stop(); err != nil {
		b.log.Warn("the NATS service did not stop cleanly", "error", err)
	}
	if err := b.Flush(); err != nil {
		b.log.Warn("the broker did not take all messages before it stopped", "error", err)
	}
	b.shutDown()
}

// shutDown ends what runs; after an Open that has failed that may be little.
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

// watch does once and again what nothing else triggers: it fails submissions
// that were not answered and ends pull requests that ran out unnoticed.
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

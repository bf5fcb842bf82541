package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
)

// raw is the yardstick: JetStream by itself, with the node's settings.
func (b *bench) raw(ctx context.Context, dir string) error {
	b.show(phaseRaw, b.c.Jobs, nil)
	done, took, err := rawThroughput(ctx, broker.Options{
		Dir: dir, SyncInterval: b.options.Sync, MaxPayload: b.options.MaxPayload, QueueSize: b.options.QueueSize,
		Lease: b.options.Lease, Logger: b.options.Logger,
	}, b.c.Jobs, b.c.Payload, b.c.MaxTime)
	if err != nil {
		return err
	}
	b.report.Raw = newThroughput(done, b.c.Jobs, took)
	return nil
}

const (
	fetchSize = 500 // messages of one fetch
	fetchers  = 4   // fetches that overlap, so that none waits for another's end
)

// rawThroughput measures JetStream with o's settings. It publishes n messages of size
// bytes asynchronously to a stream of its own, while a pull consumer fetches and acks
// them. Both use nats.go over in-process connections. done is how many were acked in
// the time took: n, unless limit ended it before. o.Dir must be empty, and keeps the
// messages.
func rawThroughput(ctx context.Context, o broker.Options, n, size int, limit time.Duration) (done int, took time.Duration, err error) {
	o.Port = 0
	b, err := broker.Open(ctx, o)
	if err != nil {
		return 0, 0, err
	}
	defer b.Close() //nolint:contextcheck // ctx may have ended by then
	publisher, err := connect(nats.InProcessServer(b), o.Logger)
	if err != nil {
		return 0, 0, err
	}
	defer publisher.close()
	const subject = "raw"
	if _, err := publisher.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "RAW", Subjects: []string{subject}, Storage: jetstream.FileStorage, AllowDirect: true,
	}); err != nil {
		return 0, 0, fmt.Errorf("cannot make the stream to measure with: %w", err)
	}
	r := rawConsumer{want: int64(n), all: make(chan struct{})}
	if err := r.start(ctx, b, o); err != nil {
		return 0, 0, err
	}
	defer r.stop()

	body := make([]byte, size)
	_, _ = rand.Read(body) // never fails
	begun := time.Now()
	limited, cancel := context.WithTimeoutCause(ctx, limit, errLimit)
	defer cancel()
	if _, err := publisher.publish(limited, n, func(int) string { return subject }, body); err != nil {
		return 0, 0, err
	}
	select {
	case <-r.all:
	case <-limited.Done():
	}
	if ctx.Err() != nil {
		return 0, 0, context.Cause(ctx)
	}
	if err := r.conn.flush(ctx); err != nil {
		return 0, 0, err
	}
	return int(min(r.acked.Load(), int64(n))), time.Since(begun), r.err()
}

// errLimit ends a measurement normally.
var errLimit = errors.New("the time for measuring is over")

// rawConsumer fetches and acks. It uses Fetch because Consume and Messages of nats.go
// can forget to ask for more. Then they stall until their heartbeat fails.
type rawConsumer struct {
	want  int64
	conn  *client
	acked atomic.Int64
	all   chan struct{} // closed when want are acked

	group  sync.WaitGroup
	cancel context.CancelFunc
	broken atomic.Pointer[error]
}

func (r *rawConsumer) start(ctx context.Context, b *broker.Broker, o broker.Options) (err error) {
	if r.conn, err = connect(nats.InProcessServer(b), o.Logger); err != nil {
		return err
	}
	consumer, err := r.conn.js.CreateConsumer(ctx, "RAW", jetstream.ConsumerConfig{
		Durable: "raw", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1, AckWait: o.Lease,
	})
	if err != nil {
		r.conn.close()
		return fmt.Errorf("cannot make the consumer to measure with: %w", err)
	}
	ctx, r.cancel = context.WithCancel(ctx)
	for range fetchers {
		r.group.Go(func() { r.fetch(ctx, consumer) })
	}
	return nil
}

func (r *rawConsumer) fetch(ctx context.Context, consumer jetstream.Consumer) {
	for ctx.Err() == nil {
		if err := r.fetchOnce(ctx, consumer); err != nil && ctx.Err() == nil {
			err = fmt.Errorf("cannot consume: %w", err)
			r.broken.CompareAndSwap(nil, &err)
			return
		}
	}
}

func (r *rawConsumer) fetchOnce(ctx context.Context, consumer jetstream.Consumer) error {
	short, cancel := context.WithTimeout(ctx, natsPatience/2)
	defer cancel()
	some, err := consumer.Fetch(fetchSize, jetstream.FetchContext(short))
	if err != nil {
		return err
	}
	for m := range some.Messages() {
		if err := m.Ack(); err != nil {
			return err
		}
		if r.acked.Add(1) == r.want {
			close(r.all)
		}
	}
	if err := some.Error(); !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func (r *rawConsumer) err() error {
	if p := r.broken.Load(); p != nil {
		return *p
	}
	return nil
}

func (r *rawConsumer) stop() {
	r.cancel()
	r.conn.close()
	r.group.Wait()
}

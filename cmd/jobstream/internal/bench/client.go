package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
)

// What is in this file uses nats.go as anybody could: the raw speed of JetStream as a
// yardstick, and a client.

const (
	publishWindow = 4096 // messages published ahead of their acknowledgements
	fetchSize     = 500  // messages of one fetch
	fetchers      = 4    // fetches that overlap, so that none waits for another's end
	natsPatience  = 10 * time.Second
)

// rawThroughput measures what JetStream itself can do with o's settings: n
// messages of size bytes, published asynchronously to a stream of its own while
// a pull consumer fetches and acks them, both with nats.go over in-process
// connections. done is how many were acked in the time took, n unless limit
// ended it before. o.Dir must be empty and stays full of what was published.
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

// errLimit ends a measurement in good order.
var errLimit = errors.New("the time for measuring is over")

// rawConsumer fetches and acks. It uses Fetch because nats.go's Consume and
// Messages can forget to ask for more and then stall until their heartbeat
// fails.
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

// client is a NATS client of a broker.
type client struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	refused atomic.Pointer[error]
}

// dial connects a client to the broker's port; see [NodeOptions].Port.
func dial(b *broker.Broker, log *slog.Logger) (*client, error) {
	url := b.ClientURL()
	if url == "" {
		return nil, errors.New("the broker has no port that a client could connect to")
	}
	return connect(func(o *nats.Options) error { o.Url = url; return nil }, log)
}

func connect(how nats.Option, log *slog.Logger) (*client, error) {
	nc, err := nats.Connect("", how, nats.Name("measuring"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		log.Error("the connection to the broker had an error", "error", err)
	}))
	if err != nil {
		return nil, fmt.Errorf("cannot connect to the broker: %w", err)
	}
	c := &client{nc: nc}
	c.js, err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(publishWindow),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) {
			c.refused.CompareAndSwap(nil, &err)
		}))
	if err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// publish publishes body n times, each time to the subject that belongs to the
// number, and returns when the streams have acknowledged them all. A deadline of
// ctx ends it early without an error. published is how many messages are stored.
func (c *client) publish(ctx context.Context, n int, subject func(i int) string, body []byte) (published int, err error) {
	for published < n && ctx.Err() == nil && c.refused.Load() == nil {
		// The library gives up after 200 ms of a full window otherwise: a busy machine
		// may well take longer.
		if _, err := c.js.PublishAsync(subject(published), body, jetstream.WithStallWait(natsPatience)); err != nil {
			return 0, fmt.Errorf("cannot publish: %w", err)
		}
		published++
	}
	late := time.NewTimer(natsPatience)
	defer late.Stop()
	select {
	case <-c.js.PublishAsyncComplete():
	case <-late.C:
		return 0, fmt.Errorf("%d messages were not acknowledged within %v", c.js.PublishAsyncPending(), natsPatience)
	}
	if p := c.refused.Load(); p != nil {
		return 0, fmt.Errorf("a message was refused: %w", *p)
	}
	return published, nil
}

// subscribe calls f for every message that comes on a subject, wildcards
// included, with its own subject, one at a time. It returns when the server
// knows.
func (c *client) subscribe(ctx context.Context, subject string, f func(subject string, body []byte)) error {
	if _, err := c.nc.Subscribe(subject, func(m *nats.Msg) { f(m.Subject, m.Data) }); err != nil {
		return fmt.Errorf("cannot subscribe to %s: %w", subject, err)
	}
	return c.flush(ctx)
}

// flush returns when the server has read what was sent.
func (c *client) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, natsPatience)
	defer cancel()
	if err := c.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("the broker does not answer: %w", err)
	}
	return nil
}

func (c *client) close() { c.nc.Close() }

// notifications is the number of the last notification.
func (c *client) notifications(ctx context.Context) (uint64, error) {
	s, err := c.js.Stream(ctx, broker.NotificationsStream)
	if err != nil {
		return 0, fmt.Errorf("cannot look up stream %s: %w", broker.NotificationsStream, err)
	}
	return s.CachedInfo().State.LastSeq, nil
}

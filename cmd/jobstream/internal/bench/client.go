package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
)

const (
	publishWindow = 4096             // messages published ahead of their acknowledgements
	natsPatience  = 10 * time.Second // for an answer
)

// client is a NATS client of a broker, as any program could write one.
type client struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	refused atomic.Pointer[error]
}

// dial connects a client to the broker's port, see [NodeOptions].Port.
func dial(b *broker.Broker, log *slog.Logger) (*client, error) {
	url := b.ClientURL()
	if url == "" {
		return nil, errors.New("the broker has no port that a client could connect to")
	}
	return connect(func(o *nats.Options) error { o.Url = url; return nil }, log)
}

// connect connects a client by the option how.
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

// publish publishes body n times, each time to the subject of its number, and returns
// when the streams have acknowledged all. A deadline of ctx ends it early without an
// error. published is the number of stored messages.
func (c *client) publish(ctx context.Context, n int, subject func(i int) string, body []byte) (published int, err error) {
	for published < n && ctx.Err() == nil && c.refused.Load() == nil {
		// Otherwise the library gives up after a window was full for 200 ms. A busy
		// machine may take longer.
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

// subscribe calls f for every message on a subject, wildcards included, one at a time
// and with the message's own subject. It returns when the server has the subscription.
func (c *client) subscribe(ctx context.Context, subject string, f func(subject string, body []byte)) error {
	if _, err := c.nc.Subscribe(subject, func(m *nats.Msg) { f(m.Subject, m.Data) }); err != nil {
		return fmt.Errorf("cannot subscribe to %s: %w", subject, err)
	}
	return c.flush(ctx)
}

// flush returns when the server has read everything that was sent.
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

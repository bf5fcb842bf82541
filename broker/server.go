package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker/internal/wire"
)

// start runs the server and connects nats.go to it.
func (b *Broker) start(ctx context.Context) error {
	if err := b.checkPort(ctx); err != nil {
		return err
	}
	opts := &server.Options{
		ServerName:        b.o.Node,
		Host:              b.o.Host,
		Port:              b.o.Port,
		DontListen:        true, // see Listen
		NoSigs:            true,
		JetStream:         true,
		StoreDir:          b.o.Dir,
		SyncInterval:      b.o.SyncInterval,
		SyncAlways:        b.o.SyncAlways,
		JetStreamMaxStore: unlimitedDisk,
		MaxPayload:        int32(b.o.largest()),
		MaxPending:        int64(b.o.maxPending()),
	}
	if b.o.MaxConns > 0 {
		opts.MaxConn = b.o.MaxConns + ownConns
	}
	opts.JetStreamLimits.DefaultMaxConsumers = -1
	srv, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("cannot start the embedded broker: %w", err)
	}
	logger := serverLog{log: b.log, fatal: make(chan string, 1), broken: &b.health.broken}
	srv.SetLoggerV2(logger, false, false, false)
	b.srv = srv
	srv.Start()
	if err := b.awaitReady(ctx, logger.fatal); err != nil {
		return err
	}
	b.fatal = logger.fatal
	b.nc, err = nats.Connect("", nats.InProcessServer(srv), nats.Name("jobstream"), nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond), nats.ErrorHandler(b.clientError))
	if err != nil {
		return fmt.Errorf("cannot connect to the embedded broker: %w", err)
	}
	b.js, err = jetstream.New(b.nc)
	return err
}

// Listen opens the port for NATS clients, if there is to be one and it is not
// open yet.
func (b *Broker) Listen(ctx context.Context) error {
	if b.o.Port == 0 || b.listening.Swap(true) {
		return nil
	}
	if err := b.checkPort(ctx); err != nil {
		return err
	}
	b.srv.AcceptLoop(make(chan struct{})) // it returns when the port is open
	select {
	case text := <-b.fatal:
		return fmt.Errorf("the broker cannot listen on %s:%d: %s", b.o.Host, b.o.Port, text)
	default:
	}
	if b.o.MaxConns > 0 {
		shortenBacklog(b.Port(), min(b.o.MaxConns, longBacklog))
	}
	return nil
}

// checkPort finds out early, and in words, that the port is taken.
func (b *Broker) checkPort(ctx context.Context) error {
	if b.o.Port <= 0 {
		return nil
	}
	addr := net.JoinHostPort(b.o.Host, strconv.Itoa(b.o.Port))
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%s is in use (broker.host, broker.port); stop what uses it or choose another port", addr)
		}
		return fmt.Errorf("the broker cannot listen on %s (broker.host, broker.port): %w", addr, err)
	}
	return l.Close()
}

func (b *Broker) awaitReady(ctx context.Context, fatal <-chan string) error {
	deadline := time.Now().Add(startTimeout)
	for !b.srv.ReadyForConnections(20 * time.Millisecond) {
		select {
		case text := <-fatal:
			return fmt.Errorf("the broker cannot start on %s:%d: %s", b.o.Host, b.o.Port, text)
		case <-ctx.Done():
			return context.Cause(ctx)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the broker was not ready after %v", startTimeout)
		}
	}
	if !b.srv.JetStreamEnabled() {
		return fmt.Errorf("the broker cannot use its folder %s: JetStream did not start; the log says why", b.o.Dir)
	}
	return nil
}

func (b *Broker) clientError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) && sub != nil {
		b.log.Error("messages were dropped: a subscription is too slow", "subject", sub.Subject)
		return
	}
	b.log.Error("the connection to the broker had an error", "error", err)
}

// halt stops nats.go and the server.
func (b *Broker) halt() {
	if b.nc != nil {
		b.nc.Close()
	}
	if b.srv != nil {
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
	}
	b.nc, b.js, b.srv = nil, nil, nil
}

// connect makes a connection for what comes by the hundred thousand.
func (b *Broker) connect(o wire.Options) (*wire.Conn, error) {
	o.Dial, o.Log = b.srv.InProcessConn, b.log
	c, err := wire.Open(o)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to the embedded broker: %w", err)
	}
	return c, nil
}

// ClientURL is where NATS clients connect, "" if the broker has no open port.
func (b *Broker) ClientURL() string {
	if b.o.Port == 0 || !b.listening.Load() {
		return ""
	}
	return b.srv.ClientURL()
}

// InProcessConn connects a NATS client of this process, without a port; see
// [nats.InProcessServer].
func (b *Broker) InProcessConn() (net.Conn, error) { return b.srv.InProcessConn() }

// Port is where NATS clients connect; that of the options while none is open.
func (b *Broker) Port() int {
	if at, ok := b.srv.Addr().(*net.TCPAddr); ok {
		return at.Port
	}
	return b.o.Port
}

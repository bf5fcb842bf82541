package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker/internal/wire"
)

// Server is the nats-server in this process, with nats.go's connection to it for rare
// calls. It has no lock: srv, nc and js are replaced only while Open repairs the folder,
// and are nil after Close.
type Server struct {
	o   Options
	log *slog.Logger

	srv *server.Server
	nc  *nats.Conn
	js  jetstream.JetStream

	accounts  *accounts
	seal      *seal // set by Open, and in a cluster by Lead
	listening atomic.Bool
	fatal     <-chan string          // an error with which nats-server would have ended the process
	broken    atomic.Pointer[string] // the write error of a stream, after which it writes nothing
	waiting   atomic.Pointer[string] // what Join waits for
}

const (
	startTimeout = 30 * time.Second
	longBacklog  = 1024   // connections that may wait to be accepted
	maxSubs      = 10_000 // subscriptions of a connection, which cost memory
	ownConns     = 16     // connections of this process; the server counts them like all others

	// maxControlLine bounds a line of the protocol, in bytes. A login is one line, and signed
	// tokens may be several KiB long.
	maxControlLine = 16 << 10
)

// start runs the server and connects nats.go to it.
func (s *Server) start(ctx context.Context) error {
	if err := s.checkPort(ctx); err != nil {
		return err
	}
	opts := &server.Options{
		ServerName:        s.o.Node,
		Host:              s.o.Host,
		Port:              s.o.Port,
		DontListen:        true, // see Listen
		NoSigs:            true,
		JetStream:         true,
		StoreDir:          s.o.Dir,
		SyncInterval:      s.o.SyncInterval,
		SyncAlways:        s.o.SyncAlways,
		JetStreamMaxStore: unlimitedDisk,
		MaxPayload:        int32(s.o.largest()),
		MaxPending:        int64(s.o.maxPending()),
		MaxControlLine:    maxControlLine,
		TLSConfig:         s.o.TLS,
		MaxSubs:           maxSubs,
	}
	if s.o.MaxConns > 0 {
		opts.MaxConn = s.o.MaxConns + ownConns
	}
	opts.JetStreamLimits.DefaultMaxConsumers = -1
	if s.clustered() {
		if err := s.o.Cluster.fill(opts); err != nil {
			return err
		}
	}
	if s.o.Identify != nil || s.clustered() {
		opts.CustomClientAuthentication = s.accounts
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("cannot start the embedded broker: %w", err)
	}
	logger := serverLog{log: s.log, fatal: make(chan string, 1), broken: &s.broken}
	srv.SetLoggerV2(logger, false, false, false)
	s.srv = srv
	srv.Start()
	if err := s.awaitReady(ctx, logger.fatal); err != nil {
		return err
	}
	s.fatal = logger.fatal
	s.listening.Store(s.clustered())
	s.nc, err = nats.Connect("", nats.InProcessServer(srv), nats.Name("jobstream"), nats.MaxReconnects(-1), nats.CustomInboxPrefix(replies),
		nats.ReconnectWait(100*time.Millisecond), nats.ErrorHandler(s.clientError))
	if err != nil {
		return fmt.Errorf("cannot connect to the embedded broker: %w", err)
	}
	s.js, err = jetstream.New(s.nc)
	if err == nil {
		err = export(srv.GlobalAccount())
	}
	return err
}

// Listen opens the port for NATS clients, unless it is open or there is to be none.
func (s *Server) Listen(ctx context.Context) error {
	if s.o.Port == 0 || s.listening.Swap(true) {
		return nil
	}
	if err := s.checkPort(ctx); err != nil {
		return err
	}
	s.srv.AcceptLoop(make(chan struct{})) // it returns when the port is open
	select {
	case text := <-s.fatal:
		return fmt.Errorf("the broker cannot listen on %s:%d: %s", s.o.Host, s.o.Port, text)
	default:
	}
	if s.o.MaxConns > 0 {
		shortenBacklog(s.Port(), min(s.o.MaxConns, longBacklog))
	}
	return nil
}

// checkPort finds out early that a port is in use, for an error that says so.
func (s *Server) checkPort(ctx context.Context) error {
	if s.clustered() {
		if err := checkAddress(ctx, s.o.Cluster.Listen, "broker.cluster.listen"); err != nil {
			return err
		}
	}
	if s.o.Port <= 0 {
		return nil
	}
	return checkAddress(ctx, net.JoinHostPort(s.o.Host, strconv.Itoa(s.o.Port)), "broker.host, broker.port")
}

func checkAddress(ctx context.Context, addr, keys string) error {
	if strings.HasSuffix(addr, ":-1") {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%s is in use (%s); stop what uses it or choose another port", addr, keys)
		}
		return fmt.Errorf("the broker cannot listen on %s (%s): %w", addr, keys, err)
	}
	return l.Close()
}

func (s *Server) awaitReady(ctx context.Context, fatal <-chan string) error {
	deadline := time.Now().Add(startTimeout)
	for !s.srv.ReadyForConnections(20 * time.Millisecond) {
		select {
		case text := <-fatal:
			return fmt.Errorf("the broker cannot start on %s:%d: %s", s.o.Host, s.o.Port, text)
		case <-ctx.Done():
			return context.Cause(ctx)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the broker was not ready after %v", startTimeout)
		}
	}
	if !s.srv.JetStreamEnabled() {
		return fmt.Errorf("the broker cannot use its folder %s: JetStream did not start; the log says why", s.o.Dir)
	}
	return nil
}

func (s *Server) clientError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) && sub != nil {
		s.log.Error("messages were dropped: a subscription is too slow", "subject", sub.Subject)
		return
	}
	s.log.Error("the connection to the broker had an error", "error", err)
}

// halt stops nats.go and the server.
func (s *Server) halt() {
	if s.nc != nil {
		s.nc.Close()
	}
	if s.srv != nil {
		s.srv.Shutdown()
		s.srv.WaitForShutdown()
	}
	s.nc, s.js, s.srv = nil, nil, nil
}

// connect makes a connection for messages by the hundred thousand.
func (s *Server) connect(o wire.Options) (*wire.Conn, error) {
	o.Dial, o.Log = s.srv.InProcessConn, s.log
	c, err := wire.Open(o)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to the embedded broker: %w", err)
	}
	return c, nil
}

// ClientURL is where NATS clients connect, "" if the broker has no open port.
func (s *Server) ClientURL() string {
	if s.o.Port == 0 || !s.listening.Load() {
		return ""
	}
	return s.srv.ClientURL()
}

// InProcessConn connects a NATS client of this process, without a port; see
// [nats.InProcessServer].
func (s *Server) InProcessConn() (net.Conn, error) { return s.srv.InProcessConn() }

// Port is where NATS clients connect; the port of the options while none is open.
func (s *Server) Port() int {
	if at, ok := s.srv.Addr().(*net.TCPAddr); ok && s.o.Port != 0 {
		return at.Port
	}
	return s.o.Port
}

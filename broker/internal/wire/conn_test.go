package wire_test

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"jobstream/broker/internal/wire"
)

const patience = 30 * time.Second

// start runs a server that only this process can connect to.
func start(t *testing.T, o *server.Options) *server.Server {
	t.Helper()
	o.DontListen, o.NoSigs, o.NoLog = true, true, true
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the server is not ready")
	}
	return srv
}

// open connects to srv.
func open(t *testing.T, srv *server.Server, o wire.Options) *wire.Conn {
	t.Helper()
	o.Dial = srv.InProcessConn
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	c, err := wire.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func flush(t *testing.T, c *wire.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// await returns what comes on a channel.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: nothing came", what)
		panic("not reached")
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	const (
		seed = "SUACTCOEBOK2POSGXTRIIYBIS3X27HYGMOSYOKE5QHQR42YSEBJX4W7LNA"
		key  = "UCHQYU4ZEIR4V2573X2OBBE4CET5EHZZHUF2PLKTJNXWX6ZYZATUC7QX"
	)
	file := filepath.Join(t.TempDir(), "seed")
	if err := os.WriteFile(file, []byte(seed), 0o600); err != nil {
		t.Fatal(err)
	}
	var signer nats.Options
	option, err := nats.NkeyOptionFromSeed(file)
	if err == nil {
		err = option(&signer)
	}
	if err != nil {
		t.Fatal(err)
	}
	no := func([]byte) ([]byte, error) { return nil, errors.New("not today") }
	tests := []struct {
		name    string
		wants   server.Options
		has     wire.Options
		refused string
	}{
		{"password", server.Options{Username: "me", Password: `a"b`}, wire.Options{User: "me", Password: `a"b`}, ""},
		{"wrong password", server.Options{Username: "me", Password: "a"}, wire.Options{User: "me", Password: "b"}, "Authorization Violation"},
		{"none", server.Options{Username: "me", Password: "a"}, wire.Options{}, "Authorization Violation"},
		{"token", server.Options{Authorization: "secret"}, wire.Options{Token: "secret"}, ""},
		{"wrong token", server.Options{Authorization: "secret"}, wire.Options{Token: "public"}, "Authorization Violation"},
		{"nkey", server.Options{Nkeys: []*server.NkeyUser{{Nkey: key}}}, wire.Options{Nkey: key, Sign: signer.SignatureCB}, ""},
		{"nkey without a signature", server.Options{Nkeys: []*server.NkeyUser{{Nkey: key}}}, wire.Options{Nkey: key}, "Authorization Violation"},
		{"no way to sign", server.Options{Nkeys: []*server.NkeyUser{{Nkey: key}}}, wire.Options{Nkey: key, Sign: no}, "not today"},
		{"needless", server.Options{}, wire.Options{User: "me", Password: "a"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := start(t, &tt.wants)
			tt.has.Dial = srv.InProcessConn
			c, err := wire.Open(tt.has)
			if err == nil {
				defer c.Close()
			}
			if tt.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refused) {
					t.Fatalf("the error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			came := make(chan string, 1)
			if _, err := c.Subscribe("a", func(m *wire.Msg) { came <- string(m.Body) }); err != nil {
				t.Fatal(err)
			}
			if err := wire.Publish(c, "a", "", nil, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			await(t, "a message", came)
		})
	}
}

// TestConnectsAgain breaks a connection. Waiting calls end with an error, and the next
// connection has the same subscriptions but those that were ended.
func TestConnectsAgain(t *testing.T) {
	t.Parallel()
	srv := start(t, &server.Options{})
	gone := make(chan struct{}, 10)
	var whenDown atomic.Pointer[func()]
	c := open(t, srv, wire.Options{Name: "breaks", Gone: func() {
		(*whenDown.Load())()
		gone <- struct{}{}
	}})
	came := make(chan string, 10)
	if _, err := c.Subscribe("kept", func(m *wire.Msg) { came <- string(m.Subject) }); err != nil {
		t.Fatal(err)
	}
	sid, err := c.Subscribe("dropped", func(m *wire.Msg) { came <- string(m.Subject) })
	if err == nil {
		err = c.Unsubscribe(sid)
	}
	if err != nil {
		t.Fatal(err)
	}
	late, err := c.Subscribe("late", func(m *wire.Msg) { came <- string(m.Subject) })
	if err != nil {
		t.Fatal(err)
	}
	whenDown.Store(new(func() {
		if err := c.Unsubscribe(late); err != nil {
			t.Errorf("to end a subscription while the connection is down: %v", err)
		}
	}))
	flush(t, c)
	for range 3 {
		open, err := srv.Connz(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, conn := range open.Conns {
			if err := srv.DisconnectClientByID(conn.Cid); err != nil {
				t.Fatal(err)
			}
		}
		await(t, "word of the end", gone)
		for _, subject := range []string{"dropped", "late", "kept"} {
			for err := wire.ErrDown; errors.Is(err, wire.ErrDown); {
				err = wire.Publish(c, subject, "", nil, nil)
				if err != nil && !errors.Is(err, wire.ErrDown) {
					t.Fatal(err)
				}
			}
		}
		if got := await(t, "a message", came); got != "kept" {
			t.Errorf("a message came on %s", got)
		}
	}
	c.Close()
	if err := wire.Publish(c, "kept", "", nil, nil); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("publishing on a closed connection gives %v", err)
	}
}

// TestTooLarge: a message is refused for which the server would end the connection.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	srv := start(t, &server.Options{MaxPayload: 1000})
	c := open(t, srv, wire.Options{})
	came := make(chan int, 10)
	if _, err := c.Subscribe("a", func(m *wire.Msg) { came <- len(m.Body) }); err != nil {
		t.Fatal(err)
	}
	header := []byte("NATS/1.0\r\n\r\n")
	if err := wire.Publish(c, "a", "", header, make([]byte, 1001-len(header))); err == nil {
		t.Error("it may be published")
	}
	if err := wire.Publish(c, "a", "", header, make([]byte, 1000-len(header))); err != nil {
		t.Error(err)
	}
	if got := await(t, "the smaller one", came); got != 1000-len(header) {
		t.Errorf("%d bytes came", got)
	}
}

// TestNobodyListens: the server answers a request that nobody listens to.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	c := open(t, start(t, &server.Options{}), wire.Options{})
	came := make(chan int, 1)
	if _, err := c.Subscribe("me", func(m *wire.Msg) { came <- m.Status() }); err != nil {
		t.Fatal(err)
	}
	if err := wire.Publish(c, []byte("nobody"), []byte("me"), nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := await(t, "an answer", came); got != 503 {
		t.Errorf("the status is %d", got)
	}
}

// fake greets a client as a server does.
func fake(greeting string) (client, remote net.Conn) {
	client, remote = net.Pipe()
	go func() {
		_, _ = remote.Write([]byte(greeting))
		r := bufio.NewReader(remote)
		for range 2 { // CONNECT and PING
			if _, err := r.ReadString('\n'); err != nil {
				return
			}
		}
		_, _ = remote.Write([]byte("PONG\r\n"))
	}()
	return client, remote
}

func TestStrangeGreetings(t *testing.T) {
	t.Parallel()
	for _, greeting := range []string{"HTTP/1.1 400 Bad Request\r\n", "INFO nonsense\r\n", "INFO {\"tls_required\":true}\r\n"} {
		c, err := wire.Open(wire.Options{Dial: func() (net.Conn, error) {
			client, _ := fake(greeting)
			return client, nil
		}})
		if err == nil {
			c.Close()
			t.Errorf("%q is taken for a greeting", greeting)
		}
	}
}

// TestLimit: publishers wait for a server that reads nothing, until the connection is closed.
func TestLimit(t *testing.T) {
	t.Parallel()
	c, err := wire.Open(wire.Options{Limit: 4 << 10, Dial: func() (net.Conn, error) {
		client, _ := fake("INFO {}\r\n")
		return client, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	begun, ended := make(chan struct{}), make(chan error)
	go func() {
		for i := range 1000 {
			if err := wire.Publish(c, "a", "", nil, make([]byte, 1<<10)); err != nil {
				ended <- err
				return
			}
			if i == 0 {
				close(begun)
			}
		}
		ended <- nil
	}()
	await(t, "the first message", begun)
	c.Close()
	if err := await(t, "the end", ended); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("publishing ends with %v", err)
	}
}

// TestFlushDoesNotWaitForRoom: its context bounds it even if the server reads nothing.
func TestFlushDoesNotWaitForRoom(t *testing.T) {
	t.Parallel()
	c, err := wire.Open(wire.Options{Limit: 4 << 10, Dial: func() (net.Conn, error) {
		client, _ := fake("INFO {}\r\n")
		return client, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for range 2 { // one is being written, the other is more than the limit
		if err := wire.Publish(c, "a", "", nil, make([]byte, 8<<10)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	flushed := make(chan error, 1)
	go func() { flushed <- c.Flush(ctx) }()
	if err := await(t, "the end of the flush", flushed); !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
}

// TestRefusedSubscription: its result is no number of another subscription.
func TestRefusedSubscription(t *testing.T) {
	t.Parallel()
	c := open(t, start(t, &server.Options{}), wire.Options{})
	c.Close()
	if sid, err := c.Subscribe("a", nil); err == nil || sid >= 0 {
		t.Errorf("it has the number %d and the error %v", sid, err)
	}
}

// TestCloses although the server has gone and cannot be reached any more.
func TestCloses(t *testing.T) {
	t.Parallel()
	var remote net.Conn
	var tries atomic.Int32
	again := make(chan struct{})
	dial := func() (client net.Conn, err error) {
		switch tries.Add(1) {
		case 1:
			client, remote = fake("INFO {}\r\n")
			return client, nil
		case 2:
			close(again)
		}
		return nil, errors.New("nobody is there")
	}
	c, err := wire.Open(wire.Options{Log: slog.New(slog.DiscardHandler), Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	_ = remote.Close()
	await(t, "another try", again)
	closed := make(chan struct{})
	go func() { c.Close(); close(closed) }()
	await(t, "the end", closed)
}

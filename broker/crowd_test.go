package broker_test

import (
	"bufio"
	"encoding/json"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
)

func withPort(o *broker.Options) { o.Port = -1 }

// dial connects over TCP. A client on a pipe does not count as one from outside.
func dial(t testing.TB, b *broker.Broker) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(b.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// silent connects a client that subscribes to something and then reads no more.
func silent(t testing.TB, b *broker.Broker, subject string) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(b.ClientURL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("CONNECT {\"verbose\":false}\r\nSUB " + subject + " 1\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "PONG") {
			return
		}
	}
}

// TestSilentSubscribersAreDropped connects many clients that do not read their notifications,
// and one that does. The unread bytes stay bounded until the many are dropped. The one gets
// everything.
func TestSilentSubscribersAreDropped(t *testing.T) {
	t.Parallel()
	const most, many, batch = 4 << 20, 60, 200
	b := brokertest.New(t, withPort, func(o *broker.Options) { o.MaxBehind = most })
	nc := dial(t, b)
	var came atomic.Int64
	changed := make(chan struct{}, 1)
	sub, err := nc.Subscribe("job.completed.>", func(*nats.Msg) {
		came.Add(1)
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for range many {
		silent(t, b, "job.>")
	}
	stop, looked := make(chan struct{}), make(chan int)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		largest := 0
		for {
			select {
			case <-stop:
				looked <- largest
				return
			case <-tick.C:
				_, bytes := b.Behind()
				largest = max(largest, bytes)
			}
		}
	}()
	payload := json.RawMessage(`"` + strings.Repeat("x", 8<<10) + `"`)
	n := 0
	for clients := many + 1; clients > 1; clients, _ = b.Behind() {
		ended := make([]*jobs.Job, batch)
		for i := range ended {
			n++
			ended[i] = endedJob(n)
			ended[i].Payload = payload
		}
		if err := b.Notifier.Notify(t.Context(), ended); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	const meanwhile = most / 16 // the clients are looked at one after the other, while bytes come and go
	if largest := <-looked; largest > most+meanwhile {
		t.Errorf("clients were %d bytes behind, want at most %d", largest, most)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for late := time.After(patience); came.Load() < int64(n); {
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%d notifications came, want %d", came.Load(), n)
		}
	}
	if nc.Stats().Reconnects > 0 {
		t.Error("the client that reads was dropped")
	}
}

// TestFloodedClientsAreDropped: clients do not read the messages of another client.
func TestFloodedClientsAreDropped(t *testing.T) {
	t.Parallel()
	const most, many = 4 << 20, 60
	b := brokertest.New(t, withPort, func(o *broker.Options) { o.MaxBehind = most })
	for range many {
		silent(t, b, "foo")
	}
	nc := dial(t, b)
	body := make([]byte, 8<<10)
	for clients := many + 1; clients > 1; clients, _ = b.Behind() {
		for range 100 {
			if err := nc.Publish("foo", body); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if nc.Stats().Reconnects > 0 {
		t.Error("the client that publishes was dropped")
	}
}

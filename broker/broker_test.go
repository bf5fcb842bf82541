package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
)

const patience = 20 * time.Second

// recorder is a sink that remembers, and says when there is something new.
type recorder struct {
	mu       sync.Mutex
	messages []*jobs.Message
	events   []jobs.Event
	seqs     []uint64 // of STATUS messages
	changed  chan struct{}
}

func newRecorder() *recorder { return &recorder{changed: make(chan struct{}, 1)} }

func (r *recorder) Submitted(m *jobs.Message) {
	kept := *m
	r.mu.Lock()
	r.messages = append(r.messages, &kept)
	r.mu.Unlock()
	r.signal()
}

func (r *recorder) Happened(seq uint64, events []jobs.Event) {
	r.mu.Lock()
	r.seqs = append(r.seqs, seq)
	r.events = append(r.events, events...)
	r.mu.Unlock()
	r.signal()
}

func (r *recorder) signal() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// until waits until ok, which is called under the lock.
func (r *recorder) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := time.After(patience)
	for {
		r.mu.Lock()
		done := ok()
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-r.changed:
		case <-late:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// read starts reading into a new recorder, until the test ends or stop is called.
func read(t testing.TB, b *broker.Broker, from jobs.Positions) (r *recorder, stop func()) {
	t.Helper()
	r = newRecorder()
	return r, readInto(t, b, from, r)
}

func readInto(t testing.TB, b *broker.Broker, from jobs.Positions, sink jobs.Sink) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Reader.Read(ctx, from, sink) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Read returned %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func connect(t testing.TB, b *broker.Broker) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(b))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func message(typ string, p jobs.Priority) *jobs.Message {
	return &jobs.Message{ID: jobs.NewID(), Type: typ, Priority: p, Payload: json.RawMessage(`{"n":1}`), RetryCount: -1}
}

func submit(t testing.TB, b *broker.Broker, m *jobs.Message) {
	t.Helper()
	if err := b.Inbox.Submit(m, func(err error) { t.Errorf("refused: %v", err) }); err != nil {
		t.Fatal(err)
	}
}

func stored(t testing.TB, b *broker.Broker, last uint64) broker.StreamState {
	t.Helper()
	late := time.Now().Add(patience)
	for {
		st, err := b.Streams.Jobs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Last >= last {
			return st
		}
		if time.Now().After(late) {
			t.Fatalf("JOBS is at %d, want %d", st.Last, last)
		}
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start := time.Now()
	_, err = broker.Open(t.Context(), broker.Options{Dir: t.TempDir(), Port: l.Addr().(*net.TCPAddr).Port, Logger: brokertest.Logger(t)})
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Fatalf("it took %v", took)
	}
}

// TestLargestMessages: the bound of what a client may be behind follows the
// largest message, or the server would not start.
func TestLargestMessages(t *testing.T) {
	t.Parallel()
	for _, size := range []int{8 << 20, 32 << 20} {
		b := brokertest.New(t, func(o *broker.Options) { o.MaxPayload = size })
		if err := b.Healthy(); err != nil {
			t.Errorf("with messages of %d bytes: %v", size, err)
		}
	}
}

package broker_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"jobstream/broker"
	"jobstream/broker/brokertest"
)

// pair is the two ends of a connection from one member to another.
func pair(t *testing.T, m *brokertest.Members, from, to *broker.Broker, name string) (near, far net.Conn, l net.Listener) {
	t.Helper()
	l, err := to.Peers.Listen()
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	m.Wait("a connection", func() bool {
		near, err = from.Peers.Dial(t.Context(), name)
		return err == nil // the members learn after a moment that one listens
	})
	far, err = l.Accept()
	must(t, err)
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far, l
}

// TestDial: connections between members have bytes in order, in both directions at once and
// from many at a time, half ends, deadlines, and an end when the other side is gone.
func TestDial(t *testing.T) {
	t.Parallel()
	m := brokertest.Cluster(t, 3)
	near, far, l := pair(t, m, m.Brokers[0], m.Brokers[1], "test-2")

	// Nobody reads: a write waits for its deadline, and what is there is read later.
	must(t, near.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
	big := make([]byte, 5<<20)
	_, _ = rand.Read(big)
	n, err := near.Write(big)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n > 1<<20 {
		t.Fatalf("a write without a reader: %d, %v", n, err)
	}
	must(t, near.SetWriteDeadline(time.Time{}))
	rest := make(chan error, 1)
	go func() {
		_, err := near.Write(big[n:])
		rest <- errors.Join(err, near.(interface{ CloseWrite() error }).CloseWrite())
	}()
	got, err := io.ReadAll(far)
	must(t, err)
	must(t, <-rest)
	if sha256.Sum256(got) != sha256.Sum256(big) {
		t.Fatalf("%d bytes came as others, or as %d", len(big), len(got))
	}
	// The other direction is still open.
	if _, err := far.Write([]byte("thanks")); err != nil {
		t.Fatal(err)
	}
	must(t, far.Close())
	if got, err = io.ReadAll(near); string(got) != "thanks" || err != nil {
		t.Errorf("after a half end: %q, %v", got, err)
	}

	// An HTTP server, used by many at a time.
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return m.Brokers[2].Peers.Dial(ctx, "test-2")
	}}}
	defer client.CloseIdleConnections()
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			body := bytes.Repeat([]byte{byte(i)}, i*40_000)
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://test-2/", bytes.NewReader(body))
			a, err := client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Body.Close()
			if got, err := io.ReadAll(a.Body); err != nil || !bytes.Equal(got, body) {
				t.Errorf("request %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	group.Wait()

	if _, err := m.Brokers[0].Peers.Dial(t.Context(), "nobody"); !errors.Is(err, broker.ErrNobody) {
		t.Errorf("a member that does not exist: %v", err)
	}
	late, _, _ := pair(t, m, m.Brokers[0], m.Brokers[2], "test-3")
	must(t, late.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
	if _, err := late.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read after its deadline: %v", err)
	}
	must(t, late.SetReadDeadline(time.Now().Add(time.Minute)))
	m.Brokers[2].Close()
	m.Brokers[2] = nil
	if _, err := late.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the other side has ended: %v", err)
	}
}

package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs/access"
	"jobstream/jobs/replica"
)

// TestTrackerLog appends by each member, and reads by each.
func TestTrackerLog(t *testing.T) {
	t.Parallel()
	m := brokertest.Cluster(t, 3)
	for i, b := range m.Brokers {
		if got, err := b.TrackerLog.Last(t.Context()); got.Seq != 0 || got.Body != nil || err != nil {
			t.Errorf("member %d: a new log ends with %+v, %v", i+1, got, err)
		}
		if got, err := b.TrackerLog.Read(t.Context(), 1, 10); len(got) > 0 || err != nil {
			t.Errorf("member %d: a new log has %+v, %v", i+1, got, err)
		}
	}
	const entries = 2000
	body := strings.Repeat("x", 4<<10)
	for n := range uint64(entries) {
		b := m.Brokers[n*3/entries]
		if seq, err := b.TrackerLog.Append(t.Context(), n, fmt.Append(nil, n, body)); seq != n+1 || err != nil {
			t.Fatalf("entry %d: %d, %v", n, seq, err)
		}
		if n%200 != 0 {
			continue
		}
		for _, b := range m.Brokers {
			for _, wrong := range []uint64{n, n + 2} {
				if _, err := b.TrackerLog.Append(t.Context(), wrong, nil); !errors.Is(err, replica.ErrRefused) {
					t.Errorf("an entry behind %d, and the last is %d: %v", wrong, n+1, err)
				}
			}
		}
	}
	for i, b := range m.Brokers {
		if got, err := b.TrackerLog.Last(t.Context()); got.Seq != entries || string(got.Body) != fmt.Sprint(entries-1, body) || err != nil {
			t.Errorf("member %d: the log ends with %d, %v", i+1, got.Seq, err)
		}
		for from, want := range map[uint64]uint64{0: 1, 1: 1, entries: entries, entries + 1: 0} {
			if got, err := b.TrackerLog.Next(t.Context(), from); got.Seq != want || (got.Body == nil) != (want == 0) || err != nil {
				t.Errorf("member %d: from %d on, the next message is %d, %v; want %d", i+1, from, got.Seq, err, want)
			}
		}
		next := uint64(1)
		for next <= entries {
			all, err := b.TrackerLog.Read(t.Context(), next, 500)
			if err != nil || len(all) > 500 {
				t.Fatalf("member %d: %d entries, %v", i+1, len(all), err)
			}
			if len(all) == 0 {
				awaitBell(t, b)
			}
			for _, e := range all {
				if e.Seq != next || string(e.Body) != fmt.Sprint(next-1, body) {
					t.Fatalf("member %d: entry %d has %.20q; want %d", i+1, e.Seq, e.Body, next)
				}
				next++
			}
		}
	}
}

// awaitBell waits until the own replica may have something new.
func awaitBell(t *testing.T, b *broker.Broker) {
	t.Helper()
	select {
	case <-b.TrackerLog.Bell():
	case <-time.After(patience):
		t.Fatal("the bell did not ring")
	}
}

// TestTrackerLogIsALock has all members append at once, each behind the end that it knows.
func TestTrackerLogIsALock(t *testing.T) {
	t.Parallel()
	m := brokertest.Cluster(t, 3)
	const each = 50
	var group sync.WaitGroup
	for i, b := range m.Brokers {
		group.Go(func() {
			for n := 0; n < each; {
				last, err := b.TrackerLog.Last(t.Context())
				if err == nil {
					_, err = b.TrackerLog.Append(t.Context(), last.Seq, fmt.Append(nil, i, " ", n))
				}
				switch {
				case err == nil:
					n++
				case !errors.Is(err, replica.ErrRefused):
					t.Errorf("member %d: %v", i+1, err)
					return
				}
			}
		})
	}
	group.Wait()
	b := m.Brokers[0]
	next := make([]int, len(m.Brokers))
	for seq := uint64(1); seq <= each*3; {
		all, err := b.TrackerLog.Read(t.Context(), seq, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			var i, n int
			if _, err := fmt.Sscan(string(e.Body), &i, &n); err != nil || n != next[i] || e.Seq != seq {
				t.Fatalf("entry %d has %q, %v; want %d of that member", e.Seq, e.Body, err, next[i])
			}
			next[i]++
			seq++
		}
		if len(all) == 0 {
			awaitBell(t, b)
		}
	}
}

// TestTrackerLogWithoutAMajority cannot be appended to, and can be read.
func TestTrackerLogWithoutAMajority(t *testing.T) {
	t.Parallel()
	m := brokertest.Cluster(t, 3)
	alone, others := m.Brokers[0].TrackerLog, m.Brokers[1].TrackerLog
	if _, err := alone.Append(t.Context(), 0, []byte("first")); err != nil {
		t.Fatal(err)
	}
	m.Wait("the own replica", func() bool {
		m.Isolate(0, true)
		if got, err := alone.Read(t.Context(), 1, 1); len(got) == 1 && err == nil {
			return true
		}
		m.Isolate(0, false) // others answer until it has caught up
		try, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = alone.Last(try)
		return false
	})
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := alone.Append(short, 1, []byte("lost")); err == nil || errors.Is(err, replica.ErrRefused) {
		t.Errorf("an append without a majority: %v", err)
	}
	m.Wait("the first entry in the own replica", func() bool { // a question may meet a moment when nothing answers
		got, err := alone.Read(t.Context(), 1, 10)
		return len(got) == 1 && err == nil
	})
	m.Wait("another leader of the log", func() bool {
		try, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := others.Append(try, 1, []byte("second"))
		return err == nil || errors.Is(err, replica.ErrRefused) // after one without an answer
	})
	m.Isolate(0, false)
	m.Wait("what the others have appended", func() bool {
		got, _ := alone.Read(t.Context(), 2, 10)
		if len(got) > 0 && string(got[0].Body) != "second" {
			t.Fatalf("the second entry has %q", got[0].Body)
		}
		return len(got) > 0
	})
}

// TestTrackerIsClosed to all principals but admins, wherever they connect.
func TestTrackerIsClosed(t *testing.T) {
	t.Parallel()
	everything := &access.Principal{Name: "ci", Scopes: []access.Scope{access.Submit, access.Read, access.Manage, access.Work}}
	m := brokertest.Cluster(t, 3, withPort, func(o *broker.Options) {
		o.Identify = func(broker.Credentials) *access.Principal { return everything }
	})
	if _, err := m.Brokers[0].TrackerLog.Append(t.Context(), 0, []byte("first")); err != nil {
		t.Fatal(err)
	}
	subjects := []string{
		"tracker.test", "$JS.API.DIRECT.GET.TRACKER", "$JS.API.STREAM.MSG.GET.TRACKER",
		"$JS.API.STREAM.PURGE.TRACKER", "$JS.API.STREAM.DELETE.TRACKER", "$JS.API.CONSUMER.CREATE.TRACKER.a",
	}
	for i, b := range m.Brokers {
		refused := make(chan error, len(subjects)+1)
		nc, err := nats.Connect(b.ClientURL(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		for _, s := range subjects {
			if err := nc.PublishRequest(s, nc.NewInbox(), nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := nc.SubscribeSync("jobstream.tracker"); err != nil {
			t.Fatal(err)
		}
		for range len(subjects) + 1 {
			select {
			case err := <-refused:
				if !errors.Is(err, nats.ErrPermissionViolation) {
					t.Errorf("member %d: %v", i+1, err)
				}
			case <-time.After(patience):
				t.Fatalf("member %d: a request was not refused", i+1)
			}
		}
	}
}

// TestPeers greet one another, and copy trackers of different sizes.
func TestPeers(t *testing.T) {
	t.Parallel()
	m := brokertest.Cluster(t, 3)
	if err := m.Brokers[0].Peers.Tell([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	for i, b := range m.Brokers[1:] {
		select {
		case got := <-b.Peers.Heard():
			if string(got) != "hello" {
				t.Errorf("member %d heard %q", i+2, got)
			}
		case <-time.After(patience):
			t.Fatalf("member %d heard nothing", i+2)
		}
	}
	from, to := m.Brokers[1].Peers, m.Brokers[2].Peers
	if err := to.Fetch(t.Context(), "test-2", io.Discard); err == nil || !strings.Contains(err.Error(), "it has none yet") {
		t.Errorf("a copy of nothing: %v", err)
	}
	if err := to.Fetch(t.Context(), "nobody", io.Discard); err == nil || !strings.Contains(err.Error(), "it is not there") {
		t.Errorf("a copy of nobody: %v", err)
	}
	for _, size := range []int{0, 1, 512 << 10, 512<<10 + 1, 20 << 20} {
		tracker := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(tracker) // it never fails
		from.Serve(func(f func(int64, io.WriterTo) error) error { return f(int64(size), bytes.NewReader(tracker)) })
		var got bytes.Buffer
		if err := to.Fetch(t.Context(), "test-2", &got); err != nil || !bytes.Equal(got.Bytes(), tracker) {
			t.Errorf("a copy of %d bytes has %d, or others: %v", size, got.Len(), err)
		}
	}
	from.Serve(func(f func(int64, io.WriterTo) error) error { return f(0, failing{}) })
	if err := to.Fetch(t.Context(), "test-2", io.Discard); err == nil || !strings.Contains(err.Error(), "on purpose") {
		t.Errorf("a copy that breaks: %v", err)
	}
}

// failing writes something, and then fails.
type failing struct{}

func (failing) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(make([]byte, 1<<20))
	return int64(n), errors.Join(err, errors.New("broken on purpose"))
}

// TestOneCopyAtATime: the second one who asks meanwhile is refused.
func TestOneCopyAtATime(t *testing.T) {
	t.Parallel()
	m := brokertest.Cluster(t, 3)
	begun, end := make(chan struct{}), make(chan struct{})
	m.Brokers[0].Peers.Serve(func(f func(int64, io.WriterTo) error) error {
		close(begun)
		<-end
		return f(0, strings.NewReader("a copy"))
	})
	first := make(chan error, 1)
	go func() { first <- m.Brokers[1].Peers.Fetch(t.Context(), "test", io.Discard) }()
	<-begun
	if err := m.Brokers[2].Peers.Fetch(t.Context(), "test", io.Discard); err == nil || !strings.Contains(err.Error(), "another one gets a copy now") {
		t.Errorf("the second one: %v", err)
	}
	close(end)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

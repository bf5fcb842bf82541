package broker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// uneven is a sink that checks the order, and blocks now and then.
type uneven struct {
	mu    sync.Mutex
	next  uint64
	stops []uint64
	stop  chan chan struct{}
	fail  func(format string, args ...any)
	want  uint64
	done  chan struct{}
}

func (u *uneven) Submitted(m *jobs.Message) {
	u.mu.Lock()
	u.next++
	if m.Seq != u.next || string(m.Payload) == "" || m.Type != "email" {
		u.fail("message %d of type %q came, %d was next", m.Seq, m.Type, u.next)
	}
	stops := len(u.stops) > 0 && u.stops[0] == m.Seq
	if stops {
		u.stops = u.stops[1:]
	}
	if m.Seq == u.want {
		close(u.done)
	}
	u.mu.Unlock()
	if stops {
		on := make(chan struct{})
		u.stop <- on
		<-on
	}
}

func (u *uneven) Happened(uint64, []jobs.Event) {}

// TestReaderUnderAFlood: several publishers, and a sink that blocks so long that the reader
// has to stop the server. It misses nothing.
func TestReaderUnderAFlood(t *testing.T) {
	t.Parallel()
	brokertest.Bubble(t, testReaderUnderAFlood)
}

func testReaderUnderAFlood(t *testing.T) {
	t.Helper()
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const n, publishers = 40_000, 4
	b := brokertest.New(t)
	u := &uneven{stop: make(chan chan struct{}), fail: t.Errorf, want: n, done: make(chan struct{})}
	for range 5 {
		u.stops = append(u.stops, 1+r.Uint64N(n-1))
	}
	slices.Sort(u.stops)
	u.stops = slices.Compact(u.stops)
	stops := len(u.stops)
	readInto(t, b, jobs.Positions{}, u)
	payload := json.RawMessage(`"` + strings.Repeat("x", 500) + `"`)
	sent := make(chan struct{}, n)
	for range publishers {
		go func() {
			for range n / publishers {
				m := message("email", 3)
				m.Payload = payload
				if err := b.Inbox.Submit(m, nil); err != nil {
					t.Error(err)
				}
				sent <- struct{}{}
			}
		}()
	}
	published := 0
	for range stops {
		on := <-u.stop
		for range min(10_000, n-published) { // more than may be under way
			<-sent
			published++
		}
		close(on)
	}
	select {
	case <-u.done:
	case <-time.After(3 * patience):
		u.mu.Lock()
		t.Fatalf("message %d came last of %d", u.next, n)
	}
}

// TestReaderOfAStreamThatIsMadeAnew: somebody deletes JOBS and makes it again; the
// reader's consumer was in the old one.
func TestReaderOfAStreamThatIsMadeAnew(t *testing.T) {
	t.Parallel()
	brokertest.Bubble(t, testReaderOfAStreamThatIsMadeAnew)
}

func testReaderOfAStreamThatIsMadeAnew(t *testing.T) {
	t.Helper()
	b := brokertest.New(t)
	_, js := connect(t, b)
	rec := newRecorder()
	readInto(t, b, jobs.Positions{}, rec)
	info, err := js.Stream(t.Context(), broker.JobsStream)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "jobs.email.3", []byte("1")); err != nil {
		t.Fatal(err)
	}
	heard := func(body string) {
		t.Helper()
		rec.until(t, "message "+body, func() bool {
			return slices.ContainsFunc(rec.messages, func(m *jobs.Message) bool { return string(m.Payload) == body })
		})
	}
	heard("1")
	if err := js.DeleteStream(t.Context(), broker.JobsStream); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), info.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	for i := range 5 { // the first has the sequence of the one that was read
		if _, err := js.Publish(t.Context(), "jobs.email.3", []byte(strconv.Itoa(10+i))); err != nil {
			t.Fatal(err)
		}
	}
	heard("14")
	if _, err := js.Publish(t.Context(), "jobs.email.3", []byte("20")); err != nil {
		t.Fatal(err)
	}
	heard("20")
}

// TestLanesGetWhatIsTheirs: lanes and other clients' consumers find their messages, in
// their order, among those of all others.
func TestLanesGetWhatIsTheirs(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	lanes := []jobs.Lane{{Type: "email", Priority: 1}, {Type: "email", Priority: 3}, {Type: "export", Priority: 3}}
	in := jobstest.NewInspector(100)
	if err := b.Lanes.Open(t.Context(), lanes, in); err != nil {
		t.Fatal(err)
	}
	nc, js := connect(t, b)
	const each = 20
	for range each {
		for _, l := range lanes {
			submit(t, b, message(l.Type, l.Priority))
		}
		if err := nc.Publish("jobs.email", []byte(`{}`)); err != nil { // into lane 3
			t.Fatal(err)
		}
		if err := nc.Publish("jobs.stray", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	stored(t, b, 5*each)
	info, err := js.Stream(t.Context(), broker.JobsStream)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[jobs.Lane][]uint64)
	for seq := uint64(1); seq <= 5*each; seq++ {
		m, err := info.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lanes {
			if m.Subject == fmt.Sprintf("jobs.%s.%d", l.Type, l.Priority) {
				want[l] = append(want[l], seq)
			}
		}
	}
	for _, l := range lanes {
		if err := b.Lanes.Pull(l, 2*each); err != nil {
			t.Fatal(err)
		}
		for _, seq := range want[l] {
			if d := in.Next(t); d.Lane != l || d.Seq != seq {
				t.Fatalf("%s got message %d of %s, want %d", l, d.Seq, d.Lane, seq)
			}
		}
	}
	other, err := js.CreateConsumer(t.Context(), broker.JobsStream, jetstream.ConsumerConfig{FilterSubject: "jobs.email.3"})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := other.FetchNoWait(100)
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for m := range batch.Messages() {
		md, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, md.Sequence.Stream)
	}
	if fmt.Sprint(got) != fmt.Sprint(want[lanes[1]]) {
		t.Errorf("another client's consumer got %v, want %v", got, want[lanes[1]])
	}
}

// TestLargestMessageIsRead: readers read the largest message of any stream. It is one of
// NOTIFICATIONS, with a payload and a result.
func TestLargestMessageIsRead(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t, func(o *broker.Options) { o.MaxPayload = 2 << 20 })
	nc, js := connect(t, b)
	body := []byte(strings.Repeat("x", int(nc.MaxPayload())))
	if _, err := js.Publish(t.Context(), "job.completed.email.1", body); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	read := 0
	if err := b.Reader.Kept(ctx, func(got []byte) error {
		read += len(got)
		return nil
	}); err != nil || read != len(body) {
		t.Fatalf("%d of %d bytes were read: %v", read, len(body), err)
	}
}

// gate is a sink that blocks until it is opened.
type gate struct {
	open  chan struct{}
	count chan uint64
	next  uint64
	fail  func(format string, args ...any)
	want  uint64
}

func (g *gate) Submitted(m *jobs.Message) {
	<-g.open
	g.next++
	if m.Seq != g.next {
		g.fail("message %d came, %d was next", m.Seq, g.next)
	}
	if m.Seq == g.want {
		g.count <- m.Seq
	}
}

func (g *gate) Happened(uint64, []jobs.Event) {}

func TestBlockedSinkLosesNothing(t *testing.T) {
	t.Parallel()
	brokertest.Bubble(t, testBlockedSinkLosesNothing)
}

func testBlockedSinkLosesNothing(t *testing.T) {
	t.Helper()
	n, size := uint64(10_000), 4000 // 38 MiB, where 8 MiB may be under way
	if os.Getenv(brokertest.InCluster) != "" {
		n /= 4 // each is on three disks
	}
	b := brokertest.New(t)
	g := &gate{open: make(chan struct{}), count: make(chan uint64, 1), fail: t.Errorf, want: n}
	readInto(t, b, jobs.Positions{}, g)
	m := message("email", 3)
	m.Payload = json.RawMessage(`"` + strings.Repeat("x", size) + `"`)
	for range n {
		submit(t, b, m)
	}
	stored(t, b, n)
	close(g.open)
	select {
	case <-g.count:
	case <-time.After(3 * patience):
		t.Fatal("not all messages came")
	}
}

func TestReaderSurvivesLossOfItsConsumer(t *testing.T) {
	t.Parallel()
	brokertest.Bubble(t, testReaderSurvivesLossOfItsConsumer)
}

func testReaderSurvivesLossOfItsConsumer(t *testing.T) {
	t.Helper()
	b := brokertest.New(t)
	r, _ := read(t, b, jobs.Positions{})
	_, js := connect(t, b)
	for round := range 2 {
		submit(t, b, message("email", 3))
		if err := b.EventLog.Append([]jobs.Event{sampleEvent()}); err != nil {
			t.Fatal(err)
		}
		r.until(t, "a message and an event", func() bool { return len(r.messages) == round+1 && len(r.events) == round+1 })
		for _, name := range []string{broker.JobsStream, broker.StatusStream} {
			s, err := js.Stream(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			deleted := 0
			for info := range s.ListConsumers(t.Context()).Info() {
				if err := s.DeleteConsumer(t.Context(), info.Name); err != nil {
					t.Fatal(err)
				}
				deleted++
			}
			if deleted != 1 {
				t.Fatalf("%s had %d consumers", name, deleted)
			}
		}
	}
	submit(t, b, message("email", 3))
	r.until(t, "the last, by a new consumer", func() bool { return len(r.messages) == 3 && r.messages[2].Seq == 3 })
}

package broker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

func TestBareJobGetsIntoLaneThreeAndIsDeduplicated(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	in := jobstest.NewInspector(10)
	lane := jobs.Lane{Type: "email", Priority: 3}
	if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, in); err != nil {
		t.Fatal(err)
	}
	_, js := connect(t, b)
	for i := range 2 {
		ack, err := js.Publish(t.Context(), "jobs.email", []byte(`{}`), jetstream.WithMsgID("one"))
		if err != nil || ack.Sequence != 1 || ack.Duplicate != (i == 1) {
			t.Fatalf("%+v, %v", ack, err)
		}
	}
	if err := b.Lanes.Pull(lane, 1); err != nil {
		t.Fatal(err)
	}
	if d := in.Next(t); d.Lane != lane || d.Seq != 1 {
		t.Fatalf("%+v", d)
	}
}

func TestQueue(t *testing.T) {
	testQueue(t, func(_ *testing.T, b *broker.Broker) (jobs.Queue, func()) { return b.Lanes, func() {} })
}

// TestQueueOfTail: deferred acks change nothing for those who use the queue.
func TestQueueOfTail(t *testing.T) {
	testQueue(t, func(t *testing.T, b *broker.Broker) (jobs.Queue, func()) {
		tail := broker.NewTail(b, &fakeNeeds{}, nil)
		ctx, stop := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- tail.Run(ctx) }()
		t.Cleanup(func() {
			stop()
			if err := <-ran; err != nil {
				t.Error(err)
			}
		})
		return tail, func() {
			if err := tail.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

func testQueue(t *testing.T, open func(*testing.T, *broker.Broker) (q jobs.Queue, sweep func())) {
	t.Helper()
	jobstest.TestQueue(t, brokertest.Bubble, func(t *testing.T, lanes []jobs.Lane, r jobs.Receiver) jobstest.Rig {
		const lease = time.Second
		b := brokertest.New(t, func(o *broker.Options) { o.Lease = lease })
		if err := b.Lanes.Open(t.Context(), lanes, r); err != nil {
			t.Fatal(err)
		}
		queue, sweep := open(t, b)
		seq := uint64(0)
		return jobstest.Rig{Queue: queue, Lease: lease, Sweep: sweep, Put: func(lane jobs.Lane) uint64 {
			submit(t, b, message(lane.Type, lane.Priority))
			seq++
			return stored(t, b, seq).Last
		}}
	})
}

func TestCloseLanesGivesBack(t *testing.T) {
	t.Parallel()
	brokertest.Bubble(t, testCloseLanesGivesBack)
}

func testCloseLanesGivesBack(t *testing.T) {
	t.Helper()
	b := brokertest.New(t)
	lane := jobs.Lane{Type: "email", Priority: 3}
	in := jobstest.NewInspector(1000)
	if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, in); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		submit(t, b, message("email", 3))
	}
	if err := b.Lanes.Pull(lane, 1000); err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]bool{}
	d := nextOf(t, b, lane, in)
	b.Lanes.Close()
	for done := false; !done; {
		seen[d.Seq] = true
		if err := b.Lanes.Ack(d); err != nil {
			t.Fatal(err)
		}
		select {
		case d = <-in.Deliveries:
		default:
			done = true
		}
	}
	in.None(t, 20*time.Millisecond)
	// The lease is 30 s. So a delivery within the test's patience was given back.
	again := jobstest.NewInspector(1000)
	if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, again); err != nil {
		t.Fatal(err)
	}
	if err := b.Lanes.Pull(lane, 1000); err != nil {
		t.Fatal(err)
	}
	for len(seen) < 500 { // a lane that is opened again delivers all that the stream has
		seen[nextOf(t, b, lane, again).Seq] = true
	}
}

// nextOf waits for a delivery, and pulls again when a pull has ended without one, as the pool
// does. In a cluster the lane may not be there yet, or be made anew.
func nextOf(t *testing.T, b *broker.Broker, lane jobs.Lane, in *jobstest.Inspector) jobs.Delivery {
	t.Helper()
	for late := time.After(time.Minute); ; {
		select {
		case d := <-in.Deliveries:
			return d
		case <-in.Ended:
			if err := b.Lanes.Pull(lane, 1000); err != nil {
				t.Fatal(err)
			}
		case <-late:
			t.Fatal("no delivery has come")
		}
	}
}

func TestDeletedLaneComesBack(t *testing.T) {
	t.Parallel()
	brokertest.Bubble(t, testDeletedLaneComesBack)
}

func testDeletedLaneComesBack(t *testing.T) {
	t.Helper()
	b := brokertest.New(t)
	lane := jobs.Lane{Type: "email", Priority: 3}
	in := jobstest.NewInspector(10)
	if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, in); err != nil {
		t.Fatal(err)
	}
	if err := b.Lanes.Pull(lane, 2); err != nil {
		t.Fatal(err)
	}
	_, js := connect(t, b)
	submit(t, b, message("email", 3))
	if err := b.Lanes.Ack(in.Next(t)); err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteConsumer(t.Context(), broker.JobsStream, lane.String()); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-in.Ended:
		if n != 1 {
			t.Fatalf("%d are said to be missing", n)
		}
	case <-time.After(patience):
		t.Fatal("the pull's end was not reported")
	}
	submit(t, b, message("email", 3))
	if err := b.Lanes.Pull(lane, 2); err != nil {
		t.Fatal(err)
	}
	for d := in.Next(t); d.Seq != 2; d = in.Next(t) {
	}
}

// TestLanesOpenAndClose while others deliver. A lane that is opened again delivers all
// that it has. Nothing is left of closed ones, and no request of theirs is repeated.
func TestLanesOpenAndClose(t *testing.T) {
	t.Parallel()
	brokertest.Bubble(t, testLanesOpenAndClose)
}

func testLanesOpenAndClose(t *testing.T) {
	t.Helper()
	var warnings strings.Builder
	b := brokertest.New(t, func(o *broker.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&warnings, &slog.HandlerOptions{Level: slog.LevelWarn}))
	})
	stays, comes := jobs.Lane{Type: "stays", Priority: 3}, jobs.Lane{Type: "comes", Priority: 3}
	in := jobstest.NewInspector(1000)
	if err := b.Lanes.Open(t.Context(), []jobs.Lane{stays}, in); err != nil {
		t.Fatal(err)
	}
	if err := b.Lanes.Pull(stays, 1000); err != nil {
		t.Fatal(err)
	}
	if err := b.Lanes.Pull(comes, 1); err == nil {
		t.Error("a lane that is not open was pulled from")
	}
	submit(t, b, message("comes", 3))
	_, js := connect(t, b)
	consumers := func() int {
		t.Helper()
		s, err := js.Stream(t.Context(), broker.JobsStream)
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.Consumers
	}
	before := 0
	for round := range uint64(200) {
		lane := jobs.Lane{Type: fmt.Sprint("other-", round), Priority: 1}
		if err := b.Lanes.OpenMore(t.Context(), []jobs.Lane{comes, lane}); err != nil {
			t.Fatal(err)
		}
		if err := b.Lanes.Pull(comes, 10); err != nil {
			t.Fatal(err)
		}
		if d := in.Next(t); d.Lane != comes || d.Seq != 1 {
			t.Fatalf("%+v", d)
		}
		submit(t, b, message("stays", 3))
		if d := in.Next(t); d.Lane != stays || d.Seq != round+2 {
			t.Fatalf("%+v", d)
		}
		if err := b.Lanes.CloseSome(t.Context(), []jobs.Lane{comes, lane}); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			before = consumers()
		}
	}
	if n := <-in.Ended; n != 800 { // by then requests of closed lanes have run out, too
		t.Errorf("a request ends with %d missing deliveries", n)
	}
	if n := consumers(); n != before || b.Lanes.Places() != 3 {
		t.Errorf("%d consumers, %d at first; %d places", n, before, b.Lanes.Places())
	}
	in.None(t, time.Minute)
	select {
	case n := <-in.Ended:
		t.Errorf("a request of a closed lane has ended, with %d missing deliveries", n)
	default:
	}
	if warnings.Len() > 0 {
		t.Error(warnings.String())
	}
	if err := b.Lanes.OpenMore(t.Context(), []jobs.Lane{comes, {Type: "a b", Priority: 1}}); err == nil {
		t.Error("a lane without a proper name was opened")
	}
	if n := consumers(); n != before {
		t.Errorf("after an error %d consumers, %d at first", n, before)
	}
}

func TestConnectionsComeBack(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	lane := jobs.Lane{Type: "email", Priority: 3}
	in := jobstest.NewInspector(10)
	if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, in); err != nil {
		t.Fatal(err)
	}
	for round := range uint64(3) {
		if err := b.Lanes.Pull(lane, 5); err != nil {
			t.Fatal(err)
		}
		b.Disconnect()
		select {
		case n := <-in.Ended:
			if n != 5 {
				t.Fatalf("%d are said to be missing", n)
			}
		case <-time.After(patience):
			t.Fatal("the loss of a pull was not reported")
		}
		for late := time.Now().Add(patience); b.Flush() != nil; {
			if time.Now().After(late) {
				t.Fatal("the connections do not come back")
			}
		}
		submit(t, b, message("email", 3))
		if err := b.Lanes.Pull(lane, int(round)+1); err != nil { // deliveries that were not lost come again, too
			t.Fatal(err)
		}
		for want := range round + 1 {
			d := in.Next(t)
			if d.Seq != want+1 {
				t.Fatalf("%+v, want message %d", d, want+1)
			}
			if err := b.Lanes.Ack(d); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestLostDeliveriesComeAgain at once, not when their lease ends. They were on their way
// when the connection of the lanes was lost.
func TestLostDeliveriesComeAgain(t *testing.T) {
	t.Parallel()
	brokertest.Bubble(t, testLostDeliveriesComeAgain)
}

func testLostDeliveriesComeAgain(t *testing.T) {
	t.Helper()
	b := brokertest.New(t, func(o *broker.Options) { o.Lease = time.Hour })
	lanes := []jobs.Lane{{Type: "email", Priority: 1}, {Type: "email", Priority: 3}}
	in := jobstest.NewInspector(10)
	if err := b.Lanes.Open(t.Context(), lanes, in); err != nil {
		t.Fatal(err)
	}
	for i, l := range lanes {
		submit(t, b, message(l.Type, l.Priority))
		if err := b.Lanes.Pull(l, 2); err != nil {
			t.Fatal(err)
		}
		if d := in.Next(t); d.Lane != l || d.Seq != uint64(i+1) {
			t.Fatalf("%+v", d)
		}
	}
	b.Disconnect()
	if err := b.Lanes.Pull(lanes[0], 1); err != nil && !strings.Contains(err.Error(), "the connection to the broker is down") {
		t.Fatal(err)
	}
	for missing := 2; missing > 0; {
		select {
		case n := <-in.Ended:
			missing -= min(n, missing)
		case <-time.After(patience):
			t.Fatal("the loss of the pulls was not reported")
		}
	}
	for i, l := range lanes {
		if err := b.Lanes.Pull(l, 2); err != nil {
			t.Fatal(err)
		}
		if d := in.Next(t); d.Lane != l || d.Seq != uint64(i+1) {
			t.Fatalf("%+v", d)
		}
	}
}

// slowReceiver blocks until it is opened.
type slowReceiver struct {
	*jobstest.Inspector
	open chan struct{}
}

func (r slowReceiver) Deliver(d jobs.Delivery) {
	<-r.open
	r.Inspector.Deliver(d)
}

// TestLargePayloadsKeepConnections: lanes and readers with large payloads and a slow receiver
// do not get so far behind that the server drops their connections.
func TestLargePayloadsKeepConnections(t *testing.T) {
	t.Parallel()
	brokertest.Bubble(t, testLargePayloadsKeepConnections)
}

func testLargePayloadsKeepConnections(t *testing.T) {
	t.Helper()
	const n, size = 600, 64 << 10 // 38 MiB, where 8 MiB may be under way
	lost := &lostConnections{Handler: brokertest.Logger(t).Handler()}
	b := brokertest.New(t, func(o *broker.Options) { o.Logger = slog.New(lost) })
	var lanes []jobs.Lane
	for typ := range 20 {
		for p := jobs.HighestPriority; p <= jobs.LowestPriority; p++ {
			lanes = append(lanes, jobs.Lane{Type: fmt.Sprintf("t%d", typ), Priority: p})
		}
	}
	r := slowReceiver{jobstest.NewInspector(n), make(chan struct{})}
	open := sync.OnceFunc(func() { close(r.open) })
	t.Cleanup(open)
	if err := b.Lanes.Open(t.Context(), lanes, r); err != nil {
		t.Fatal(err)
	}
	g := &gate{open: make(chan struct{}), count: make(chan uint64, 1), fail: t.Errorf, want: n}
	readInto(t, b, jobs.Positions{}, g)
	for i := range n {
		l := lanes[i%len(lanes)]
		m := message(l.Type, l.Priority)
		m.Payload = json.RawMessage(`"` + strings.Repeat("x", size) + `"`)
		submit(t, b, m)
	}
	stored(t, b, n)
	for _, l := range lanes {
		if err := b.Lanes.Pull(l, n); err != nil {
			t.Fatal(err)
		}
	}
	awaitDelivered(t, b, n)
	open()
	for range n {
		if d := r.Next(t); !strings.Contains(d.Ref, "."+d.Lane.String()+".1.") {
			t.Fatalf("%+v was delivered before", d)
		}
	}
	close(g.open)
	select {
	case <-g.count:
	case <-time.After(3 * patience):
		t.Fatal("not all messages were read")
	}
	if n := lost.n.Load(); n > 0 {
		t.Fatalf("%d connections were lost", n)
	}
}

// awaitDelivered waits until the server has sent n messages to the lanes.
func awaitDelivered(t *testing.T, b *broker.Broker, n int) {
	t.Helper()
	_, js := connect(t, b)
	s, err := js.Stream(t.Context(), broker.JobsStream)
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for late := time.Now().Add(patience); sent < n; {
		if time.Now().After(late) {
			t.Fatalf("%d of %d messages were sent", sent, n)
		}
		sent = 0
		for info := range s.ListConsumers(t.Context()).Info() {
			sent += info.NumAckPending
		}
	}
}

// lostConnections counts the lines of the log about lost connections.
type lostConnections struct {
	slog.Handler
	n atomic.Int64
}

func (l *lostConnections) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "lost") {
		l.n.Add(1)
	}
	return l.Handler.Handle(ctx, r)
}

package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
	"jobstream/jobs/jobstest"
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

func TestSubmitIsRead(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	r, stop := read(t, b, jobs.Positions{})
	full := &jobs.Message{
		ID: jobs.NewID(), Type: "export", Priority: 5, Payload: json.RawMessage(`{"a":"é"}`),
		Tags: []string{"a", "b c"}, RetryCount: 0, Timeout: 1500 * time.Millisecond, Moved: true,
	}
	bare := &jobs.Message{ID: jobs.NewID(), Type: "email", Priority: 1, RetryCount: -1}
	before := jobs.Now()
	submit(t, b, full)
	submit(t, b, bare)
	r.until(t, "both messages", func() bool { return len(r.messages) == 2 })
	for i, want := range []*jobs.Message{full, bare} {
		got := *r.messages[i]
		if got.Seq != uint64(i+1) || got.At < before || got.At > jobs.Now() {
			t.Errorf("seq %d at %v", got.Seq, got.At)
		}
		got.Seq, got.At = 0, 0
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", *want) {
			t.Errorf("got  %+v\nwant %+v", got, *want)
		}
	}
	stop()
	submit(t, b, message("email", 2))
	again, _ := read(t, b, jobs.Positions{Jobs: 2})
	again.until(t, "what came meanwhile", func() bool { return len(again.messages) == 1 && again.messages[0].Seq == 3 })
	beyond, _ := read(t, b, jobs.Positions{Jobs: 1000})
	for came, last := false, uint64(3); !came; last++ {
		submit(t, b, message("email", 2)) // the reader may still be starting
		stored(t, b, last+1)
		select {
		case <-beyond.changed:
			came = true
		case <-time.After(100 * time.Millisecond):
		}
		if last > 100 {
			t.Fatal("nothing comes after a position beyond the end")
		}
	}
}

func TestBareMessages(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	r, _ := read(t, b, jobs.Positions{})
	nc, _ := connect(t, b)
	id := jobs.NewID()
	tests := []struct {
		subject string
		header  nats.Header
		typ     string
		prio    jobs.Priority
		problem string // part of it
		check   func(m *jobs.Message) bool
	}{
		{subject: "jobs.email", typ: "email", prio: 3},
		{subject: "jobs.email.1", typ: "email", prio: 1},
		{subject: "jobs.email.9", typ: "email", prio: 3, problem: `"jobs.email.9"`},
		{subject: "jobs.email.1.x", typ: "email", prio: 3, problem: `"jobs.email.1.x"`},
		{subject: "jobs.größe!.1", typ: "gr____e_", prio: 3, problem: "expected is jobs.<type>"},
		{subject: "jobs." + strings.Repeat("x", 100), typ: strings.Repeat("x", 64), prio: 3, problem: "expected is"},
		{
			subject: "jobs.email", typ: "email", prio: 3,
			header: nats.Header{"Job-Id": {id.String()}, "job-tags": {" a , b "}, "Job-Retry-Count": {"7"}, "Job-Timeout": {"5m"}, "traceparent": {"00-1-2-00"}},
			check: func(m *jobs.Message) bool {
				return m.ID == id && slices.Equal(m.Tags, []string{"a", "b"}) && m.RetryCount == 7 && m.Timeout == 5*time.Minute
			},
		},
		{subject: "jobs.email", header: nats.Header{"Job-Id": {"4711"}}, typ: "email", prio: 3, problem: `header Job-Id: "4711"`},
		{subject: "jobs.email", header: nats.Header{"Job-Id": {id.String()[:35] + "x"}}, typ: "email", prio: 3, problem: "header Job-Id: invalid UUID"},
		{subject: "jobs.email", header: nats.Header{"Job-Tags": {"a,,b"}}, typ: "email", prio: 3, problem: `header Job-Tags: "a,,b"`},
		{subject: "jobs.email", header: nats.Header{"Job-Retry-Count": {"many"}}, typ: "email", prio: 3, problem: `header Job-Retry-Count: "many"`},
		{subject: "jobs.email", header: nats.Header{"Job-Retry-Count": {"1001"}}, typ: "email", prio: 3, problem: `header Job-Retry-Count: "1001"`},
		{subject: "jobs.email", header: nats.Header{"Job-Timeout": {"0"}}, typ: "email", prio: 3, problem: `header Job-Timeout: "0"`},
		{subject: "jobs.email", header: nats.Header{"Job-Timeout": {"8d"}}, typ: "email", prio: 3, problem: `header Job-Timeout: "8d"`},
		{subject: "jobs.email", header: nats.Header{"Job-Dealy": {"1h"}}, typ: "email", prio: 3, problem: "header Job-Dealy: is not known; known are Job-Id, Job-Tags"},
		{subject: "jobs.email", header: nats.Header{"job-prio": {"1"}}, typ: "email", prio: 3, problem: "header job-prio: is not known"},
		{subject: "jobs.email", header: nats.Header{"Job-" + strings.Repeat("x", 500): {"1"}}, typ: "email", prio: 3, problem: "…: is not known"},
		{subject: "jobs.email", header: nats.Header{"Job-Tags": {""}, "Job-Delay": {" "}, "Job-Unique-Key": {""}, "Job-Nothing": {""}}, typ: "email", prio: 3},
		{subject: "jobs.email", header: nats.Header{"Jobs-Etc": {"1"}, "Job": {"1"}, "X-Job-Delay": {"1h"}}, typ: "email", prio: 3},
	}
	for _, tt := range tests {
		if err := nc.PublishMsg(&nats.Msg{Subject: tt.subject, Header: tt.header, Data: []byte(`{}`)}); err != nil {
			t.Fatal(err)
		}
	}
	r.until(t, "all messages", func() bool { return len(r.messages) == len(tests) })
	for i, tt := range tests {
		m := r.messages[i]
		if m.Type != tt.typ || m.Priority != tt.prio || string(m.Payload) != "{}" {
			t.Errorf("%s: type %q, priority %d, payload %s", tt.subject, m.Type, m.Priority, m.Payload)
		}
		if (tt.problem == "") != (m.Problem == "") || !strings.Contains(m.Problem, tt.problem) {
			t.Errorf("%s %v: problem %q, want one with %q", tt.subject, tt.header, m.Problem, tt.problem)
		}
		if tt.check != nil && !tt.check(m) {
			t.Errorf("%s: %+v", tt.subject, m)
		}
		if tt.check == nil && m.ID != jobs.DerivedID(m.Seq, m.At) {
			t.Errorf("%s: the id is not derived", tt.subject)
		}
	}
}

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

// TestQueueOfTail: putting off acks changes nothing for those who use the queue.
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
	d := in.Next(t)
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
	// the lease is 30 s: what comes within the test's patience was given back
	again := jobstest.NewInspector(1000)
	if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, again); err != nil {
		t.Fatal(err)
	}
	if err := b.Lanes.Pull(lane, 1000); err != nil {
		t.Fatal(err)
	}
	for len(seen) < 500 { // a lane that is opened again delivers all that the stream has
		seen[again.Next(t).Seq] = true
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
		if err := b.Lanes.Pull(lane, int(round)+1); err != nil { // what was not lost comes again, too
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

// What was on its way to the lanes when their connection was lost comes again at
// once, not when its lease ends.
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

// slowReceiver takes nothing until it is opened.
type slowReceiver struct {
	*jobstest.Inspector
	open chan struct{}
}

func (r slowReceiver) Deliver(d jobs.Delivery) {
	<-r.open
	r.Inspector.Deliver(d)
}

// However large payloads are and however slowly they are taken: neither lanes nor
// readers get so far behind that the server drops their connections.
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

// The largest message that a stream can have is read, too. NOTIFICATIONS has them
// larger than JOBS: a payload and a result.
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

// lostConnections counts what the log says about them.
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

func TestFullQueueRefuses(t *testing.T) {
	t.Parallel()
	brokertest.Bubble(t, testFullQueueRefuses)
}

func testFullQueueRefuses(t *testing.T) {
	t.Helper()
	b := brokertest.New(t, func(o *broker.Options) { o.QueueSize = 5 })
	refused := make(chan error, 20)
	put := func(n int) {
		for range n {
			if err := b.Inbox.Submit(message("email", 3), func(err error) { refused <- err }); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(13)
	for range 3 {
		var e *jobs.Error
		if err := <-refused; !errors.As(err, &e) || e.Kind != jobs.QueueFull || e.RetryAfter != time.Second {
			t.Fatalf("refused with %v", err)
		}
	}
	if err := b.Healthy(); err != nil {
		t.Errorf("a full queue is no illness: %v", err)
	}
	if err := b.Streams.SetSlack(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	put(3)
	<-refused
	if st := stored(t, b, 12); st.Msgs != 12 {
		t.Fatalf("%+v", st)
	}
	if err := b.Streams.PurgeJobs(t.Context(), 6); err != nil {
		t.Fatal(err)
	}
	if st := stored(t, b, 12); st.Msgs != 6 || st.First != 7 {
		t.Fatalf("%+v", st)
	}
	if err := b.Streams.PurgeJobs(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	submit(t, b, message("email", 3))
	if st := stored(t, b, 1001); st.Msgs != 1 || st.First != 1001 || st.Last != 1001 {
		t.Fatalf("the sequence was not lifted: %+v", st)
	}
}

func TestTooLargePayload(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t, func(o *broker.Options) { o.MaxPayload = 1000 })
	r, _ := read(t, b, jobs.Positions{})
	m := message("email", 3)
	m.Payload = make([]byte, 1001)
	var e *jobs.Error
	if err := b.Inbox.Submit(m, nil); !errors.As(err, &e) || e.Kind != jobs.PayloadTooLarge {
		t.Fatalf("got %v", err)
	}
	m.Payload = m.Payload[:1000]
	m.Tags = slices.Repeat([]string{strings.Repeat("x", jobs.MaxTagLength)}, jobs.MaxTags)
	submit(t, b, m)
	r.until(t, "the largest payload", func() bool { return len(r.messages) == 1 && len(r.messages[0].Payload) == 1000 })
}

func TestUnansweredSubmissionAndHealth(t *testing.T) {
	t.Parallel()
	brokertest.Bubble(t, testUnansweredSubmissionAndHealth)
}

func testUnansweredSubmissionAndHealth(t *testing.T) {
	t.Helper()
	b := brokertest.New(t)
	if err := b.Healthy(); err != nil {
		t.Fatal(err)
	}
	_, js := connect(t, b)
	if err := js.DeleteStream(t.Context(), broker.JobsStream); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	if err := b.Inbox.Submit(message("email", 3), func(err error) { refused <- err }); err != nil {
		t.Fatal(err)
	}
	var e *jobs.Error
	if err := <-refused; !errors.As(err, &e) || e.Kind != jobs.Unavailable {
		t.Fatalf("refused with %v", err)
	}
	if err := b.Healthy(); err == nil || !strings.Contains(err.Error(), broker.JobsStream) {
		t.Fatalf("healthy says %v", err)
	}
}

// TestEverySubmissionIsAnswered: whoever submits, or publishes a known job again, hears
// of every loss.
func TestEverySubmissionIsAnswered(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	_, js := connect(t, b)
	if err := js.DeleteStream(t.Context(), broker.JobsStream); err != nil {
		t.Fatal(err)
	}
	const n = 50
	refused := make(chan error, n)
	for i := range n {
		m := message("email", 3)
		m.Moved = i%2 == 0
		if err := b.Inbox.Submit(m, func(err error) { refused <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		select {
		case <-refused:
		case <-time.After(patience):
			t.Fatalf("%d of %d were refused", i, n)
		}
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
	const n, size = 10_000, 4000 // 38 MiB, where 8 MiB may be under way
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

func TestServe(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	release, begun := make(chan struct{}), make(chan struct{}, 300)
	endpoints := []broker.Endpoint{
		{Name: "echo", Handle: func(_ context.Context, r *broker.Request) ([]byte, error) { return r.Body, nil }},
		{Name: "refuse", Handle: func(context.Context, *broker.Request) ([]byte, error) { return nil, jobs.Invalid("/to", "is required") }},
		{Name: "panic", Handle: func(context.Context, *broker.Request) ([]byte, error) { panic("oh") }},
		{Name: "block", Handle: func(context.Context, *broker.Request) ([]byte, error) {
			begun <- struct{}{}
			<-release
			return []byte("done"), nil
		}},
	}
	if err := b.Service.Serve("1.2.3", "jobs", endpoints); err != nil {
		t.Fatal(err)
	}
	nc, _ := connect(t, b)
	tests := []struct{ subject, code, body string }{
		{"jobstream.echo", "", "hello"},
		{"jobstream.refuse", "422", `"code":"invalid_request"`},
		{"jobstream.panic", "500", `"code":"internal"`},
	}
	for _, tt := range tests {
		m, err := nc.Request(tt.subject, []byte("hello"), patience)
		if err != nil {
			t.Fatal(err)
		}
		if m.Header.Get("Nats-Service-Error-Code") != tt.code || !strings.Contains(string(m.Data), tt.body) {
			t.Errorf("%s: %v %s", tt.subject, m.Header, m.Data)
		}
	}
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	for range 256 {
		if err := nc.PublishRequest("jobstream.block", inbox, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 256 {
		<-begun
	}
	m, err := nc.Request("jobstream.echo", nil, patience)
	if err != nil || m.Header.Get("Nats-Service-Error-Code") != "503" {
		t.Fatalf("the 257th request: %v, %v", m, err)
	}
	close(release)
	for range 256 {
		if m, err := sub.NextMsg(patience); err != nil || string(m.Data) != "done" {
			t.Fatalf("%v, %v", m, err)
		}
	}
	if m, err = nc.Request("$SRV.STATS.jobstream", nil, patience); err != nil || !strings.Contains(string(m.Data), `"subject":"jobstream.echo"`) {
		t.Fatalf("%v, %v", m, err)
	}
	if err := b.Service.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Request("jobstream.echo", nil, patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatalf("after the stop: %v", err)
	}
}

// TestServeWaits has more requests wait than can be answered at a time: these
// are answered meanwhile, and their headers are read in any case.
func TestServeWaits(t *testing.T) {
	t.Parallel()
	const waiting = 300
	b := brokertest.New(t)
	release, begun := make(chan struct{}), make(chan struct{}, waiting)
	endpoints := []broker.Endpoint{
		{Name: "header", Handle: func(_ context.Context, r *broker.Request) ([]byte, error) {
			return []byte(strings.Join(r.Header("Idempotency-Key"), " ")), nil
		}},
		{Name: "wait", Handle: func(_ context.Context, r *broker.Request) ([]byte, error) {
			for range 2 { // the second time changes nothing
				if err := r.Wait(); err != nil {
					return nil, err
				}
			}
			begun <- struct{}{}
			<-release
			return []byte("over"), nil
		}},
	}
	if err := b.Service.Serve("1.2.3", "jobs", endpoints); err != nil {
		t.Fatal(err)
	}
	nc, _ := connect(t, b)
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	for range waiting { // one after the other, so that no more than one is being answered
		if err := nc.PublishRequest("jobstream.wait", sub.Subject, nil); err != nil {
			t.Fatal(err)
		}
		select {
		case <-begun:
		case <-time.After(patience):
			t.Fatal("a request that waits takes the place of another")
		}
	}
	m := nats.NewMsg("jobstream.header")
	m.Header["idempotency-key"] = []string{"k"}
	if answer, err := nc.RequestMsg(m, patience); err != nil || string(answer.Data) != "k" {
		t.Errorf("while %d wait: %v, %v", waiting, answer, err)
	}
	close(release)
	for range waiting {
		if m, err := sub.NextMsg(patience); err != nil || string(m.Data) != "over" {
			t.Fatalf("%v, %v", m, err)
		}
	}
}

func endedJob(n int) *jobs.Job {
	return &jobs.Job{
		ID: jobs.NewID(), Seq: uint64(n), Type: "email", Priority: 3, Status: jobs.Completed, Run: 1,
		Payload: json.RawMessage(`{}`), EndedAt: jobs.Now(), CreatedAt: jobs.Now(), UpdatedAt: jobs.Now(),
	}
}

func TestNotify(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	nc, js := connect(t, b)
	plain, err := nc.SubscribeSync("job.completed")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	var ended []*jobs.Job
	for i := range 2500 {
		ended = append(ended, endedJob(i))
	}
	if err := b.Notifier.Notify(t.Context(), ended); err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), broker.NotificationsStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != 2500 {
		t.Fatalf("%d are stored", n)
	}
	m, err := s.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(m.Header, func(k string, _ []string) bool { return strings.HasPrefix(k, "Nats-") }) // of the direct get
	j := ended[0]
	want := nats.Header{
		"ce-id": {j.ID.String() + ".completed.1"}, "ce-type": {"jobstream.job.completed"}, "ce-source": {"jobstream/test"},
		"ce-specversion": {"1.0"}, "ce-time": {j.EndedAt.String()}, "content-type": {"application/json"},
		"ce-subject": {j.ID.String()},
	}
	if fmt.Sprint(m.Header) != fmt.Sprint(want) || m.Subject != "job.completed.email._" {
		t.Errorf("%s %v", m.Subject, m.Header)
	}
	if string(m.Data) != string(j.AppendJSON(nil)) {
		t.Errorf("body %s", m.Data)
	}
	if got, err := plain.NextMsg(patience); err != nil || string(got.Data) != string(m.Data) {
		t.Errorf("on the plain subject: %v, %v", got, err)
	}
	var kept int
	err = b.Reader.Kept(t.Context(), func(body []byte) error {
		if string(body) != string(ended[kept].AppendJSON(nil)) {
			return fmt.Errorf("body %d is %s", kept, body)
		}
		kept++
		return nil
	})
	if err != nil || kept != 2500 {
		t.Fatalf("kept %d, %v", kept, err)
	}
	boom := errors.New("boom")
	if err := b.Reader.Kept(t.Context(), func([]byte) error { return boom }); !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Reader.Kept(t.Context(), func([]byte) error { return boom }); err != nil {
		t.Fatalf("an empty stream: %v", err)
	}
}

func TestNotifyTooLargeAndRefused(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t, func(o *broker.Options) { o.MaxPayload = 2000 })
	_, js := connect(t, b)
	j := endedJob(1)
	j.Payload = json.RawMessage(`"` + strings.Repeat("x", 1900) + `"`)
	if err := b.Notifier.Notify(t.Context(), []*jobs.Job{j}); err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), broker.NotificationsStream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(t.Context(), 1)
	if err != nil || m.Header.Get(broker.HeaderOmitted) != "payload" || len(j.Payload) == 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	// A stream that refuses some in the middle, while somebody else publishes there.
	cfg := s.CachedInfo().Config
	cfg.MaxMsgSize = 1000
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	large := endedJob(2)
	large.Message = strings.Repeat("x", 900)
	if _, err := js.Publish(t.Context(), "job.completed.of.others", nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Notifier.Notify(t.Context(), []*jobs.Job{large, endedJob(3)}); err == nil {
		t.Fatal("a refused notification was taken for stored")
	}
	if err := js.DeleteStream(t.Context(), broker.NotificationsStream); err != nil {
		t.Fatal(err)
	}
	if err := b.Notifier.Notify(t.Context(), []*jobs.Job{endedJob(4)}); err == nil {
		t.Fatal("no error without a stream")
	}
}

// seed fills a broker in dir and closes it.
func seed(t *testing.T, dir string, lane jobs.Lane) {
	t.Helper()
	b, err := broker.Open(t.Context(), broker.Options{Dir: dir, Logger: brokertest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	in := jobstest.NewInspector(100)
	if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, in); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		submit(t, b, message(lane.Type, lane.Priority))
	}
	if err := b.EventLog.Append([]jobs.Event{sampleEvent()}); err != nil {
		t.Fatal(err)
	}
	if err := b.Notifier.Notify(t.Context(), []*jobs.Job{endedJob(1)}); err != nil {
		t.Fatal(err)
	}
	if err := b.Lanes.Pull(lane, 20); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := b.Lanes.Ack(in.Next(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	lane := jobs.Lane{Type: "email", Priority: 3}
	tests := []struct {
		name   string
		damage func(t *testing.T, streams string)
		clean  bool
		msgs   func(n uint64) bool // that JOBS may hold
	}{
		{"untouched", func(*testing.T, string) {}, false, func(n uint64) bool { return n == 50 }},
		{"untouched, clean", func(*testing.T, string) {}, true, func(n uint64) bool { return n == 50 }},
		{"empty meta.inf", func(t *testing.T, s string) { overwrite(t, s+"/JOBS/meta.inf", 0) }, false, func(n uint64) bool { return n == 50 }},
		{"torn meta.inf", func(t *testing.T, s string) { overwrite(t, s+"/JOBS/meta.inf", 40) }, false, func(n uint64) bool { return n == 50 }},
		{"torn meta.sum, clean", func(t *testing.T, s string) { overwrite(t, s+"/JOBS/meta.sum", 3) }, true, func(n uint64) bool { return n == 50 }},
		{"no meta files", func(t *testing.T, s string) { remove(t, s+"/JOBS/meta.inf"); remove(t, s+"/JOBS/meta.sum") }, false, func(n uint64) bool { return n == 50 }},
		{"all metas empty", func(t *testing.T, s string) {
			for _, name := range []string{"JOBS", "STATUS", "NOTIFICATIONS"} {
				overwrite(t, s+"/"+name+"/meta.inf", 0)
				overwrite(t, s+"/"+name+"/meta.sum", 0)
			}
		}, false, func(n uint64) bool { return n == 50 }},
		{"torn lane", func(t *testing.T, s string) { // as a server leaves it that keeps lanes on disk
			write(t, s+"/JOBS/obs/email-3/meta.inf", `{"name":"e`)
			write(t, s+"/JOBS/obs/email-3/o.dat", "\x16\x02\x00\x00\x00")
		}, false, func(n uint64) bool { return n == 50 }},
		{"truncated block", func(t *testing.T, s string) {
			remove(t, s+"/JOBS/msgs/index.db")
			overwrite(t, s+"/JOBS/msgs/1.blk", 3000)
		}, false, func(n uint64) bool { return n > 5 && n < 50 }},
		{"no blocks", func(t *testing.T, s string) { remove(t, s+"/JOBS/msgs") }, false, func(n uint64) bool { return n == 0 }},
		{"no JOBS", func(t *testing.T, s string) { remove(t, s+"/JOBS") }, false, func(n uint64) bool { return n == 0 }},
		{"nothing left", func(t *testing.T, s string) { remove(t, filepath.Dir(filepath.Dir(s))) }, false, func(n uint64) bool { return n == 0 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			seed(t, dir, lane)
			tt.damage(t, filepath.Join(dir, "jetstream", "$G", "streams"))
			b := brokertest.New(t, func(o *broker.Options) { o.Dir, o.Rebuild = dir, !tt.clean })
			if err := b.Healthy(); err != nil {
				t.Fatal(err)
			}
			st, err := b.Streams.Jobs(t.Context())
			if err != nil || !tt.msgs(st.Msgs) {
				t.Fatalf("%+v, %v", st, err)
			}
			in := jobstest.NewInspector(100)
			if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, in); err != nil {
				t.Fatal(err)
			}
			if err := b.Streams.PurgeJobs(t.Context(), 100); err != nil {
				t.Fatal(err)
			}
			submit(t, b, message(lane.Type, lane.Priority))
			if err := b.Lanes.Pull(lane, 1); err != nil {
				t.Fatal(err)
			}
			if d := in.Next(t); d.Seq != 101 {
				t.Fatalf("%+v", d)
			}
		})
	}
}

func TestLanesAfterReopen(t *testing.T) {
	t.Parallel()
	lane := jobs.Lane{Type: "email", Priority: 3}
	for _, rebuild := range []bool{false, true} {
		t.Run(fmt.Sprintf("rebuild %v", rebuild), func(t *testing.T) {
			dir := t.TempDir()
			seed(t, dir, lane)
			b := brokertest.New(t, func(o *broker.Options) { o.Dir, o.Rebuild = dir, rebuild })
			in := jobstest.NewInspector(100)
			if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, in); err != nil {
				t.Fatal(err)
			}
			if err := b.Lanes.Pull(lane, 1); err != nil {
				t.Fatal(err)
			}
			if d := in.Next(t); d.Seq != 1 {
				t.Fatalf("first delivery %d, want 1", d.Seq)
			}
		})
	}
}

func overwrite(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
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

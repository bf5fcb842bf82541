package broker_test

import (
	"context"
	"encoding/json"
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

// pipeline is a sink and a receiver that acks.
type pipeline struct {
	b         *broker.Broker
	submitted atomic.Int64
	happened  atomic.Int64
	delivered atomic.Int64
	total     int64
	done      chan struct{}
	open      map[jobs.Lane]int
}

func (p *pipeline) Submitted(*jobs.Message)           { p.submitted.Add(1); p.check() }
func (p *pipeline) Happened(_ uint64, e []jobs.Event) { p.happened.Add(int64(len(e))); p.check() }
func (p *pipeline) Deliver(d jobs.Delivery) {
	p.delivered.Add(1)
	_ = p.b.Lanes.Ack(d)
	p.open[d.Lane]--
	if p.open[d.Lane] < 500 {
		p.open[d.Lane] += 500
		_ = p.b.Lanes.Pull(d.Lane, 500)
	}
	p.check()
}
func (p *pipeline) PullEnded(l jobs.Lane, n int) { p.open[l] -= n }
func (p *pipeline) check() {
	if p.delivered.Load() == p.total && p.submitted.Load() == p.total && p.happened.Load() == p.total {
		close(p.done)
	}
}

// benchLease is long enough that no delivery comes again.
const benchLease = 9 * time.Second

// BenchmarkPipeline submits, reads, delivers and acks messages, and appends and reads an
// event for each.
func BenchmarkPipeline(b *testing.B) {
	br := brokertest.New(b, func(o *broker.Options) { o.QueueSize, o.SyncInterval, o.Lease = 10_000_000, time.Second, benchLease })
	lane := jobs.Lane{Type: "email", Priority: 3}
	p := &pipeline{b: br, total: int64(b.N), done: make(chan struct{}), open: map[jobs.Lane]int{lane: 1000}}
	ctx, cancel := context.WithCancel(b.Context())
	read := make(chan error, 1)
	go func() { read <- br.Reader.Read(ctx, jobs.Positions{}, p) }()
	if err := br.Lanes.Open(ctx, []jobs.Lane{lane}, p); err != nil {
		b.Fatal(err)
	}
	payload := json.RawMessage(`{"to":"user@example.com","subject":"Hello","body":"` + string(make200()) + `"}`)
	b.ReportAllocs()
	b.ResetTimer()
	if err := br.Lanes.Pull(lane, 1000); err != nil {
		b.Fatal(err)
	}
	events := make([]jobs.Event, 0, 100)
	for i := range b.N {
		id := jobs.NewID()
		m := &jobs.Message{ID: id, Type: "email", Priority: 3, Payload: payload, RetryCount: -1}
		if err := br.Inbox.Submit(m, func(err error) { b.Error(err) }); err != nil {
			b.Fatal(err)
		}
		events = append(events, jobs.Event{Kind: jobs.KindCompleted, ID: id, Seq: uint64(i + 1), Type: "email", Priority: 3, CreatedAt: jobs.Now(), MaxAttempts: 3, Run: 1, Attempt: 1, At: jobs.Now(), StartedAt: jobs.Now(), Node: "n1"})
		if len(events) == cap(events) || i == b.N-1 {
			if err := br.EventLog.Append(events); err != nil {
				b.Fatal(err)
			}
			events = events[:0]
		}
	}
	select {
	case <-p.done:
	case <-time.After(60 * time.Second):
		b.Fatal(p.submitted.Load(), p.delivered.Load(), p.happened.Load(), b.N)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	cancel()
	<-read
}

func make200() []byte {
	b := make([]byte, 150)
	for i := range b {
		b[i] = 'x'
	}
	return b
}

// BenchmarkRaw is what JetStream gives without us: nats.go's asynchronous
// publish, one pull consumer, acks; one after the other.
func BenchmarkRaw(b *testing.B) {
	br := brokertest.New(b, func(o *broker.Options) { o.QueueSize, o.SyncInterval, o.Lease = 10_000_000, time.Second, benchLease })
	nc, _ := connect(b, br)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		b.Fatal(err)
	}
	lane := jobs.Lane{Type: "email", Priority: 3}
	if err := br.Lanes.Open(b.Context(), []jobs.Lane{lane}, jobstest.NewInspector(0)); err != nil {
		b.Fatal(err)
	}
	consumer, err := js.Consumer(b.Context(), broker.JobsStream, lane.String())
	if err != nil {
		b.Fatal(err)
	}
	payload := make200()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		m := nats.NewMsg("jobs.email.3")
		m.Header["Job-Id"] = []string{"01a2085f-7e4b-731b-880b-96e8a00398d0"}
		m.Data = payload
		if _, err := js.PublishMsgAsync(m); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	published := b.Elapsed()
	for left := b.N; left > 0; {
		batch, err := consumer.Fetch(min(left, 1000))
		if err != nil {
			b.Fatal(err)
		}
		for m := range batch.Messages() {
			if err := m.Ack(); err != nil {
				b.Fatal(err)
			}
			left--
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/published.Seconds(), "published/s")
	b.ReportMetric(float64(b.N)/(b.Elapsed()-published).Seconds(), "consumed/s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

// BenchmarkSubmitThenDrain is the same through Submit, Pull and Ack.
func BenchmarkSubmitThenDrain(b *testing.B) {
	br := brokertest.New(b, func(o *broker.Options) { o.QueueSize, o.SyncInterval, o.Lease = 10_000_000, time.Second, benchLease })
	lane := jobs.Lane{Type: "email", Priority: 3}
	p := &pipeline{b: br, total: int64(b.N), done: make(chan struct{}), open: map[jobs.Lane]int{lane: 1000}}
	if err := br.Lanes.Open(b.Context(), []jobs.Lane{lane}, p); err != nil {
		b.Fatal(err)
	}
	p.submitted.Store(p.total)
	p.happened.Store(p.total)
	payload := make200()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		m := &jobs.Message{ID: jobs.NewID(), Type: "email", Priority: 3, Payload: payload, RetryCount: -1}
		if err := br.Inbox.Submit(m, func(err error) { b.Error(err) }); err != nil {
			b.Fatal(err)
		}
	}
	stored(b, br, uint64(b.N))
	published := b.Elapsed()
	if err := br.Lanes.Pull(lane, 1000); err != nil {
		b.Fatal(err)
	}
	<-p.done
	b.StopTimer()
	b.ReportMetric(float64(b.N)/published.Seconds(), "published/s")
	b.ReportMetric(float64(b.N)/(b.Elapsed()-published).Seconds(), "consumed/s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/broker"
	"jobstream/jobs"
)

// open opens a broker in a new temporary folder. end closes it and removes the folder.
func open() (b *broker.Broker, end func()) {
	dir, err := os.MkdirTemp("", "broker")
	if err != nil {
		log.Fatal(err)
	}
	b, err = broker.Open(context.Background(), broker.Options{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	return b, func() {
		b.Close()
		_ = os.RemoveAll(dir)
	}
}

// printer is a sink that prints what it reads. It answers a message with an event, and ends
// the reading after that.
type printer struct {
	log  jobs.EventLog
	stop context.CancelFunc
}

func (p printer) Submitted(m *jobs.Message) {
	fmt.Printf("message %d: %s with priority %d, %s\n", m.Seq, m.Type, m.Priority, m.Payload)
	err := p.log.Append([]jobs.Event{{
		Kind: jobs.KindCompleted, ID: m.ID, Seq: m.Seq, Type: m.Type, Priority: m.Priority,
		Run: 1, Attempt: 1, StartedAt: m.At, At: jobs.Now(),
	}})
	if err != nil {
		log.Fatal(err)
	}
}

func (p printer) Happened(seq uint64, events []jobs.Event) {
	fmt.Printf("event %d: the job of message %d is %s\n", seq, events[0].Seq, events[0].Kind)
	p.stop()
}

// A submission is published to JOBS, and an event to STATUS. A sink reads both.
func Example() {
	b, end := open()
	defer end()
	m := &jobs.Message{
		ID: jobs.NewID(), Type: "email", Priority: 1, RetryCount: -1,
		Payload: json.RawMessage(`{"to":"ada@example.com"}`),
	}
	if err := b.Inbox.Submit(m, func(err error) { log.Print("refused: ", err) }); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := b.Reader.Read(ctx, jobs.Positions{}, printer{b.EventLog, cancel}); !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
	// Output:
	// message 1: email with priority 1, {"to":"ada@example.com"}
	// event 1: the job of message 1 is completed
}

// deliveries is a receiver that passes deliveries on.
type deliveries chan jobs.Delivery

func (d deliveries) Deliver(one jobs.Delivery) { d <- one }
func (d deliveries) PullEnded(jobs.Lane, int)  {}

// A lane delivers as many messages as were pulled. One that is given back comes again.
func ExampleLanes() {
	b, end := open()
	defer end()
	lane := jobs.Lane{Type: "email", Priority: jobs.DefaultPriority}
	came := make(deliveries, 2)
	if err := b.Lanes.Open(context.Background(), []jobs.Lane{lane}, came); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		m := &jobs.Message{ID: jobs.NewID(), Type: lane.Type, Priority: lane.Priority, RetryCount: -1}
		if err := b.Inbox.Submit(m, nil); err != nil {
			log.Fatal(err)
		}
	}
	next := func() jobs.Delivery {
		if err := b.Lanes.Pull(lane, 1); err != nil {
			log.Fatal(err)
		}
		d := <-came
		fmt.Printf("message %d of lane %s\n", d.Seq, d.Lane)
		return d
	}
	acked := b.Lanes.Ack(next())
	nacked := b.Lanes.Nak(next().Ref, 0)
	last := b.Lanes.Ack(next())
	if err := errors.Join(acked, nacked, last); err != nil {
		log.Fatal(err)
	}
	// Output:
	// message 1 of lane email-3
	// message 2 of lane email-3
	// message 2 of lane email-3
}

// An endpoint answers requests of any NATS client. Its errors have the status of the REST
// door.
func ExampleService() {
	b, end := open()
	defer end()
	greet := broker.Endpoint{Name: "greet", Handle: func(_ context.Context, r *broker.Request) ([]byte, error) {
		if len(r.Body) == 0 {
			return nil, jobs.Invalid("", "the name is missing")
		}
		return fmt.Appendf(nil, "hello, %s", r.Body), nil
	}}
	if err := b.Service.Serve("1.0.0", "greets", []broker.Endpoint{greet}); err != nil {
		log.Fatal(err)
	}
	nc, err := nats.Connect("", nats.InProcessServer(b))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	for _, name := range []string{"Ada", ""} {
		m, err := nc.Request("jobstream.greet", []byte(name), time.Minute)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%q %s\n", m.Header.Get("Nats-Service-Error-Code"), m.Data)
	}
	// Output:
	// "" hello, Ada
	// "422" {"type":"about:blank","title":"The request is not valid","status":422,"detail":"the name is missing","code":"invalid_request","errors":[{"pointer":"","detail":"the name is missing"}]}
}

package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
)

// ask asks a service about itself.
func ask[T any](t *testing.T, nc *nats.Conn, subject string) (answer T) {
	t.Helper()
	m, err := nc.Request(subject, nil, patience)
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		t.Fatalf("%s: %v", m.Data, err)
	}
	return answer
}

// TestServiceStatistics: the statistics count errors and the time until the answer, like those
// of package micro if a handler answers before it returns.
func TestServiceStatistics(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	took, release := make(chan time.Duration, 1), make(chan struct{})
	err := b.Service.Serve("1.2.3", "what it is for", []broker.Endpoint{
		{Name: "slow", Handle: func(context.Context, *broker.Request) ([]byte, error) {
			begun := time.Now()
			<-release
			took <- time.Since(begun)
			return []byte("{}"), nil
		}},
		{Name: "missing", Handle: func(context.Context, *broker.Request) ([]byte, error) {
			return nil, jobs.NoSuchJob("7")
		}},
		{Name: "broken", Handle: func(context.Context, *broker.Request) ([]byte, error) { panic("boom") }},
	})
	if err != nil {
		t.Fatal(err)
	}
	nc, _ := connect(t, b)
	stats := func() micro.Stats { return ask[micro.Stats](t, nc, "$SRV.STATS.jobstream") }
	answered := make(chan *nats.Msg, 1)
	go func() {
		m, _ := nc.Request("jobstream.slow", nil, patience)
		answered <- m
	}()
	for range 2 {
		if _, err := nc.Request("jobstream.missing", nil, patience); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := nc.Request("jobstream.broken", nil, patience); err != nil {
		t.Fatal(err)
	}
	if s := stats(); s.Endpoints[0].NumRequests != 0 {
		t.Errorf("what is not answered yet counts: %+v", s.Endpoints[0])
	}
	close(release)
	<-answered
	s := stats()
	for i, want := range []micro.EndpointStats{
		{Name: "slow", Subject: "jobstream.slow", NumRequests: 1},
		{Name: "missing", Subject: "jobstream.missing", NumRequests: 2, NumErrors: 2, LastError: "404:" + jobs.NoSuchJob("7").Detail},
		{Name: "broken", Subject: "jobstream.broken", NumRequests: 1, NumErrors: 1, LastError: "500:an internal error; the server's log says more"},
	} {
		got := *s.Endpoints[i]
		if got.AverageProcessingTime != got.ProcessingTime/time.Duration(got.NumRequests) || got.ProcessingTime <= 0 {
			t.Errorf("%s took %v, %v on average", got.Name, got.ProcessingTime, got.AverageProcessingTime)
		}
		if i == 0 {
			if least := <-took; got.ProcessingTime < least {
				t.Errorf("%s took %v, want at least %v", got.Name, got.ProcessingTime, least)
			}
		}
		want.QueueGroup, want.ProcessingTime, want.AverageProcessingTime = "q", got.ProcessingTime, got.AverageProcessingTime
		if !reflect.DeepEqual(got, want) {
			t.Errorf("the statistics are %+v, want %+v", got, want)
		}
	}
	if err := b.Service.Stop(); err != nil {
		t.Fatal(err)
	}
	if m, err := nc.Request("$SRV.PING.jobstream", nil, patience); err == nil {
		t.Errorf("a stopped service says %s", m.Data)
	}
}

// TestServiceIntroducesItself like a service of package micro.
func TestServiceIntroducesItself(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	nothing := func(context.Context, *broker.Request) ([]byte, error) { return nil, nil }
	if err := b.Service.Serve("1.2.3", "what it is for", []broker.Endpoint{{Name: "one", Handle: nothing}, {Name: "two.parts", Handle: nothing}}); err != nil {
		t.Fatal(err)
	}
	nc, _ := connect(t, b)
	peer, err := micro.AddService(nc, micro.Config{Name: "peer", Version: "1.2.3", Description: "what it is for"})
	if err != nil {
		t.Fatal(err)
	}
	group := peer.AddGroup("jobstream")
	for _, subject := range []string{"one", "two.parts"} {
		name := strings.ReplaceAll(subject, ".", "-") // micro refuses a dot
		if err := group.AddEndpoint(name, micro.HandlerFunc(func(micro.Request) {}), micro.WithEndpointSubject(subject)); err != nil {
			t.Fatal(err)
		}
	}
	for _, verb := range []string{"PING", "INFO", "STATS"} {
		ours, theirs := ask[map[string]any](t, nc, "$SRV."+verb+".jobstream"), ask[map[string]any](t, nc, "$SRV."+verb+".peer")
		byID := ask[map[string]any](t, nc, "$SRV."+verb+".jobstream."+ours["id"].(string))
		if !reflect.DeepEqual(ours, byID) {
			t.Errorf("%s: asked by its id it says %v instead of %v", verb, byID, ours)
		}
		if ours["name"] != "jobstream" || ours["id"] == "" {
			t.Errorf("%s: it is %v", verb, ours)
		}
		for _, own := range []string{"name", "id", "started"} {
			if (ours[own] == nil) != (theirs[own] == nil) {
				t.Errorf("%s: %s is %v, a service of micro says %v", verb, own, ours[own], theirs[own])
			}
			delete(ours, own)
			delete(theirs, own)
		}
		if !reflect.DeepEqual(ours, theirs) {
			t.Errorf("%s: it says %v, a service of micro %v", verb, ours, theirs)
		}
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

// TestServeWaits: more requests wait than can be answered at a time. Others are answered
// meanwhile, and the names of their headers may be written in any case.
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

// TestRequestGone has clients that wait for their answer, go away, or want none.
func TestRequestGone(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	requests := make(chan *broker.Request, 1)
	release := make(chan struct{})
	err := b.Service.Serve("1.2.3", "", []broker.Endpoint{{Name: "slow", Handle: func(_ context.Context, r *broker.Request) ([]byte, error) {
		requests <- r
		<-release
		return nil, nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer close(release)
	nc, _ := connect(t, b)
	if err := nc.Publish("jobstream.slow", nil); err != nil {
		t.Fatal(err)
	}
	if r := <-requests; !r.Gone() {
		t.Error("somebody waits for the answer to a message without reply subject")
	}
	away, _ := connect(t, b)
	go func() { _, _ = away.Request("jobstream.slow", nil, patience) }() // it is broken off
	r := <-requests
	if r.Gone() {
		t.Error("a client that waits is gone")
	}
	away.Close()
	for deadline := time.Now().Add(patience); !r.Gone(); {
		if time.Now().After(deadline) {
			t.Fatal("the client is not gone")
		}
		runtime.Gosched()
	}
}

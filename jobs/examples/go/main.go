// A worker in Go, with nats.go only. It does the jobs of the type shout.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

var name = fmt.Sprintf("go-%d", os.Getpid())

type lease struct {
	Lease   string
	Seconds float64 `json:"lease_seconds"`
	Job     struct{ Payload json.RawMessage }
}

// work does one job. It must return when ctx ends.
func work(ctx context.Context, payload []byte) (any, error) {
	var in struct {
		Text    string
		Seconds float64
	}
	if err := json.Unmarshal(payload, &in); err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(in.Seconds * 1e9)):
		return map[string]string{"text": strings.ToUpper(in.Text), "worker": name}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ask sends a request. Its error means that the server is away or busy.
func ask(nc *nats.Conn, verb string, timeout time.Duration, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	m, err := nc.Request("jobstream.worker."+verb, b, timeout)
	if err != nil {
		return err
	}
	if code := m.Header.Get("Nats-Service-Error-Code"); code == "429" || strings.HasPrefix(code, "5") {
		return fmt.Errorf("status %s", code)
	}
	return json.Unmarshal(m.Data, answer)
}

// beat renews a lease, and cancels ctx once it is lost, or over by our own clock.
func beat(ctx context.Context, cancel func(), nc *nats.Conn, l *lease, asked time.Time) {
	span := time.Duration(l.Seconds * 1e9)
	until := asked.Add(span)
	for tick := time.NewTicker(span / 3); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
		var b struct {
			Lost   []string
			Cancel map[string]string
		}
		sent := time.Now()
		err := ask(nc, "beat", span/3, map[string]any{"worker": name, "leases": []string{l.Lease}}, &b)
		if err == nil {
			until = sent.Add(span)
		}
		if len(b.Lost)+len(b.Cancel) > 0 || time.Until(until) < span/3 {
			cancel()
		}
	}
}

func run(nc *nats.Conn, l *lease, asked time.Time) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go beat(ctx, cancel, nc, l, asked)
	sub, err := nc.Subscribe("jobstream.worker.cancel."+name, func(m *nats.Msg) {
		if strings.Contains(string(m.Data), l.Lease) {
			cancel()
		}
	})
	if err == nil {
		defer sub.Unsubscribe() //nolint:errcheck // it ends with the connection
	}
	verb, body := "done", map[string]any{"lease": l.Lease}
	if result, err := work(ctx, l.Job.Payload); err != nil {
		verb, body["error"] = "fail", err.Error()
	} else {
		body["result"] = result
	}
	for n := 0; ctx.Err() == nil; n++ { // a report that comes again does no harm; a lost lease is answered with 409
		var answer struct{}
		if ask(nc, verb, 5*time.Second, body, &answer) == nil {
			return
		}
		pause(n)
	}
}

func pause(n int) { time.Sleep(rand.N(min(10*time.Second, 200*time.Millisecond<<min(n, 10)))) }

func main() {
	nc, err := nats.Connect(cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true))
	if err != nil {
		log.Fatal(err)
	}
	for n := 0; ; {
		var answer struct{ Leases []*lease }
		asked := time.Now()
		if err := ask(nc, "next", 40*time.Second, map[string]any{"types": []string{"shout"}, "worker": name}, &answer); err != nil {
			pause(n)
			n++
			continue
		}
		n = 0
		for _, l := range answer.Leases {
			run(nc, l, asked)
		}
	}
}

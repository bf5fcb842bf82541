package broker

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
)

// FuzzMessage reads any message of JOBS, as any client may publish it. Without a seal it has
// nothing that only the server may write. One without a problem keeps its meaning when the
// server publishes it again.
func FuzzMessage(f *testing.F) {
	for _, h := range []string{
		"", "Job-Id: 01a22a46-0000-7000-8000-000000000001\r\nJob-Tags: a, b\r\nJob-Retry-Count: 3\r\nJob-Timeout: 5m\r\n",
		"Job-Delay: 1h\r\nJob-Ttl: 2d\r\nJob-Unique-Key: k\r\nJob-Concurrency-Key: c\r\nNats-Msg-Id: m\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
		"Job-Moved: 18446744073709551615\r\nJob-Token: 00\r\nJob-Batch-End: x\r\nJob-Schedule: s\r\nJob-Created-By: ci\r\nJob-Seal: AAAAAAAAAAAAAAAA\r\n", "Job-Dealy: 1h\r\n", "Job-Inputs: [{\"name\":\"a\"}]\r\n",
		"Job-Tags:\r\n", ": \r\n\r\n", "Job-Id\r\n",
	} {
		f.Add("jobs.email.3", []byte("NATS/1.0\r\n"+h+"\r\n"), []byte(`{"to":"a@example.com"}`))
	}
	f.Add("jobs.email.9", []byte(nil), []byte(nil))
	f.Add("jobs.a.b.c", []byte("NATS/1.0 503\r\n\r\n"), []byte("\x00"))
	f.Fuzz(func(t *testing.T, subject string, header, body []byte) {
		key := bytes.Repeat([]byte{1}, 32)
		bare, sealed := messageParser{seal: newSeal(sealKey{Key: key})}, messageParser{seal: newSeal(sealKey{Key: key, Since: 7})}
		const at = 1_700_000_000_000_000_000
		m := *bare.message(&item{seq: 7, at: at, subject: subject, header: header, body: body})
		if terms := m.Terms; m.Moved || m.BatchEnd != (jobs.ID{}) || m.CreatedBy != "" || terms != nil && (terms.Schedule != "" || terms.ScheduledFor != 0 || terms.Inputs != nil) {
			t.Fatalf("%q is believed: %+v", header, m)
		}
		m = *sealed.message(&item{seq: 7, at: at, subject: subject, header: header, body: body})
		if !jobs.ValidTypeName(m.Type) || !m.Priority.Valid() || m.ID == (jobs.ID{}) || len(m.Problem) > 4096 {
			t.Fatalf("%q %q: %+v", subject, header, m)
		}
		if m.Problem != "" {
			return
		}
		if m.Terms != nil && reflect.DeepEqual(m.Terms, &jobs.Terms{}) {
			m.Terms = nil
		}
		again := *bare.message(&item{seq: 7, at: at, subject: subject, header: bare.seal.close(appendJobHeader(nil, &m)), body: body})
		if !reflect.DeepEqual(again, m) {
			t.Fatalf("%q:\n%+v %+v becomes\n%+v %+v", header, m, m.Terms, again, again.Terms)
		}
	})
}

// FuzzGate reads any request for a consumer. What passes is a consumer of NOTIFICATIONS
// that its owner has to pull from, in JetStream's own reading.
func FuzzGate(f *testing.F) {
	for _, body := range []string{
		`{"stream_name":"NOTIFICATIONS","config":{"durable_name":"a","ack_policy":"explicit","filter_subjects":["job.completed.>"]},"action":"create"}`,
		`{"stream_name":"NOTIFICATIONS","config":{"name":"a","DELIVER_SUBJECT":"jobstream.cancel"}}`,
		`{"stream_name":"JOBS","config":{}}`, `{"stream_name":"NOTIFICATIONS","Stream_Name":"JOBS"}`,
		`{"stream_name":"NOTIFICATIONS","config":{"metadata":{"jobstream.owner":"other"},"max_waiting":5000,"direct":true}}`, `null`, `[`,
	} {
		f.Add("$JS.API.CONSUMER.CREATE.NOTIFICATIONS.a", []byte(body))
	}
	f.Add("$JS.API.CONSUMER.DURABLE.CREATE.NOTIFICATIONS.*", []byte("{}"))
	f.Fuzz(func(t *testing.T, subject string, body []byte) {
		if verb, name, ok := consumerOf(subject); ok && (name == "" || strings.ContainsAny(verb+name, ".*>")) {
			t.Fatalf("%q is the %q of %q", subject, verb, name)
		}
		out, err := ownedBy("ci", body)
		if err != nil {
			return
		}
		var got server.CreateConsumerRequest
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		c := got.Config
		if got.Stream != NotificationsStream || c.DeliverSubject != "" || c.DeliverGroup != "" || c.Direct || c.Sourcing ||
			c.Metadata[ownerKey] != "ci" || c.MaxWaiting > maxWaiting {
			t.Fatalf("%q passes as %q", body, out)
		}
	})
}

// FuzzHeaders reads any block of headers: what is found stands in it, in order.
func FuzzHeaders(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\nA: b\r\nC:\r\n\r\n"))
	f.Add([]byte("NATS/1.0 408 Timeout\r\n\r\n"))
	f.Add([]byte("A"))
	f.Fuzz(func(t *testing.T, block []byte) {
		rest := string(block)
		wire.EachHeader(block, func(key, value []byte) {
			for _, part := range []string{string(key), string(value)} {
				i := strings.Index(rest, part)
				if i < 0 {
					t.Fatalf("%q is not in %q", part, rest)
				}
				rest = rest[i+len(part):]
			}
		})
	})
}

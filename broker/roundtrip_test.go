package broker_test

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"jobstream/broker/brokertest"
	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/jobstest"
)

// TestAcceptedSurvivesHeaders submits everything that the doors accept, and reads the same
// from the stream. So a tracker that is made anew from the streams has it, too.
func TestAcceptedSurvivesHeaders(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	pieces := []string{
		"a", "B", "7", " ", "  ", ",", ":", ";", "\t", "\r", "\n", "\r\n", "\x00", "\x7f", "\u0085", "\u00a0", "\u2028", "\u3000", "\ufeff", "\ufffd",
		"é", "日本", "👩‍👩‍👧", "\"", "\\", "%0d%0a", "Job-Id: x", "NATS/1.0", "'", "<", "=",
	}
	text := func() string {
		s := ""
		for range 1 + rng.IntN(4) {
			s += pieces[rng.IntN(len(pieces))]
		}
		return s
	}
	b := brokertest.New(t)
	r, _ := read(t, b, jobs.Positions{})
	var sent []*jobs.Message
	for tries := 0; len(sent) < 500; tries++ {
		if tries > 100_000 {
			t.Fatal("hardly anything is let in")
		}
		fields := map[string]any{"type": "email", "priority": 1 + rng.IntN(5)}
		maybe := func(name string, value any) {
			if rng.IntN(3) == 0 {
				fields[name] = value
			}
		}
		maybe("tags", []string{text(), text()}[:rng.IntN(3)])
		maybe("unique_key", text())
		maybe("concurrency_key", text())
		maybe("payload", map[string]any{text(): text()})
		maybe("retry_count", rng.IntN(1001))
		maybe("timeout", rng.Float64()*600000)
		maybe("delay", rng.Float64()*1e8)
		maybe("ttl", 1+rng.Float64()*1e8)
		maybe("deadline", 1e8+rng.Float64()*1e8)
		body, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		s, err := api.ParseSubmission(body)
		if err != nil {
			continue
		}
		m := &jobs.Message{
			ID: jobs.NewID(), Type: s.Type, Priority: s.Priority, Payload: s.Payload, Tags: s.Tags,
			RetryCount: s.RetryCount, Timeout: s.Timeout, Terms: s.Terms,
		}
		if len(m.Tags) == 0 {
			m.Tags = nil
		}
		submit(t, b, m)
		sent = append(sent, m)
	}
	r.until(t, "all messages", func() bool { return len(r.messages) == len(sent) })
	for i, want := range sent {
		got := *r.messages[i]
		got.Seq, got.At = 0, 0
		if !reflect.DeepEqual(&got, want) {
			t.Errorf("got  %+v %+v\nwant %+v %+v", got, got.Terms, *want, want.Terms)
		}
	}
}

// TestTermsSurviveHeaders: the stream keeps every attribute of the table, and one more of
// each type that a header may have.
func TestTermsSurviveHeaders(t *testing.T) {
	colour := jobstest.Extra(t, &jobs.TermsFields)
	jobstest.ExtraOf[json.RawMessage](t, &jobs.TermsFields, "then", "Job-Then")
	jobstest.ExtraOf[[]string](t, &jobs.TermsFields, "after", "Job-After")
	jobstest.ExtraOf[int](t, &jobs.TermsFields, "size", "Job-Size")
	jobstest.ExtraOf[time.Duration](t, &jobs.TermsFields, "span", "Job-Span")
	seed := int(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	b := brokertest.New(t)
	r, _ := read(t, b, jobs.Positions{})
	var sent []*jobs.Terms
	terms := rapid.Custom(func(t *rapid.T) *jobs.Terms {
		terms := &jobs.Terms{}
		jobstest.Draw(t, jobs.TermsFields, terms)
		jobstest.Set(t, "colour", colour(terms))
		return terms
	})
	for i := range 300 {
		sent = append(sent, terms.Example(seed+i))
		submit(t, b, &jobs.Message{ID: jobs.NewID(), Type: "email", Priority: 3, RetryCount: -1, Terms: sent[i]})
	}
	r.until(t, "all messages", func() bool { return len(r.messages) == len(sent) })
	for i, want := range sent {
		got := r.messages[i]
		if got.Terms == nil || got.Problem != "" {
			t.Fatalf("message %d: %+v", i, got)
		}
		for _, f := range jobs.TermsFields {
			if got, want := f.Of(got.Terms), f.Of(want); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %v, want %v", f.Name, got, want)
			}
		}
	}
	nc, _ := connect(t, b)
	for name, value := range map[string]string{"Job-Then": "{\"a\":", "Job-Size": "large", "Job-Span": "-1", "Job-After": "a,,b", "Job-Color": "red"} {
		if err := nc.PublishMsg(&nats.Msg{Subject: "jobs.email", Header: nats.Header{name: {value}}}); err != nil {
			t.Fatal(err)
		}
	}
	r.until(t, "the wrong messages", func() bool { return len(r.messages) == len(sent)+5 })
	for _, m := range r.messages[len(sent):] {
		if !strings.HasPrefix(m.Problem, "header Job-") || strings.Contains(m.Problem, "Job-Color:") != strings.Contains(m.Problem, "Job-Colour") {
			t.Errorf("a wrong header gives %+v", m)
		}
	}
}

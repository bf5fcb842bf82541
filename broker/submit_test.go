package broker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
)

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

// TestEverySubmissionIsAnswered: every lost submission is reported, also that of a known job.
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

package broker_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
)

// sealedMessage has everything that only the server may write.
func sealedMessage() *jobs.Message {
	return &jobs.Message{
		ID: jobs.NewID(), Type: "email", Priority: 3, RetryCount: -1, Moved: true, CreatedAt: 5, CreatedBy: "ci",
		Token: jobs.NewToken("r", "k", []byte("{}")), BatchEnd: jobs.NewID(),
		Terms: &jobs.Terms{
			Schedule: "s", ScheduledFor: jobs.Now(),
			Inputs: []jobs.Input{{Name: "file", ID: jobs.NewID(), File: jobs.Artifact{Name: "a", Size: 1, SHA256: strings.Repeat("ab", 32)}}},
		},
	}
}

// TestSeal: headers of the server's own count in its own messages, and in no copy of them
// that somebody has changed.
func TestSeal(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	nc, js := connect(t, b)
	r, _ := read(t, b, jobs.Positions{})
	m := sealedMessage()
	submit(t, b, m)
	r.until(t, "the message", func() bool { return len(r.messages) == 1 })
	got := *r.messages[0]
	if got.Seq, got.At = 0, 0; got.Token == nil || m.Token.Key != got.Token.Key || m.Token.Body != got.Token.Body {
		t.Errorf("the token is %+v", got.Token)
	}
	got.Token = m.Token
	if !reflect.DeepEqual(&got, m) {
		t.Errorf("got %+v %+v, want %+v %+v", got, got.Terms, m, m.Terms)
	}
	stream, err := js.Stream(t.Context(), broker.JobsStream)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	block := func(change func(h nats.Header)) nats.Header {
		h := make(nats.Header)
		for name, values := range stored.Header {
			h[name] = append([]string(nil), values...)
		}
		change(h)
		return h
	}
	forged := []nats.Header{
		block(func(h nats.Header) { h.Set("Job-Created-By", "boss") }),
		block(func(h nats.Header) { h.Set("Job-Id", jobs.NewID().String()) }),
		block(func(h nats.Header) { h.Del("Job-Moved") }),
		block(func(h nats.Header) { h.Del("Job-Seal") }),
		block(func(h nats.Header) { h.Set("Job-Seal", strings.Repeat("A", 16)) }),
		block(func(h nats.Header) { h.Set("Job-Seal", "") }),
		{"Job-Created-By": {"boss"}},
		{"job-created-by": {"boss"}},
		{"Job-Moved": {"1"}},
		{"Job-Again": {"1"}},
		{"Job-Batch-End": {jobs.NewID().String()}},
		{"Job-Token": {strings.Repeat("ab", 32)}},
		{"Job-Schedule": {"s"}},
		{"Job-Scheduled-For": {"2026-01-01"}},
		{"Job-Inputs": {`{"file":{}}`}},
		{"Job-Seal": {"x"}},
		{"Job-Id": {"0193a5b1-7c3e-8d2f-8a4b-5c6d7e8f9012"}},
	}
	for _, h := range forged {
		if err := nc.PublishMsg(&nats.Msg{Subject: "jobs.email.3", Header: h, Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	r.until(t, "the forged ones", func() bool { return len(r.messages) == 1+len(forged) })
	for i, h := range forged {
		f := r.messages[1+i]
		if f.Problem == "" || f.CreatedBy != "" || f.Moved || f.Again || f.Token != nil || f.BatchEnd != (jobs.ID{}) || f.Terms != nil || f.ID.Version() == jobs.MadeVersion {
			t.Errorf("%v is believed: %+v", h, f)
		}
		if strings.Contains(f.Problem, "known are") && strings.Contains(f.Problem, "Job-Moved,") {
			t.Errorf("the server's own headers are advertised: %s", f.Problem)
		}
	}
}

// TestSealKey: the key is that of the folder, and lasts as long as that. What a version
// without seals has written counts as it is.
func TestSealKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "seal.json")
	open := func() *broker.Broker {
		t.Helper()
		b, err := broker.Open(t.Context(), broker.Options{Dir: dir, Node: "test", Logger: brokertest.Logger(t)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	by := func(b *broker.Broker, n int) (names []string) {
		r, stop := read(t, b, jobs.Positions{})
		r.until(t, "the messages", func() bool { return len(r.messages) == n })
		stop()
		for _, m := range r.messages {
			names = append(names, m.CreatedBy)
		}
		return names
	}
	bare := func(b *broker.Broker, name string) {
		_, js := connect(t, b)
		if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: "jobs.email.3", Header: nats.Header{"Job-Created-By": {name}}}); err != nil {
			t.Fatal(err)
		}
	}
	b := open()
	submit(t, b, sealedMessage())
	bare(b, "forged")
	b.Close()
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("the key's file: %v, %v", info, err)
	}
	b = open()
	if got := by(b, 2); !reflect.DeepEqual(got, []string{"ci", ""}) {
		t.Errorf("after a restart they are by %q", got)
	}
	b.Close()

	// as if an earlier version had written them
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	b = open()
	bare(b, "late")
	if got := by(b, 3); !reflect.DeepEqual(got, []string{"ci", "forged", ""}) {
		t.Errorf("of an earlier version they are by %q", got)
	}
	b.Close()

	// a stream that was made anew has nothing of an earlier version
	if err := os.RemoveAll(filepath.Join(dir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	b = open()
	bare(b, "forged")
	if got := by(b, 1); !reflect.DeepEqual(got, []string{""}) {
		t.Errorf("in a new stream they are by %q", got)
	}
	b.Close()
	var k struct{ Since *uint64 }
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	if err != nil || *k.Since != 0 {
		t.Errorf("the file has %s, %v", text, err)
	}

	for _, text := range []string{"", "{", `{"key":"AA=="}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := broker.Open(t.Context(), broker.Options{Dir: dir, Node: "test", Logger: brokertest.Logger(t)}); err == nil || !strings.Contains(err.Error(), file) {
			if b != nil {
				b.Close()
			}
			t.Errorf("with %q in the file: %v", text, err)
		}
	}
}

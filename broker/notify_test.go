package broker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
)

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
	// The stream refuses one of two, while somebody else publishes there.
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

package broker_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
)

// TestOldSubjects opens a folder whose notifications stand under subjects with ids. A durable
// consumer goes on where it was: its filter matches old and new ones.
func TestOldSubjects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var want []string
	srv, err := server.NewServer(&server.Options{JetStream: true, StoreDir: dir, DontListen: true, NoSigs: true, NoLog: true})
	must(t, err)
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	must(t, err)
	js, err := jetstream.New(nc)
	must(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: broker.NotificationsStream, Subjects: []string{"job.*.*.*"}, Storage: jetstream.FileStorage,
		MaxAge: 72 * time.Hour, MaxMsgs: 2_000_000, AllowDirect: true, PersistMode: jetstream.AsyncPersistMode,
	})
	must(t, err)
	for i := range 6 {
		subject := "job.completed.email." + endedJob(i).ID.String()
		want = append(want, subject)
		_, err = js.Publish(t.Context(), subject, []byte("{}"))
		must(t, err)
	}
	c, err := js.CreateConsumer(t.Context(), broker.NotificationsStream, jetstream.ConsumerConfig{
		Durable: "mine", FilterSubject: "job.completed.email.>", AckPolicy: jetstream.AckExplicitPolicy,
	})
	must(t, err)
	next := func(c jetstream.Consumer) jetstream.Msg {
		t.Helper()
		m, err := c.Next(jetstream.FetchMaxWait(patience))
		must(t, err)
		must(t, m.DoubleAck(t.Context()))
		return m
	}
	for i := range 2 {
		if m := next(c); m.Subject() != want[i] {
			t.Errorf("message %d is on %s", i, m.Subject())
		}
	}
	nc.Close()
	srv.Shutdown()
	srv.WaitForShutdown()

	b := brokertest.New(t, func(o *broker.Options) { o.Dir = dir })
	nc, js = connect(t, b)
	live, err := nc.SubscribeSync("job.completed.email.*")
	must(t, err)
	must(t, nc.Flush())
	fresh := endedJob(6)
	must(t, b.Notifier.Notify(t.Context(), []*jobs.Job{fresh}))
	if m, err := live.NextMsg(patience); err != nil || m.Subject != "job.completed.email."+fresh.ID.String() {
		t.Errorf("a live subscriber got %v, %v", m, err)
	}
	c, err = js.Consumer(t.Context(), broker.NotificationsStream, "mine")
	must(t, err)
	for i := 2; i < 6; i++ {
		if m := next(c); m.Subject() != want[i] {
			t.Errorf("message %d is on %s", i, m.Subject())
		}
	}
	if m := next(c); m.Subject() != "job.completed.email."+broker.NoID || m.Headers().Get("ce-subject") != fresh.ID.String() {
		t.Errorf("the new message is on %s, with %v", m.Subject(), m.Headers())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStrangersAnswer: a client answers every message that it gets. Only the answers of the
// streams count.
func TestStrangersAnswer(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	nc, js := connect(t, b)
	answered := make(chan string, 3000)
	for _, subject := range []string{"jobs.>", "job.>"} {
		_, err := nc.Subscribe(subject, func(m *nats.Msg) {
			_ = m.Respond([]byte("thank you"))
			answered <- m.Subject
		})
		must(t, err)
	}
	must(t, nc.Flush())
	submit(t, b, message("email", 3))
	var ended []*jobs.Job
	for i := range 2000 {
		ended = append(ended, endedJob(i))
	}
	must(t, b.Notifier.Notify(t.Context(), ended))
	for range 2001 {
		select {
		case <-answered:
		case <-time.After(patience):
			t.Fatal("not everything was heard")
		}
	}
	must(t, nc.Flush()) // the answers are with the server
	must(t, b.Flush())
	submit(t, b, message("email", 3))
	stored(t, b, 2)
	must(t, b.Healthy())
	s, err := js.Stream(t.Context(), broker.NotificationsStream)
	must(t, err)
	if n := s.CachedInfo().State.Msgs; n != 2000 {
		t.Errorf("%d notifications are stored", n)
	}
}

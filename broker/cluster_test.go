package broker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs/access"
)

// conforming are the tests that the leading member of a cluster passes as a broker does that
// is alone; see [brokertest.InCluster]. slow are those that take long, mostly by waiting for
// leases.
const (
	conforming = "TestAppend$|TestEventsComeAfterSubmissions|TestCloseLanesGivesBack|TestNotify$|TestSubmitIsRead|TestFullQueueRefuses|" +
		"TestBlockedSinkLosesNothing|TestSeal$|TestQueue$/in_order|TestQueue$/lanes_are_apart|TestQueue$/nak"
	slow = "|TestForeignStatusMessages|TestBareMessages|TestBareJobGetsIntoLaneThreeAndIsDeduplicated|TestServe$|" +
		"TestAcksOfPurgedMessages|TestQueue$|TestTail$|TestEverySubmissionIsAnswered"
	// TestDeletedLaneComesBack and TestConnectionsComeBack pull once. In a cluster such a pull
	// may end after two seconds, and whoever wants more pulls again, as the pool does.

	// shorter are tests of requests that end after half a minute, which they do sooner here.
	shorter = "TestQueue$/a_pull_waits"
)

func TestConformsInACluster(t *testing.T) {
	t.Parallel()
	if os.Getenv(brokertest.InCluster) != "" {
		t.Skip("it runs the other tests")
	}
	all := conforming
	if os.Getenv("JOBSTREAM_CHECKS") != "" {
		all += slow
	}
	run := exec.CommandContext(t.Context(), os.Args[0], "-test.run", all, "-test.skip", shorter, "-test.timeout", "5m")
	run.Env = append(os.Environ(), brokertest.InCluster+"=1")
	if out, err := run.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRestartOfACluster stops one member and starts it again, and then all at once.
func TestRestartOfACluster(t *testing.T) {
	t.Parallel()
	m := brokertest.Cluster(t, 3)
	nc, js := connect(t, m.Brokers[0])
	publish := func() {
		t.Helper()
		// While the members elect, nobody takes a message.
		if _, err := js.Publish(t.Context(), "jobs.email", nil, jetstream.WithRetryAttempts(500), jetstream.WithRetryWait(20*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	publish()
	m.Stop(1)
	publish()
	back := m.Start(1)
	if err := back.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	watching, stop := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() { _ = back.WatchCopies(watching); close(watched) }()
	m.Wait("that it looks at its copies", func() bool { return strings.HasPrefix(back.Waiting(), "its cop") })
	m.Wait("its copies", func() bool { return back.Waiting() == "" })
	s, err := js.Stream(t.Context(), broker.JobsStream)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.CachedInfo().Cluster.Replicas {
		if !r.Current || r.Lag > 0 {
			t.Errorf("the copy of %s is not current: %+v", r.Name, r)
		}
	}
	m.Isolate(1, true)
	m.Wait("that its copies are behind", func() bool { return back.Waiting() != "" })
	m.Isolate(1, false)
	m.Wait("its copies, after it was apart", func() bool { return back.Waiting() == "" })
	stop()
	<-watched
	nc.Close()
	for i := range m.Brokers {
		m.Stop(i)
	}
	b := m.Start(0)
	joined := make(chan error, 1)
	go func() { joined <- b.Join(t.Context()) }()
	m.Wait("the reason for waiting", func() bool { return strings.HasPrefix(b.Waiting(), "0 of 2 other members are connected") })
	if err := m.Start(2).Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-joined; err != nil || b.Waiting() != "" {
		t.Errorf("joined with %v, waits for %q", err, b.Waiting())
	}
	m.Lead(0)
	if state := stored(t, b, 2); state.Msgs != 2 {
		t.Errorf("JOBS has %+v; want both messages", state)
	}
}

// TestFoldersOfOtherKinds shows the folder of a server that is alone to a cluster, and the
// other way round.
func TestFoldersOfOtherKinds(t *testing.T) {
	t.Parallel()
	member := broker.Options{Dir: t.TempDir(), Node: "n1", Logger: brokertest.Logger(t), Cluster: &broker.Cluster{
		Name: "test", Listen: "127.0.0.1:-1", Routes: []string{"127.0.0.1:1", "127.0.0.1:2"},
	}}
	b, err := broker.Open(t.Context(), member)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	alone := broker.Options{Dir: member.Dir, Logger: brokertest.Logger(t)}
	if _, err := broker.Open(t.Context(), alone); err == nil || !strings.Contains(err.Error(), "belongs to a member of a cluster") {
		t.Errorf("alone in the folder of a member: %v", err)
	}
	alone.Dir = t.TempDir()
	if b, err = broker.Open(t.Context(), alone); err != nil {
		t.Fatal(err)
	}
	b.Close()
	member.Dir = alone.Dir
	if _, err := broker.Open(t.Context(), member); err == nil || !strings.Contains(err.Error(), "belongs to a server without a cluster") {
		t.Errorf("a member in the folder of a server that was alone: %v", err)
	}
	if _, err := os.Stat(filepath.Join(alone.Dir, "jetstream", "$G", "streams", broker.JobsStream)); err != nil {
		t.Errorf("its streams: %v", err)
	}
}

// TestPortsOfMembers are those that are in use, and that of a member without one.
func TestPortsOfMembers(t *testing.T) {
	t.Parallel()
	m := brokertest.Cluster(t, 3)
	_, err := broker.Open(t.Context(), broker.Options{Dir: t.TempDir(), Node: "n4", Logger: brokertest.Logger(t), Cluster: &broker.Cluster{
		Name: "test", Listen: m.Brokers[0].RouteAddr().String(), Routes: []string{"127.0.0.1:1", "127.0.0.1:2"},
	}})
	if err == nil || !strings.Contains(err.Error(), "in use (broker.cluster.listen)") {
		t.Errorf("a port in use: %v", err)
	}
	if url := m.Brokers[0].ClientURL(); url != "" {
		t.Errorf("a member without a port for clients says %s", url)
	}
	if nc, err := nats.Connect("nats://" + m.Brokers[0].Addr()); !errors.Is(err, nats.ErrAuthorization) {
		nc.Close()
		t.Errorf("a client of a member without a port for clients: %v", err)
	}
}

// TestLossOfStreamLeaders publishes by all members. Meanwhile the member that leads JOBS is
// cut off for a while, or stops. What was acknowledged is there afterwards.
func TestLossOfStreamLeaders(t *testing.T) {
	t.Parallel()
	for _, loss := range []string{"cut off", "stopped"} {
		t.Run(loss, func(t *testing.T) {
			t.Parallel()
			m := brokertest.Cluster(t, 3)
			p := publishers{acked: make(map[string]bool), end: make(chan struct{})}
			for i, b := range m.Brokers {
				p.group.Go(func() { p.publish(t, b, i) })
			}
			p.more(t, m, 300)
			lost := jobsLeader(t, m)
			if loss == "stopped" {
				m.Stop(lost)
			} else {
				m.Isolate(lost, true)
			}
			p.more(t, m, 300)
			if loss == "stopped" {
				if err := m.Start(lost).Join(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else {
				m.Isolate(lost, false)
			}
			p.more(t, m, 300)
			close(p.end)
			p.group.Wait()
			for i, b := range m.Brokers {
				// Any replica may answer, and the one that was away has to catch up.
				m.Wait(fmt.Sprintf("what was acknowledged, at member %d,", i+1), func() bool {
					there := storedKeys(t, b)
					for key := range p.acked {
						if !there[key] {
							return false
						}
					}
					return true
				})
			}
		})
	}
}

// publishers publish to JOBS until end is closed. mu guards acked.
type publishers struct {
	group sync.WaitGroup
	end   chan struct{}

	mu    sync.Mutex
	acked map[string]bool
}

// publish publishes one message after another, by member i.
func (p *publishers) publish(t *testing.T, b *broker.Broker, i int) {
	t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(b), nats.NoReconnect())
	if err != nil {
		t.Error(err)
		return
	}
	defer nc.Close()
	for n := 0; ; n++ {
		select {
		case <-p.end:
			return
		default:
		}
		key := fmt.Sprint(i, "-", n)
		answer, err := nc.Request("jobs.email.3", fmt.Appendf(nil, "%q", key), 500*time.Millisecond)
		if errors.Is(err, nats.ErrConnectionClosed) {
			return
		}
		if err == nil && bytes.HasPrefix(answer.Data, []byte(`{"stream":`)) {
			p.mu.Lock()
			p.acked[key] = true
			p.mu.Unlock()
			continue
		}
		select { // while the members elect, the answer comes at once
		case <-p.end:
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// more waits until n more messages have been acknowledged.
func (p *publishers) more(t *testing.T, m *brokertest.Members, n int) {
	t.Helper()
	count := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.acked)
	}
	least := count() + n
	m.Wait("acknowledgements", func() bool { return count() >= least })
}

// jobsInfo is what a member that runs says about JOBS, once one of them leads it.
func jobsInfo(t *testing.T, m *brokertest.Members) (info *jetstream.StreamInfo) {
	t.Helper()
	for i := 0; ; i++ {
		b := m.Brokers[i%len(m.Brokers)]
		if b == nil {
			continue
		}
		nc, js := connect(t, b)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		s, err := js.Stream(ctx, broker.JobsStream)
		cancel()
		nc.Close() // the member may be stopped soon
		if err == nil && s.CachedInfo().Cluster.Leader != "" {
			return s.CachedInfo()
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// jobsLeader is the member that leads JOBS.
func jobsLeader(t *testing.T, m *brokertest.Members) int {
	t.Helper()
	leader := jobsInfo(t, m).Cluster.Leader
	n, err := strconv.Atoi(strings.TrimPrefix(leader, "test-"))
	if err != nil {
		return 0
	}
	return n - 1
}

// storedKeys are the bodies of all messages that a replica of JOBS has.
func storedKeys(t *testing.T, b *broker.Broker) map[string]bool {
	t.Helper()
	nc, _ := connect(t, b)
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("$JS.API.DIRECT.GET."+broker.JobsStream, sub.Subject, []byte(`{"seq":1,"batch":1000000}`)); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]bool)
	for {
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if status := m.Header.Get("Status"); status != "" {
			return all
		}
		var key string
		if err := json.Unmarshal(m.Data, &key); err != nil {
			t.Fatal(err)
		}
		all[key] = true
	}
}

// TestServiceAcrossMembers asks the member that serves, by way of another one. A principal
// is refused there, since nobody knows its rights; it must not count as an admin.
func TestServiceAcrossMembers(t *testing.T) {
	t.Parallel()
	m := brokertest.Cluster(t, 3, withPort, func(o *broker.Options) {
		o.Identify = func(c broker.Credentials) *access.Principal {
			return &access.Principal{Name: c.User, Scopes: []access.Scope{access.Read, access.Submit}}
		}
	})
	who := broker.Endpoint{Name: "who", Handle: func(_ context.Context, r *broker.Request) ([]byte, error) { return []byte(r.Principal.Name), nil }}
	if err := m.Brokers[0].Service.Serve("1.0.0", "", []broker.Endpoint{who}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ user, code, body string }{{"here", "", "here"}, {"there", "503", "does not know you"}} {
		nc, err := nats.Connect(m.Brokers[i].ClientURL(), nats.UserInfo(want.user, "token"))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		m.Wait("an answer", func() bool { // the other members hear of the service a little later
			answer, err := nc.Request("jobstream.who", nil, patience)
			if errors.Is(err, nats.ErrNoResponders) {
				return false
			}
			if err != nil || answer.Header.Get(micro.ErrorCodeHeader) != want.code || !strings.Contains(string(answer.Data), want.body) {
				t.Fatalf("by way of member %d: %v %v", i+1, answer, err)
			}
			return true
		})
		if answer, err := nc.Request("jobs.email", nil, patience); err != nil || !bytes.HasPrefix(answer.Data, []byte(`{"stream":"JOBS"`)) {
			t.Errorf("a bare message by way of member %d: %v, %v", i+1, answer, err)
		}
	}
	nc, _ := connect(t, m.Brokers[2])
	if answer, err := nc.Request("jobstream.who", nil, patience); err != nil || string(answer.Data) != "(admin)" {
		t.Errorf("a connection of another member's process: %v, %v", answer, err)
	}
}

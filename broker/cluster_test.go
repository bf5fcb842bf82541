package broker_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
	"jobstream/broker/brokertest"
)

// conforming are the tests that the leading member of a cluster passes as a broker does that
// is alone; see [brokertest.InCluster]. slow are those that take long, mostly by waiting for
// leases.
const (
	conforming = "TestAppend$|TestEventsComeAfterSubmissions|TestCloseLanesGivesBack|TestNotify$|TestSubmitIsRead|TestFullQueueRefuses|" +
		"TestReaderSurvivesLossOfItsConsumer|TestSeal$|TestQueue$/in_order|TestQueue$/lanes_are_apart|TestQueue$/nak"
	slow = "|TestForeignStatusMessages|TestBareMessages|TestBareJobGetsIntoLaneThreeAndIsDeduplicated|TestBlockedSinkLosesNothing|TestServe$|" +
		"TestAcksOfPurgedMessages|TestQueue$|TestTail$|TestDeletedLaneComesBack|TestConnectionsComeBack|TestEverySubmissionIsAnswered"
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
	if err := m.Start(1).Join(t.Context()); err != nil {
		t.Fatal(err)
	}
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

// Package brokertest starts brokers for tests.
package brokertest

import (
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"

	"jobstream/broker"
)

// InCluster is a variable of the environment. If it is set, the broker of [New] is the
// leading member of a cluster of three.
const InCluster = "JOBSTREAM_BROKERTEST_CLUSTER"

// New starts a broker in a temporary folder, without a port, and closes it when
// the test ends. opts may change its options.
func New(t testing.TB, opts ...func(*broker.Options)) *broker.Broker {
	t.Helper()
	if os.Getenv(InCluster) != "" {
		return Cluster(t, 3, opts...).Brokers[0]
	}
	o := broker.Options{Dir: t.TempDir(), Node: "test", Logger: Logger(t)}
	for _, f := range opts {
		f(&o)
	}
	b, err := broker.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// Bubble is [synctest.Test] for tests with brokers. Waiting takes no time in a bubble, and
// no deadline passes while there is work: a slow machine changes nothing. The brokers in it
// must have no port, since a bubble can wait for pipes only. Calls of nats.go with a context
// work there; those with a timeout share their timers with other tests, and do not. The
// members of a cluster have ports, so with [InCluster] there is no bubble.
func Bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if os.Getenv(InCluster) != "" {
		f(t)
		return
	}
	// nats-server has one clock for the whole process. It must not start in a bubble.
	ats.Register()
	defer ats.Unregister()
	synctest.Test(t, func(t *testing.T) {
		// The server's writers of files end a moment after it, at their next look.
		t.Cleanup(func() { <-time.After(time.Minute) })
		f(t)
	})
}

// Logger writes warnings and errors to the test's log.
func Logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

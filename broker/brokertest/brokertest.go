// Package brokertest starts brokers for tests.
package brokertest

import (
	"log/slog"
	"testing"

	"jobstream/broker"
)

// New starts a broker in a temporary folder, without a port, and closes it when
// the test ends. opts may change its options.
func New(t testing.TB, opts ...func(*broker.Options)) *broker.Broker {
	t.Helper()
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

// Logger writes warnings and errors to the test's log.
func Logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

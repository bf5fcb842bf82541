package node

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/access"
)

// patience is how long a test waits for what must come.
const patience = 50 * time.Second

// nothing is a handler.
func nothing(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil }

// open opens a node, in a folder of its own if o has none. The end of the test closes
// it, unless it has been broken off.
func open(t *testing.T, o Options, types ...*jobs.Type) (*Node, *core) {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	n, err := Open(t.Context(), o, jobs.NewRegistry(types...))
	mustDo(t, err)
	t.Cleanup(func() {
		if n.core.Load() == nil {
			return
		}
		atOnce, cancel := context.WithCancel(context.Background())
		cancel()
		mustDo(t, n.Shutdown(atOnce))
	})
	return n, n.core.Load()
}

// anybody may do everything.
func anybody() *access.Keyring {
	return access.NewKeyring(access.Options{Anonymous: access.Scopes()})
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

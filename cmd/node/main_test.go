package node

import (
	"context"
	"testing"
	"time"

	"jobstream/jobs"
)

// patience is how long a test waits for what must come.
const patience = 50 * time.Second

// nothing is a handler.
func nothing(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil }

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

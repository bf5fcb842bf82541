package node_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"jobstream/cmd/node"
	"jobstream/jobs"
)

// A program of its own opens a server with a type of its own, in a folder that goes with
// it. No port is open: jobs come in by calls, or by the REST handler.
func Example() {
	dir, err := os.MkdirTemp("", "jobstream-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	n, err := node.Open(ctx, node.Options{Dir: dir, Types: []*jobs.Type{{
		Name: "greet", Timeout: time.Minute, RetryCount: 3, Backoff: jobs.DefaultBackoff(),
		Handler: jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
			return jobs.Result{Value: "hello, " + strings.Trim(string(t.Job.Payload), `"`)}, nil
		}),
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}

	j, err := n.Submit(ctx, &jobs.Submission{Type: "greet", Priority: jobs.DefaultPriority, RetryCount: -1, Payload: []byte(`"world"`)})
	if err == nil {
		j, err = n.Wait(ctx, j.ID)
	}
	if err == nil {
		fmt.Printf("%s: %s\n", j.Status, j.Result)
	}

	answer := httptest.NewRecorder()
	n.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/jobs", strings.NewReader(`{"type":"greet"}`)))
	fmt.Println(answer.Code)

	if err := n.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// completed: "hello, world"
	// 202
}

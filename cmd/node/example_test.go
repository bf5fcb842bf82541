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

// greet is a job type: its payload is a name, its result a greeting.
var greet = jobs.Define[string, string]("greet", jobs.Retries(3))

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

	registry := jobs.NewRegistry()
	greet.Handle(registry, func(_ context.Context, _ *jobs.Task, name string) (string, error) {
		return "hello, " + name, nil
	})
	n, err := node.Open(ctx, node.Options{Dir: dir}, registry)
	if err != nil {
		fmt.Println(err)
		return
	}

	j, err := greet.Submit(ctx, n, "world", jobs.Tags("first"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(greet.Wait(ctx, n, j.ID))

	answer := httptest.NewRecorder()
	n.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/jobs", strings.NewReader(`{"type":"greet"}`)))
	fmt.Println(answer.Code)

	if err := n.Close(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// hello, world <nil>
	// 202
}

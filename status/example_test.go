package status_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"jobstream/jobs"
	"jobstream/status"
)

// streams is a source that has these, and ends with its context.
type streams struct {
	messages []*jobs.Message
	events   []jobs.Event
}

func (s streams) Read(ctx context.Context, _ jobs.Positions, sink jobs.Sink) error {
	for _, m := range s.messages {
		sink.Submitted(m)
	}
	sink.Happened(1, s.events)
	<-ctx.Done()
	return nil
}

// A tracker folds what stands in the streams, and answers from what it has committed.
func Example() {
	dir, err := os.MkdirTemp("", "tracker")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	work := jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })
	store, err := status.Open(status.Options{Path: filepath.Join(dir, "status.db"), Registry: jobs.NewRegistry(&jobs.Type{Name: "greet", Handler: work})})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	id := jobs.NewID()
	ended := jobs.Event{Kind: jobs.KindCompleted, ID: id, Seq: 1, Type: "greet", Run: 1, Attempt: 1, MaxAttempts: 1, StartedAt: 2, At: 3}
	source := streams{
		messages: []*jobs.Message{{ID: id, Seq: 1, At: 1, Type: "greet", Priority: 3}},
		events:   []jobs.Event{ended},
	}
	ctx, cancel := context.WithCancel(context.Background())
	running := make(chan error)
	go func() { running <- store.Run(ctx, source) }()
	if err := store.WaitFor(ctx, jobs.Positions{Jobs: 1, Status: 1}); err != nil {
		fmt.Println(err)
	}
	j, err := store.Job(ctx, id)
	fmt.Println(j.Type, j.Status, j.Attempt, err)
	cancel()
	fmt.Println(<-running)
	// Output:
	// greet completed 1 <nil>
	// <nil>
}

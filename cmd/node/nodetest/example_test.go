package nodetest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"jobstream/cmd/node/nodetest"
	"jobstream/jobs"
)

// example has a test run outside of go test, for the examples here: yours has a t.
func example(f func(t *testing.B)) { testing.Benchmark(f) }

// once runs a benchmark's function for its first round only.
func once(f func(t testing.TB)) func(*testing.B) {
	done := false
	return func(b *testing.B) {
		if !done {
			done = true
			f(b)
		}
	}
}

// A test starts a node with the program's registry, makes jobs, and waits for them.
func ExampleStart() {
	type mail struct {
		To string `json:"to"`
	}
	send := jobs.Define[mail, string]("send")
	registry := jobs.NewRegistry()
	send.Handle(registry, func(_ context.Context, _ *jobs.Task, in mail) (string, error) {
		return "sent to " + in.To, nil
	})

	example(once(func(t testing.TB) { // func TestSend(t *testing.T) {
		n := nodetest.Start(t, registry)
		j, err := send.Submit(t.Context(), n, mail{To: "ann@example.com"})
		if err != nil {
			t.Fatal(err)
		}
		done := nodetest.WaitFor(t, n, j.ID, jobs.Completed)
		fmt.Println(send.Result(done))
	}))
	// Output: sent to ann@example.com <nil>
}

// A test of code that submits jobs asks what it has submitted.
func ExampleRequireSubmitted() {
	type mail struct {
		To string `json:"to"`
	}
	send := jobs.Define[mail, struct{}]("send")
	registry := jobs.NewRegistry()
	send.Remote(registry) // nobody does its jobs here
	signUp := func(ctx context.Context, c jobs.Client, name string) error {
		_, err := send.Submit(ctx, c, mail{To: name + "@example.com"}, jobs.Priority(1), jobs.Unique(name))
		return err
	}

	example(once(func(t testing.TB) {
		n := nodetest.Start(t, registry)
		if err := signUp(t.Context(), n, "ann"); err != nil {
			t.Fatal(err)
		}
		only := nodetest.RequireSubmitted(t, n, send)
		fmt.Println(only.In.To, only.Job.Priority, only.Job.Status)
		fmt.Println(len(nodetest.AllSubmitted(t, n, send)))
	}))
	// Output:
	// ann@example.com 1 pending
	// 1
}

// A clock makes an hour pass at once.
func ExampleClock() {
	remind := jobs.Define[string, string]("remind")
	registry := jobs.NewRegistry()
	remind.Handle(registry, func(_ context.Context, _ *jobs.Task, what string) (string, error) { return what + "!", nil })

	example(once(func(t testing.TB) {
		clock := nodetest.NewClock(t)
		n := nodetest.Start(t, registry)
		j, err := remind.Submit(t.Context(), n, "tea", jobs.Delay(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(j.Status)
		clock.Advance(time.Hour)
		fmt.Println(remind.Result(nodetest.WaitFor(t, n, j.ID, jobs.Completed)))
	}))
	// Output:
	// scheduled
	// tea! <nil>
}

package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/broker/client"
	"jobstream/cmd/node"
	"jobstream/jobs"
)

// shout is a job type. The server, the worker and whoever submits share its definition.
var shout = jobs.Define[string, string]("shout")

// exampleServer is a server whose jobs of type shout are done elsewhere. Its own process may
// be any: this one, or jobstream with the type's run: remote in its configuration.
func exampleServer() (url string, stop func()) {
	dir, err := os.MkdirTemp("", "jobstream-example-")
	if err != nil {
		panic(err)
	}
	types := jobs.NewRegistry()
	shout.Remote(types)
	n, err := node.Open(context.Background(), node.Options{Dir: dir, NATS: "127.0.0.1:0"}, types)
	if err != nil {
		panic(err)
	}
	return n.NATSURL(), func() {
		if err := errors.Join(n.Close(), os.RemoveAll(dir)); err != nil {
			fmt.Println(err)
		}
	}
}

// shouting are the types of a worker.
func shouting() *jobs.Registry {
	types := jobs.NewRegistry()
	shout.Handle(types, func(_ context.Context, t *jobs.Task, text string) (string, error) {
		t.Progress(50, "breathing in")
		return strings.ToUpper(text), nil
	})
	return types
}

// A worker and a program that submits, each with a connection to the server.
func Example() {
	url, stop := exampleServer()
	defer stop()

	// The worker, in whatever process.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		c, err := client.Connect(url)
		if err == nil {
			defer c.Close()
			err = c.Work(ctx, shouting(), client.Options{Concurrency: 5, Grace: 5 * time.Second})
		}
		done <- err
	}()

	// The program that submits.
	c, err := client.Connect(url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	j, err := shout.Submit(ctx, c, "hello", jobs.Tags("first"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(shout.Wait(ctx, c, j.ID))

	cancel()
	fmt.Println("the worker has ended:", <-done)
	// Output:
	// HELLO <nil>
	// the worker has ended: <nil>
}

// A token and TLS are options of nats.go. The server need not run yet.
func ExampleConnect() {
	c, err := client.Connect("nats://127.0.0.1:4222", nats.Token("secret"), nats.Name("reports"))
	fmt.Println(c != nil, err)
	c.Close()
	_, err = client.Connect("nats://127.0.0.1:4222", nats.RootCAs("no-such-file.pem"))
	fmt.Println(err)
	// Output:
	// true <nil>
	// nats: error loading or parsing rootCA file: open no-such-file.pem: no such file or directory
}

// A program that has a connection already makes a client of it.
func ExampleNew() {
	url, stop := exampleServer()
	defer stop()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	j, err := shout.Submit(context.Background(), client.New(nc), "hello")
	fmt.Println(j.Status, err)
	// Output: pending <nil>
}

// Close leaves a connection alone that the client has not made.
func ExampleClient_Close() {
	url, stop := exampleServer()
	defer stop()
	nc, err := nats.Connect(url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	client.New(nc).Close()
	fmt.Println(nc.IsClosed())
	// Output: false
}

// Submissions that the server cannot use are refused at once, with the fields that are wrong.
func ExampleClient_Submit() {
	url, stop := exampleServer()
	defer stop()
	c, err := client.Connect(url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	j, err := c.Submit(ctx, &jobs.Submission{Type: "shout", Payload: []byte(`"hello"`), Priority: 1, RetryCount: -1})
	fmt.Println(j.Type, j.Priority, j.Status, err)

	_, err = c.Submit(ctx, &jobs.Submission{Type: "shout", Payload: []byte(`5`), Priority: 1, RetryCount: -1})
	var refused *jobs.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Kind, refused.Fields)
	}
	// Output:
	// shout 1 pending <nil>
	// invalid_request [{/payload must be a text, not 5}]
}

// A wait that ends early has the job as it is.
func ExampleClient_Wait() {
	url, stop := exampleServer()
	defer stop()
	c, err := client.Connect(url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	j, err := shout.Submit(ctx, c, "hello")
	if err != nil {
		fmt.Println(err)
		return
	}
	working, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Work(working, shouting(), client.Options{}) }()
	j, err = c.Wait(ctx, j.ID)
	fmt.Println(j.Status, string(j.Result), err)
	end()
	<-done

	j, err = c.Wait(ctx, jobs.NewID())
	fmt.Println(j, err)
	// Output:
	// completed "HELLO" <nil>
	// <nil> <nil>
}

// A worker whose types the server does not give away returns at once, and says why.
func ExampleClient_Work() {
	url, stop := exampleServer()
	defer stop()
	c, err := client.Connect(url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	whisper := jobs.Define[string, string]("whisper")
	types := jobs.NewRegistry()
	whisper.Handle(types, func(context.Context, *jobs.Task, string) (string, error) { return "", nil })
	err = c.Work(context.Background(), types, client.Options{})
	var refused *jobs.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Kind)
	}
	// Output: unknown_type
}

// The registry of a program may have types that this worker is not to do.
func ExampleOptions() {
	url, stop := exampleServer()
	defer stop()
	c, err := client.Connect(url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	types := shouting()
	jobs.Define[string, string]("whisper").Handle(types, func(context.Context, *jobs.Task, string) (string, error) { return "", nil })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Work(ctx, types, client.Options{Types: []string{"shout"}, Name: "w-1"}) }()
	j, err := shout.Submit(ctx, c, "hello")
	if err == nil {
		j, err = c.Wait(ctx, j.ID)
	}
	fmt.Println(j.Status, j.Node, err)
	cancel()
	fmt.Println(<-done)
	// Output:
	// completed w-1 <nil>
	// <nil>
}

// A handler that must not run beside another one looks at the cause.
func ExampleErrLost() {
	handler := func(ctx context.Context) string {
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), client.ErrLost) {
			return "another worker may have the job"
		}
		return "the job is mine, and interrupted"
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(client.ErrLost)
	fmt.Println(handler(ctx))
	// Output: another worker may have the job
}

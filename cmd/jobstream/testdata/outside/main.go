// A program of its own, in a module of its own: it has a server in it, does some of the jobs
// itself, and starts itself again as a worker for others.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"time"

	"jobstream/broker/client"
	"jobstream/cmd/node"
	"jobstream/jobs"
)

type Text struct {
	Text string `json:"text"`
}

type Count struct {
	Letters int    `json:"letters"`
	Process string `json:"process"`
}

// Both ends share the definitions.
var (
	here  = jobs.Define[Text, Count]("here", jobs.Retries(2), jobs.Timeout(time.Minute))
	there = jobs.Define[Text, Count]("there", jobs.Retries(2))
)

func count(process string) func(context.Context, *jobs.Task, Text) (Count, error) {
	return func(_ context.Context, t *jobs.Task, in Text) (Count, error) {
		if in.Text == "" {
			return Count{}, jobs.Permanent(errors.New("there is nothing to count"))
		}
		t.Progress(50, "counting")
		return Count{len(in.Text), process}, nil
	}
}

// types are those of the server.
func types() *jobs.Registry {
	r := jobs.NewRegistry()
	here.Handle(r, count("server"))
	there.Remote(r)
	return r
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	run := serve
	if len(os.Args) > 1 {
		run = work
	}
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

// work does jobs until its standard input ends.
func work(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }()
	c, err := client.Connect(os.Args[1])
	if err != nil {
		return err
	}
	defer c.Close()
	r := jobs.NewRegistry()
	there.Handle(r, count("worker"))
	return c.Work(ctx, r, client.Options{Concurrency: 4})
}

func serve(ctx context.Context) error {
	n, err := node.Open(ctx, node.Options{Dir: "data", NATS: "127.0.0.1:0"}, types())
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "the program itself") })
	mux.Handle("/queue/", http.StripPrefix("/queue", n.Handler()))
	web := httptest.NewServer(mux)
	defer web.Close()

	worker := exec.CommandContext(ctx, os.Args[0], n.NATSURL())
	worker.Stderr = os.Stderr
	line, err := worker.StdinPipe()
	if err != nil {
		return err
	}
	if err := worker.Start(); err != nil {
		return err
	}
	c, err := client.Connect(n.NATSURL())
	if err != nil {
		return err
	}
	for _, one := range []struct {
		d  *jobs.Definition[Text, Count]
		by jobs.Client
	}{{here, n}, {here, c}, {there, n}, {there, c}} {
		j, err := one.d.Submit(ctx, one.by, Text{"some text"}, jobs.Tags("outside"))
		if err != nil {
			return err
		}
		out, err := one.d.Wait(ctx, one.by, j.ID)
		fmt.Println(one.d.Name(), out.Letters, out.Process, err)
	}
	var failed *jobs.JobError
	if j, err := here.Submit(ctx, n, Text{}); err == nil {
		_, err = here.Wait(ctx, n, j.ID)
		fmt.Println(errors.As(err, &failed), failed.Kind, failed.Message)
	}
	answer, err := http.Post(web.URL+"/queue/jobs", "application/json", strings.NewReader(`{"type":"here","payload":{"txet":""}}`))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	problem, err := io.ReadAll(answer.Body)
	fmt.Println(answer.StatusCode, strings.Contains(string(problem), "/payload/txet"), err)

	c.Close()
	return errors.Join(line.Close(), worker.Wait(), n.Close())
}

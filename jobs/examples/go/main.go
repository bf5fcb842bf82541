// A worker in Go. It does the jobs of the type shout, with the client package.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/broker/client"
	"jobstream/jobs"
)

type in struct {
	Text    string
	Seconds float64
}

type out struct {
	Text   string `json:"text"`
	Worker string `json:"worker"`
}

// Those who submit jobs of this type can use the same definition.
var shout = jobs.Define[in, out]("shout")

func main() {
	name := fmt.Sprintf("go-%d", os.Getpid())
	types := jobs.NewRegistry()
	shout.Handle(types, func(ctx context.Context, _ *jobs.Task, in in) (out, error) {
		select { // a handler must return when ctx ends
		case <-time.After(time.Duration(in.Seconds * float64(time.Second))):
			return out{strings.ToUpper(in.Text), name}, nil
		case <-ctx.Done():
			return out{}, ctx.Err()
		}
	})
	c, err := client.Connect(cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := c.Work(ctx, types, client.Options{Name: name}); err != nil {
		log.Print(err)
	}
}

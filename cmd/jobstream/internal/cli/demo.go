package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"jobstream/jobs"
)

type demoCommand struct {
	ServerFlags
	Rate float64       `default:"20" help:"Jobs a second, up to 5000."`
	For  time.Duration `name:"for" placeholder:"DURATION" help:"Stop after that time (default: at Ctrl-C)."`
	Type []string      `placeholder:"TYPE" help:"Only jobs of this type; may be repeated. One that is not built in needs a schema with an example, or takes any payload (default: the built-in types that the server has, but for cleanup)."`
}

// Help is shown by demo --help.
func (demoCommand) Help() string {
	return `It submits a mixture to look at: jobs of all priorities, with tags and concurrency keys, some for later, some that fail and are tried again, some that are cancelled. They have the tag demo, so POST /jobs/bulk can delete them all. Mails go to addresses below example.invalid, which no mail server delivers to.`
}

const (
	maxDemoRate = 5000
	demoTick    = 100 * time.Millisecond // between batches
	demoTag     = "demo"
)

// Run submits until it is interrupted, or the time is over.
func (c *demoCommand) Run(p *Program) error {
	if c.Rate <= 0 || c.Rate > maxDemoRate {
		return Usagef("--rate must be above 0 and at most %d, not %v", maxDemoRate, c.Rate)
	}
	if c.For < 0 {
		return Usagef("--for must not be negative")
	}
	ctx, stop := signal.NotifyContext(p.Ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	server, err := c.Connect(p)
	if err != nil {
		return err
	}
	defer server.Close()
	d := &demo{c: c, server: server}
	if err := d.findTypes(ctx); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(p.Stdout, "about %v jobs a second of %s; Ctrl-C ends it\n", c.Rate, strings.Join(d.names(), ", "))
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	err = d.run(ctx)
	_, _ = fmt.Fprintf(p.Stdout, "submitted %d jobs, of which %d cancelled; %d were refused\n", d.submitted, d.cancelled, d.refused)
	return err
}

// demo submits jobs over the public API.
type demo struct {
	c      *demoCommand
	server *Client
	types  []demoType

	submitted, cancelled, refused int
	doomed                        []string // jobs that are to be cancelled
}

// demoType is a type that a demo submits.
type demoType struct {
	name    string
	weight  int
	payload func() any
}

// do makes a request, and reads its answer into out.
func (d *demo) do(ctx context.Context, method, path string, body, out any) error {
	_, err := d.server.Do(ctx, method, path, body, out)
	return err
}

// findTypes finds the types that the server has, and payloads for them.
func (d *demo) findTypes(ctx context.Context) error {
	var all struct {
		Types []struct{ Name, Run string }
	}
	if err := d.do(ctx, http.MethodGet, "/types", nil, &all); err != nil {
		return err
	}
	var have []string
	for _, t := range all.Types {
		have = append(have, t.Name)
		chosen := slices.Contains(d.c.Type, t.Name)
		if len(d.c.Type) > 0 && !chosen {
			continue
		}
		payload, weight := builtInPayload(t.Run)
		if payload == nil && chosen {
			example, err := d.example(ctx, t.Name)
			if err != nil {
				return err
			}
			payload, weight = func() any { return example }, 10
		}
		if payload != nil {
			d.types = append(d.types, demoType{t.Name, weight, payload})
		}
	}
	for _, name := range d.c.Type {
		if !slices.Contains(have, name) {
			return Usagef("there is no type %s; the server has %s", name, strings.Join(have, ", "))
		}
	}
	if len(d.types) == 0 {
		return fmt.Errorf("the server has no built-in type; name one with --type: %s", strings.Join(have, ", "))
	}
	return nil
}

func (d *demo) names() (all []string) {
	for _, t := range d.types {
		all = append(all, t.name)
	}
	return all
}

// builtInPayload makes payloads for a kind of types; nil for one that is not built in, or
// changes something. weight is how often it is chosen.
func builtInPayload(kind string) (payload func() any, weight int) {
	switch kind {
	case "email":
		return func() any {
			name := pick("ann", "ben", "cho", "dora", "emil", "fay")
			return map[string]string{
				"to": name + "@example.invalid", "subject": pick("Your invoice", "Welcome", "A reminder"), "body": "Hello " + name + ",\n\nthis is a demo.\n",
			}
		}, 90
	case "export":
		return func() any {
			return map[string]any{"format": pick("csv", "json", "jsonl"), "filters": map[string]any{"from": fromNow(-time.Minute), "status": "failed"}}
		}, 7
	case "report":
		return func() any {
			return map[string]any{"type": pick("summary", "performance", "failures"), "date_range": map[string]any{"from": fromNow(-time.Minute), "to": fromNow(0)}}
		}, 3
	}
	return nil, 0
}

// fromNow is a time from now.
func fromNow(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }

// example is a payload for a type: the first example of its schema, or an empty object.
func (d *demo) example(ctx context.Context, name string) (any, error) {
	var t struct {
		Schema struct{ Examples []json.RawMessage }
	}
	if err := d.do(ctx, http.MethodGet, "/types/"+name, nil, &t); err != nil {
		return nil, err
	}
	if len(t.Schema.Examples) > 0 {
		return t.Schema.Examples[0], nil
	}
	return map[string]any{}, nil
}

// pick is one of several values, each as likely as the others.
func pick[T any](of ...T) T { return of[rand.IntN(len(of))] } //nolint:gosec // it only varies a demo

// chance is true so many times out of a hundred.
func chance(percent int) bool { return rand.IntN(100) < percent } //nolint:gosec // it only varies a demo

// submission is a job with random attributes. doomed says that it is to be cancelled.
func (d *demo) submission() (s map[string]any, doomed bool) {
	sum := 0
	for _, t := range d.types {
		sum += t.weight
	}
	at := rand.IntN(sum) //nolint:gosec // it only varies a demo
	i := 0
	for ; at >= d.types[i].weight; i++ {
		at -= d.types[i].weight
	}
	s = map[string]any{
		"type": d.types[i].name, "payload": d.types[i].payload(),
		"priority": pick(1, 2, 2, 3, 3, 3, 3, 4, 4, 5), "tags": []string{demoTag, pick("north", "south", "east", "west")},
	}
	if chance(20) {
		s["concurrency_key"] = pick("acme", "globex", "initech", "umbrella")
	}
	switch {
	case chance(8):
		s["delay"] = 2 + rand.IntN(20) //nolint:gosec // it only varies a demo
	case chance(3):
		s["deadline"] = "1us" // it fails for good
	case chance(4):
		s["timeout"], s["retry_count"] = "1us", rand.IntN(3) //nolint:gosec // most attempts look at the clock, and fail
	case chance(2):
		s["delay"], doomed = "1h", true
	}
	return s, doomed
}

// run submits a batch at each tick.
func (d *demo) run(ctx context.Context) error {
	tick := time.NewTicker(demoTick)
	defer tick.Stop()
	due, last := 0.0, time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			due = min(due+d.c.Rate*now.Sub(last).Seconds(), jobs.MaxBatch)
			last = now
		}
		n := int(due)
		due -= float64(n)
		pause, err := d.submit(ctx, n)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if pause > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			last = time.Now()
		}
	}
}

// submit submits n jobs, and cancels some of before. A server that takes no more for now
// says how long to pause.
func (d *demo) submit(ctx context.Context, n int) (pause time.Duration, err error) {
	if n == 0 {
		return 0, nil
	}
	all, doomed := make([]map[string]any, n), make([]bool, n)
	for i := range all {
		all[i], doomed[i] = d.submission()
	}
	var made struct{ Jobs []struct{ ID string } }
	err = d.do(ctx, http.MethodPost, "/jobs/batch", map[string]any{"jobs": all}, &made)
	var no *RefusedError
	if errors.As(err, &no) && (no.Status == http.StatusTooManyRequests || no.Status == http.StatusServiceUnavailable) {
		d.refused += n
		return max(no.After, time.Second), nil
	}
	if err != nil {
		return 0, err
	}
	d.submitted += n
	for i, j := range made.Jobs {
		if doomed[i] {
			d.doomed = append(d.doomed, j.ID)
		}
	}
	if len(d.doomed) > 0 && chance(30) {
		id := d.doomed[0]
		d.doomed = d.doomed[1:]
		err := d.do(ctx, http.MethodPost, "/jobs/"+id+"/cancel", map[string]string{"reason": "the demo has changed its mind"}, nil)
		if err == nil {
			d.cancelled++
		} else if !errors.As(err, &no) { // it may be gone
			return 0, err
		}
	}
	return 0, nil
}

package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/broker/client"
	"jobstream/cmd/node"
	"jobstream/jobs"
)

// behaviours are what handlers may do, each by the name of a type.
var behaviours = map[string]jobs.HandlerFunc{
	"result": func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		return jobs.Result{Value: map[string]any{"got": t.Job.Payload, "attempt": t.Attempt, "<&>": nil}}, nil
	},
	"no-result": func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil },
	"progress": func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		t.Progress(10, "first")
		t.Progress(150, "last "+strings.Repeat("x", 600))
		return jobs.Result{}, nil
	},
	"log": func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		t.Logf(jobs.LevelWarn, "line %d of job", 1)
		t.LogOutput(jobs.LevelInfo, "stderr", "from a program\x00")
		t.Log(jobs.LevelDebug, strings.Repeat("long ", 4000))
		return jobs.Result{}, nil
	},
	"permanent": func(context.Context, *jobs.Task) (jobs.Result, error) {
		return jobs.Result{}, fmt.Errorf("wrapped: %w", jobs.Permanentf("it is broken"))
	},
	"panic": func(_ context.Context, t *jobs.Task) (jobs.Result, error) { panic(fmt.Sprint("at ", t.Attempt)) },
	"error": func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		return jobs.Result{}, fmt.Errorf("attempt %d: %s", t.Attempt, strings.Repeat("e", 5000))
	},
	"second": func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		if t.Attempt == 1 {
			t.Progress(50, "half")
			return jobs.Result{}, jobs.RetryAfter(300*time.Millisecond, errors.New("not yet"))
		}
		return jobs.Result{Value: len(t.Job.Errors)}, nil
	},
	"checkpoint": func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		if err := t.SetCheckpoint(map[string]int{"row": t.Attempt}); err != nil {
			return jobs.Result{}, err
		}
		if t.Attempt < 3 {
			return jobs.Result{}, errors.New("go on")
		}
		return jobs.Result{Value: t.Checkpoint()}, nil
	},
	"big-checkpoint": func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		return jobs.Result{Value: fmt.Sprint(t.SetCheckpoint(strings.Repeat("x", jobs.MaxCheckpoint)))}, nil
	},
	"snooze": func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		if t.Checkpoint() == nil {
			return jobs.Result{}, errors.Join(t.SetCheckpoint(1), jobs.Snooze(50*time.Millisecond, "not ready"))
		}
		return jobs.Result{Value: t.Attempt}, nil
	},
	"busy": func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		if t.Checkpoint() == nil {
			return jobs.Result{}, errors.Join(t.SetCheckpoint(1), jobs.Busy(50*time.Millisecond, "full"))
		}
		return jobs.Result{Value: t.Attempt}, nil
	},
	"busy-failed": func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		return jobs.Result{}, jobs.BusyFailed(10*time.Millisecond, errors.New("still full"))
	},
	"no-json": func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{Value: make(chan int)}, nil },
	"too-large": func(context.Context, *jobs.Task) (jobs.Result, error) {
		return jobs.Result{Value: strings.Repeat("x", jobs.MaxResult)}, nil
	},
	"largest": func(context.Context, *jobs.Task) (jobs.Result, error) {
		return jobs.Result{Value: strings.Repeat("x", jobs.MaxResult-2)}, nil
	},
	"handed": func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, jobs.ErrHandedOver },
	"not-handed": func(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
		_, _, err := t.Lease(ctx)
		return jobs.Result{}, jobs.Permanent(err)
	},
	"deadline": func(ctx context.Context, _ *jobs.Task) (jobs.Result, error) {
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), jobs.ErrDeadline) {
			return jobs.Result{}, fmt.Errorf("the cause is %w", context.Cause(ctx))
		}
		return jobs.Result{}, ctx.Err()
	},
	"timeout": func(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), jobs.ErrTimeout) || time.Until(t.Until) > 0 {
			return jobs.Result{}, jobs.Permanentf("the cause is %v", context.Cause(ctx))
		}
		return jobs.Result{}, ctx.Err()
	},
}

// TestHandlersCannotTell: whatever a handler does becomes the same record and the same log,
// whether a server runs it or another process.
func TestHandlersCannotTell(t *testing.T) {
	t.Parallel()
	var types, theirs []*jobs.Type
	for name, f := range behaviours {
		here, there := doing(name, f), remote("r-"+name)
		if name == "timeout" {
			here.Timeout, there.Timeout = 200*time.Millisecond, 200*time.Millisecond
		}
		types = append(types, here, there)
		theirs = append(theirs, doing("r-"+name, f))
	}
	s := serve(t, node.Options{}, types...)
	c := s.client()
	work(t, c, jobs.NewRegistry(theirs...), client.Options{Name: "w-1", Concurrency: 20})
	for name := range behaviours {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			payload := map[string]string{"for": name}
			change := func(s *jobs.Submission) {
				if name == "deadline" {
					s.Terms = &jobs.Terms{Deadline: jobs.Now().Add(500 * time.Millisecond)}
				}
			}
			here := submit(t, s, name, payload, change)
			there := submit(t, c, "r-"+name, payload, change)
			want, got := facts(s, ended(t, s, here)), facts(s, ended(t, c, there))
			if !maps.Equal(want, got) {
				for _, key := range slices.Sorted(maps.Keys(want)) {
					if want[key] != got[key] {
						t.Errorf("%s: a server makes\n\t%.300s\nanother process\n\t%.300s", key, want[key], got[key])
					}
				}
			}
			if got["node"] = ended(t, c, there).Node; got["node"] != "w-1" {
				t.Errorf("it ran at %s", got["node"])
			}
		})
	}
}

var someMoment = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`)

// facts are what a record and a log say, but for times and places.
func facts(s *server, j *jobs.Job) map[string]string {
	var text []string
	for _, e := range j.Errors {
		text = append(text, fmt.Sprint(e.Attempt, e.Error))
	}
	var events struct{ Events []struct{ Kind string } }
	if err := json.Unmarshal([]byte(s.get("/jobs/"+j.ID.String()+"/events")), &events); err != nil {
		s.t.Error(err)
	}
	var kinds []string
	for _, e := range events.Events {
		if e.Kind != "progress" { // how many are passed on is a matter of time
			kinds = append(kinds, e.Kind)
		}
	}
	log := s.get("/jobs/" + j.ID.String() + "/log")
	return map[string]string{
		"status": j.Status.String(), "attempt": fmt.Sprint(j.Attempt, " of ", j.MaxAttempts, ", ", j.Failures, " failures, ", j.Lost, " lost"),
		"progress": fmt.Sprint(j.Progress, " ", j.Message), "result": string(j.Result), "permanent": fmt.Sprint(j.Permanent),
		"error": someMoment.ReplaceAllString(j.Error, "TIME"), "errors": someMoment.ReplaceAllString(strings.Join(text, "\n"), "TIME"),
		"events": strings.Join(kinds, " "), "log": someMoment.ReplaceAllString(log, "TIME"),
	}
}

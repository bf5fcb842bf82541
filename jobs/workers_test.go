package jobs_test

import (
	"context"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

func TestCheckResize(t *testing.T) {
	nothing := jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })
	reg := jobs.NewRegistry(&jobs.Type{Name: "email", Handler: nothing}, &jobs.Type{Name: "export", Handler: nothing}, &jobs.Type{Name: "own", Handler: nothing, Internal: true})
	if err := reg.CheckResize(&jobs.Resize{Types: map[string]int{"email": 1, "export": 0}}); err != nil {
		t.Errorf("known types are refused: %v", err)
	}
	err := reg.CheckResize(&jobs.Resize{Types: map[string]int{"email": 1, "z": 1, "a": 1, "own": 1}})
	if got, want := jobstest.Failure(t, err), "unknown_type /types/a /types/own /types/z"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
	if !strings.Contains(err.Error(), "email, export") {
		t.Errorf("%q does not list the known types", err)
	}
}

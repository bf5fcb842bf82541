package api_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

func TestErrorsSpeakBothDoors(t *testing.T) {
	e := jobs.InvalidFields(jobs.FieldError{Pointer: "/a", Detail: "is bad"}, jobs.FieldError{Pointer: "/b", Detail: "too"})
	if api.HTTPStatus(e) != 422 || e.Error() != "/a: is bad (and 1 more)" {
		t.Errorf("got %d %q", api.HTTPStatus(e), e)
	}
	var p map[string]any
	if err := json.Unmarshal(api.Problem(e), &p); err != nil || p["code"] != "invalid_request" || p["status"] != 422.0 || len(p["errors"].([]any)) != 2 {
		t.Errorf("problem %s (%v)", api.Problem(e), err)
	}
	for wait, want := range map[time.Duration]string{0: "", -1: "", 1: "1", time.Second: "1", 1500 * time.Millisecond: "2"} {
		if got := api.RetryAfterSeconds(&jobs.Error{RetryAfter: wait}); got != want {
			t.Errorf("retry after %s is %q, want %q", wait, got, want)
		}
	}
	if got, ok := jobs.AsError(errors.Join(errors.New("x"), e)); !ok || got != e {
		t.Errorf("got %v, %v", got, ok)
	}
	if got, ok := jobs.AsError(errors.New("secret")); ok || api.HTTPStatus(got) != 500 || strings.Contains(got.Detail, "secret") {
		t.Errorf("got %v, %v", got, ok)
	}
	if api.HTTPStatus(&jobs.Error{Kind: "new"}) != 500 {
		t.Error("an unknown kind is not a 500")
	}
	base := errors.New("base")
	if jobs.Permanent(nil) != nil || !jobs.IsPermanent(jobs.Permanent(base)) || !errors.Is(jobs.Permanentf("x: %w", base), base) || jobs.IsPermanent(base) || jobs.IsPermanent(nil) {
		t.Error("permanent errors are not told from others")
	}
}

// TestLostLeaseSaysWhereItsJobIs: a worker learns from the problem why to stop.
func TestLostLeaseSaysWhereItsJobIs(t *testing.T) {
	e := &jobs.Error{Kind: jobs.LeaseLost, State: &jobs.LeaseState{Status: jobs.Retrying, Attempt: 2, Error: "timed out"}}
	var p struct {
		Status int
		Code   string
		Job    map[string]any
	}
	if err := json.Unmarshal(api.Problem(e), &p); err != nil || p.Status != 409 || p.Code != "lease_lost" {
		t.Errorf("problem %s (%v)", api.Problem(e), err)
	}
	if p.Job["status"] != "retrying" || p.Job["attempt"] != 2.0 || p.Job["error"] != "timed out" {
		t.Errorf("the job is %v", p.Job)
	}
}

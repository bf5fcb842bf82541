package jobs_test

import (
	"slices"
	"testing"

	"jobstream/jobs"
)

// TestChange says of changes what others look for in them.
func TestChange(t *testing.T) {
	job := func(status jobs.Status, seq uint64, edit ...func(*jobs.Job)) *jobs.Job {
		j := &jobs.Job{Key: 1, Seq: seq, Status: status, Payload: []byte(`{}`)}
		for _, f := range edit {
			f(j)
		}
		return j
	}
	dueAt := func(at jobs.Time) func(*jobs.Job) {
		return func(j *jobs.Job) { j.Place, j.DueAt = jobs.Due, at }
	}
	held := func(j *jobs.Job) { j.Place = jobs.Held }
	deadline := func(j *jobs.Job) { j.Terms = &jobs.Terms{Deadline: 70} }
	unknown := func(j *jobs.Job) { j.Payload = nil }
	for name, tt := range map[string]struct {
		before, after    *jobs.Job
		submitted, ended bool
		due              jobs.Time
	}{
		"new":                   {nil, job(jobs.Pending, 1), true, false, 0},
		"new and failed":        {nil, job(jobs.Failed, 1), true, true, 0},
		"started":               {job(jobs.Pending, 1), job(jobs.Processing, 1), false, false, 0},
		"completed":             {job(jobs.Processing, 1), job(jobs.Completed, 1), false, true, 0},
		"published again":       {job(jobs.Retrying, 1), job(jobs.Retrying, 5), true, false, 0},
		"deleted":               {job(jobs.Completed, 1), nil, false, false, 0},
		"ended before":          {job(jobs.Completed, 1), job(jobs.Completed, 1), false, false, 0},
		"its submission came":   {job(jobs.Processing, 1, unknown), job(jobs.Processing, 1), true, false, 0},
		"scheduled":             {nil, job(jobs.Scheduled, 1, dueAt(50)), true, false, 50},
		"scheduled, deadline":   {nil, job(jobs.Scheduled, 1, dueAt(90), deadline), true, false, 70},
		"put off":               {job(jobs.Scheduled, 1, dueAt(50)), job(jobs.Scheduled, 1, dueAt(60)), false, false, 60},
		"still put off":         {job(jobs.Scheduled, 1, dueAt(50)), job(jobs.Scheduled, 1, dueAt(50)), false, false, 0},
		"got a turn":            {job(jobs.Pending, 1, held), job(jobs.Pending, 1, dueAt(0)), false, false, 1},
		"lost and got its turn": {job(jobs.Pending, 1, dueAt(0)), job(jobs.Pending, 5, dueAt(0)), true, false, 1},
		"has a deadline":        {nil, job(jobs.Pending, 1, deadline), true, false, 70},
		"runs with a deadline":  {job(jobs.Pending, 1, deadline), job(jobs.Processing, 1, deadline), false, false, 0},
		"ran with a deadline":   {job(jobs.Processing, 1, deadline), job(jobs.Pending, 1, deadline), false, false, 70},
		"cancelled while due":   {job(jobs.Scheduled, 1, dueAt(50)), job(jobs.Cancelled, 1), false, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := jobs.Commit{Changes: []jobs.Change{{Before: tt.before, After: tt.after}}}
			submitted, ended := slices.Collect(c.Submitted()), slices.Collect(c.Ended())
			if (len(submitted) == 1) != tt.submitted || (len(ended) == 1) != tt.ended || c.Due() != tt.due {
				t.Errorf("submitted %v, ended %v, due %v", submitted, ended, c.Due())
			}
		})
	}
}

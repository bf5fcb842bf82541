// Package history reads the tracker's job history for handlers that need all of it.
// Start at [Walk]. [Wait] and [RunTime] read the times of one record.
package history

import (
	"context"
	"fmt"
	"time"

	"jobstream/jobs"
)

const (
	reportEvery = 1000 // records between two reports of progress
	checkEvery  = 64   // records between two looks at the context
	almost      = 99   // percent; 100 is for the end of the job
)

// Walk calls yield for every job that f chooses, oldest first. It reports the progress
// of t by the estimate of Count, up to 99 %, as the estimate may be too high. It
// returns the number of jobs. When ctx ends it returns the cause of that. doing names
// the work in the reports, like "exported".
func Walk(ctx context.Context, h jobs.History, f jobs.Filter, t *jobs.Task, doing string, yield func(*jobs.Job) error) (int, error) {
	total, err := h.Count(f)
	if err != nil {
		return 0, fmt.Errorf("count the jobs: %w", err)
	}
	n := 0
	err = h.Scan(ctx, f, func(j *jobs.Job) error {
		if n%checkEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := yield(j); err != nil {
			return err
		}
		n++
		if n%reportEvery == 0 {
			t.Progress(Percent(int64(n), int64(total)), fmt.Sprintf("%s %d of about %d jobs", doing, n, max(n, total)))
		}
		return nil
	})
	if err != nil {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		return n, fmt.Errorf("read the job history: %w", err)
	}
	return n, nil
}

// Percent is done of total in per cent, from 0 to 99.
func Percent(done, total int64) int {
	if total <= 0 || done <= 0 {
		return 0
	}
	return int(min(float64(done)/float64(total)*100, almost))
}

// Wait is the time from the moment at which a job was due (its submission, or its delayed
// start) to the start of its first attempt. ok is false if none has started, or its start
// is no longer known.
func Wait(j *jobs.Job) (wait time.Duration, ok bool) {
	if j.CreatedAt == 0 {
		return 0, false
	}
	for i := range j.History {
		if h := &j.History[i]; h.Kind == jobs.KindStarted {
			if h.Attempt > 1 {
				return 0, false
			}
			return max(h.At.Sub(j.DueBefore(i)), 0), true // two clocks may be at odds
		}
	}
	if j.Attempt == 1 && j.StartedAt != 0 {
		return max(j.StartedAt.Sub(j.DueBefore(0)), 0), true
	}
	return 0, false
}

// RunTime is how long the last attempt of an ended job ran. ok is false if the job has
// not ended or has never run: it was refused, or cancelled while it waited.
func RunTime(j *jobs.Job) (run time.Duration, ok bool) {
	if !j.Status.Ended() || j.StartedAt == 0 || j.EndedAt == 0 {
		return 0, false
	}
	if j.Status == jobs.Cancelled && j.Attempt <= j.Failures {
		return 0, false
	}
	return max(j.EndedAt.Sub(j.StartedAt), 0), true
}

// Milliseconds is d in ms, to the microsecond.
func Milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)/time.Microsecond) / 1000
}

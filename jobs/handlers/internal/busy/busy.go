// Package busy puts jobs off whose target takes nothing more for now, for at most a day.
// Start at [Error].
package busy

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"jobstream/jobs"
)

// Most is how long a job may be put off in all, in one run.
const Most = 24 * time.Hour

// checkpoint is what a job has while it is put off. It survives restarts. A run has its
// own.
type checkpoint struct {
	Since time.Time `json:"busy_since"`
	Run   int       `json:"run"`
}

// Error is [jobs.Busy] for a task that has no checkpoint of its own. Once the task's job
// has been put off for [Most], it is [jobs.BusyFailed]: the answer is a failed attempt.
func Error(t *jobs.Task, after time.Duration, reason string) error {
	now := time.Now().UTC()
	c := checkpoint{now, t.Job.Run}
	var last checkpoint
	if json.Unmarshal(t.Checkpoint(), &last) == nil && last.Run == c.Run && !last.Since.IsZero() && !last.Since.After(now) {
		c.Since = last.Since
	}
	left := c.Since.Add(Most).Sub(now)
	if left <= 0 {
		return jobs.BusyFailed(min(after, Most), fmt.Errorf("%s; it has been put off for that since %s", reason, c.Since.Format(time.RFC3339)))
	}
	if err := t.SetCheckpoint(c); err != nil {
		return errors.Join(errors.New(reason), err)
	}
	return jobs.Busy(min(after, left), reason)
}

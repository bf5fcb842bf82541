package jobs

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// RunNow lets those of the jobs that wait for a moment start as soon as they may. They
// are Changed. A pending job waits for no moment, and stays as it is. The jobs must be
// pinned, see [jobstream/jobs/pool.Pool.Pin].
type RunNow struct {
	Stamp
	Keys []uint64 `json:"keys"`
}

// Revise changes a job that waits: scheduled, pending or retrying. It is Changed, or
// Refused if the changes do not go together with the job. The zero value of a field
// leaves that as it is. The job must be pinned.
type Revise struct {
	Stamp
	Key      uint64   `json:"key"`
	Priority Priority `json:"priority,omitempty"`
	RunAt    Time     `json:"run_at,omitempty"`
	Payload  []byte   `json:"payload,omitempty"` // JSON that its type has checked
	Tags     []string `json:"tags"`              // nil = as they are
}

// Waits says whether the job waits to be run: scheduled, pending or retrying.
func (s Status) Waits() bool { return s == Scheduled || s == Pending || s == Retrying }

// RunNow ends the wait of a scheduled or retrying job for its moment, and reports whether
// there was one. Its message is published anew, as the one that a retry has in the queue
// may be asleep there.
func (j *Job) RunNow(at Time) bool {
	if j.Status != Scheduled && j.Status != Retrying {
		return false
	}
	if j.Terms != nil && j.Terms.RunAt > at {
		j.setRunAt(at)
	}
	j.Due(at)
	j.Place = Due
	return true
}

// setRunAt replaces the earliest start in the job's terms.
func (j *Job) setRunAt(at Time) {
	t := *j.Terms
	t.RunAt = at
	j.Terms = &t
}

// Revise makes the changes of c. It returns whether there were any, or an [*Error] if
// they are impossible. A job whose priority changes goes to the end of its new lane. All
// others keep their place.
func (j *Job) Revise(c *Revise) (bool, error) {
	if !j.Status.Waits() {
		return false, nil
	}
	if at := c.RunAt; at > c.At {
		if limit := j.LimitAt(); limit != 0 && limit <= at {
			return false, Invalid("/run_at", "comes after "+limit.String()+", until when the job must have run")
		}
	}
	var changes []string
	if c.Priority != 0 && c.Priority != j.Priority {
		changes = append(changes, fmt.Sprintf("priority %d instead of %d", c.Priority, j.Priority))
		j.Priority, j.Place = c.Priority, Due
	}
	if c.Payload != nil && !bytes.Equal(c.Payload, j.Payload) {
		changes = append(changes, "another payload")
		j.Payload = c.Payload
	}
	if c.Tags != nil && !slices.Equal(c.Tags, j.Tags) {
		changes = append(changes, "other tags")
		j.Tags = slices.Clip(c.Tags)
	}
	var due Time
	if c.RunAt > c.At && c.RunAt != j.DueAt {
		due = c.RunAt
		changes = append(changes, "run_at "+c.RunAt.String())
		j.postpone(c.RunAt)
	}
	if len(changes) > 0 {
		j.remember(HistoryEntry{Kind: KindRevised, At: c.At, Text: strings.Join(changes, ", "), Due: due, Actor: c.Actor})
		j.touch(c.At)
	}
	now := c.RunAt != 0 && c.RunAt <= c.At && j.RunNow(c.At)
	if now {
		j.Sign(c.Actor)
	}
	return now || len(changes) > 0, nil
}

// postpone makes a job that waits start no sooner than at.
func (j *Job) postpone(at Time) {
	if j.Status == Pending {
		j.Status = Scheduled
	}
	j.Place, j.DueAt = Due, at
	if j.Terms != nil && j.Terms.RunAt != 0 {
		j.setRunAt(at)
	}
}

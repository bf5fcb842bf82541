package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Client makes jobs and waits for their ends. A node is one for its own process
// ([jobstream/cmd/node.Node]), a connection to a server is one for all others.
type Client interface {
	// Submit admits a job and returns it when it is on disk. The error for a submission
	// that is refused is an [*Error].
	Submit(ctx context.Context, s *Submission) (*Job, error)
	// Wait returns the job with this id when it has ended. When ctx ends or the server
	// stops before, it returns the job's present state. It is nil if there is none.
	Wait(ctx context.Context, id ID) (*Job, error)
}

// EndKind says how a job has ended without a result.
type EndKind string

// The ends without a result.
const (
	EndFailed    EndKind = "failed"    // its attempts are used up
	EndPermanent EndKind = "permanent" // its error was [Permanent]
	EndDeadline  EndKind = "deadline"  // its deadline came first
	EndCancelled EndKind = "cancelled" // somebody has cancelled it
	EndExpired   EndKind = "expired"   // it had not started in time
)

// JobError is the error of a job that has ended without a result. errors.As finds it in
// the error of [Definition.Wait].
type JobError struct {
	Kind     EndKind
	Attempts int    // that began
	Message  string // the error of the last attempt, or the reason why there was none
	Job      *Job   // as it ended; read only
}

func (e *JobError) Error() string {
	return fmt.Sprintf("job %s of type %s: %s after %d attempts: %s", e.Job.ID, e.Job.Type, e.Kind, e.Attempts, e.Message)
}

// Unwrap makes errors.Is find [ErrCancelled] and [ErrDeadline].
func (e *JobError) Unwrap() error {
	switch e.Kind {
	case EndCancelled:
		return ErrCancelled
	case EndDeadline:
		return ErrDeadline
	default:
		return nil
	}
}

// Err is nil if the job is completed, a [*JobError] if it has ended otherwise, and an
// error of another kind if it has not ended.
func (j *Job) Err() error {
	e := &JobError{Attempts: j.Attempt, Message: j.Error, Job: j}
	switch {
	case !j.Status.Ended():
		return fmt.Errorf("job %s has not ended, it is %s", j.ID, j.Status)
	case j.Status == Completed:
		return nil
	case j.Status == Cancelled && strings.HasPrefix(j.Error, ExpiredReason):
		e.Kind = EndExpired
	case j.Status == Cancelled:
		e.Kind = EndCancelled
	case j.Permanent:
		e.Kind = EndPermanent
	case strings.HasPrefix(j.Error, DeadlineReason):
		e.Kind = EndDeadline
	default:
		e.Kind = EndFailed
	}
	return e
}

// wait is [Client.Wait] that returns an ended job or an error.
func wait(ctx context.Context, c Client, id ID) (*Job, error) {
	j, err := c.Wait(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case j == nil:
		return nil, NoSuchJob(id.String())
	case j.Status.Ended():
		return j, nil
	case ctx.Err() != nil:
		return nil, errors.Join(context.Cause(ctx), j.Err())
	}
	return nil, &Error{Kind: ShuttingDown, Detail: "the server stops, and " + j.Err().Error()}
}

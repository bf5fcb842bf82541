package status

import (
	"context"

	"jobstream/jobs"
)

// Commands, given now by a test.

func (tr *tracker) Cancel(ctx context.Context, keys []uint64, reason string) ([]*jobs.Job, error) {
	e, err := tr.Do(ctx, jobs.Cancel{Stamp: jobs.By("test"), Keys: keys, Reason: reason})
	return e.Changed, err
}

func (tr *tracker) Retry(ctx context.Context, keys []uint64) ([]*jobs.Job, []jobs.Refusal, error) {
	e, err := tr.Do(ctx, jobs.Retry{Stamp: jobs.By("test"), Keys: keys})
	return e.Changed, e.Refused, err
}

func (tr *tracker) Delete(ctx context.Context, keys []uint64) (int, int64, error) {
	e, err := tr.Do(ctx, jobs.Delete{Stamp: jobs.By("test"), Keys: keys})
	return e.Removed, e.Freed, err
}

func (tr *tracker) SetPaused(ctx context.Context, typ string, paused bool) error {
	_, err := tr.Do(ctx, jobs.Pause{Stamp: jobs.By("test"), Type: typ, Paused: paused})
	return err
}

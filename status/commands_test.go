package status

import (
	"context"

	"jobstream/jobs"
)

// Commands, given by a test.

// by is the stamp of one: of now, unless the test has a clock of its own.
func (tr *tracker) by() jobs.Stamp {
	if tr.clock != nil {
		return jobs.Stamp{Actor: "test", At: tr.clock()}
	}
	return jobs.By("test")
}

func (tr *tracker) Cancel(ctx context.Context, keys []uint64, reason string) ([]*jobs.Job, error) {
	e, err := tr.Do(ctx, jobs.Cancel{Stamp: tr.by(), Keys: keys, Reason: reason})
	return e.Changed, err
}

func (tr *tracker) Retry(ctx context.Context, keys []uint64) ([]*jobs.Job, []jobs.Refusal, error) {
	e, err := tr.Do(ctx, jobs.Retry{Stamp: tr.by(), Keys: keys})
	return e.Changed, e.Refused, err
}

func (tr *tracker) Delete(ctx context.Context, keys []uint64) (int, int64, error) {
	e, err := tr.Do(ctx, jobs.Delete{Stamp: tr.by(), Keys: keys})
	return e.Removed, e.Freed, err
}

func (tr *tracker) SetPaused(ctx context.Context, typ string, paused bool) error {
	_, err := tr.Do(ctx, jobs.Pause{Stamp: tr.by(), Type: typ, Paused: paused})
	return err
}

func (tr *tracker) Reserve(ctx context.Context, b *jobs.Batch) ([]*jobs.Job, error) {
	e, err := tr.Do(ctx, jobs.Reserve{Stamp: tr.by(), Batch: b})
	return e.Known, err
}

func (tr *tracker) EndRebuild(ctx context.Context) error {
	_, err := tr.Do(ctx, jobs.EndRebuild{Stamp: tr.by()})
	return err
}

func (tr *tracker) Seed(ended ...*jobs.Job) error {
	_, err := tr.Prepare(jobs.Seed{Stamp: tr.by(), Ended: ended})
	return err
}

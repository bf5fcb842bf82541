package node

import (
	"context"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

// startSchedules stores the configuration's schedules, and begins to fire all
// schedules.
func (c *core) startSchedules(ctx context.Context) error {
	submit := c.Submitter.SubmitMessage
	runner := schedule.NewRunner(schedule.RunnerOptions{Store: c.Store, Submit: submit, Ended: c.hasEnded, Logger: c.log})
	c.Schedules = schedule.NewBook(schedule.BookOptions{
		Store: c.Store, Submit: submit, Check: c.checkSchedule, Changed: runner.Changed, Logger: c.log,
	})
	specs := make([]*schedule.Spec, len(c.o.Schedules))
	for i := range specs {
		specs[i] = &c.o.Schedules[i]
	}
	if err := c.Schedules.Adopt(ctx, specs); err != nil {
		return err
	}
	firing, cancel := context.WithCancel(c.loops.ctx)
	done := make(chan struct{})
	c.stopSchedules = func() { cancel(); <-done }
	c.loops.run("schedules", func(context.Context) error {
		defer close(done)
		return runner.Run(firing)
	})
	return nil
}

// checkSchedule returns an error if a schedule's jobs cannot be made.
func (c *core) checkSchedule(s *schedule.Spec) error {
	if t := c.o.registry.Lookup(s.Type); t != nil && t.Internal {
		return c.o.registry.Unknown(s.Type)
	}
	return c.o.registry.Check(s.Submission())
}

// hasEnded says whether a job has ended or is gone.
func (c *core) hasEnded(ctx context.Context, id jobs.ID) (bool, error) {
	j, err := c.Store.Job(ctx, id)
	return j == nil || j.Status.Ended(), err
}

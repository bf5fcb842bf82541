package node

import (
	"context"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

// startSchedules takes over the configuration's schedules and begins to fire all
// that there are.
func (n *Core) startSchedules(ctx context.Context) error {
	submit := n.Submitter.SubmitMessage
	runner := schedule.NewRunner(schedule.RunnerOptions{Store: n.Store, Submit: submit, Ended: n.hasEnded, Logger: n.log})
	n.Schedules = schedule.NewBook(schedule.BookOptions{
		Store: n.Store, Submit: submit, Check: n.checkSchedule, Changed: runner.Changed, Logger: n.log,
	})
	specs := make([]*schedule.Spec, len(n.o.Schedules))
	for i := range specs {
		specs[i] = &n.o.Schedules[i]
	}
	if err := n.Schedules.Adopt(ctx, specs); err != nil {
		return err
	}
	firing, cancel := context.WithCancel(n.loops.ctx)
	done := make(chan struct{})
	n.stopSchedules = func() { cancel(); <-done }
	n.loops.run("schedules", func(context.Context) error {
		defer close(done)
		return runner.Run(firing)
	})
	return nil
}

// checkSchedule says whether a schedule's jobs can be made.
func (n *Core) checkSchedule(s *schedule.Spec) error {
	if t := n.o.Registry.Lookup(s.Type); t != nil && t.Internal {
		return n.o.Registry.Unknown(s.Type)
	}
	return n.o.Registry.Check(&jobs.Submission{Type: s.Type, Payload: s.Payload})
}

// hasEnded says whether a job has ended, or is not there any more.
func (n *Core) hasEnded(ctx context.Context, id jobs.ID) (bool, error) {
	j, err := n.Store.Job(ctx, id)
	return j == nil || j.Status.Ended(), err
}

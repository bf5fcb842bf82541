package main

import (
	"context"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

// startSchedules takes over the configuration's schedules and begins to fire all
// that there are.
func (n *node) startSchedules(ctx context.Context) error {
	submit := n.submitter.SubmitMessage
	runner := schedule.NewRunner(schedule.RunnerOptions{Store: n.store, Submit: submit, Ended: n.hasEnded, Logger: n.log})
	n.schedules = schedule.NewBook(schedule.BookOptions{
		Store: n.store, Submit: submit, Check: n.checkSchedule, Changed: runner.Changed, Actor: "rest", Logger: n.log,
	})
	specs := make([]*schedule.Spec, len(n.o.schedules))
	for i := range specs {
		specs[i] = &n.o.schedules[i]
	}
	if err := n.schedules.Adopt(ctx, specs); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done, stop := make(chan struct{}), n.stopParts
	n.stopParts = func() { cancel(); stop() }
	n.stopSchedules = func() { cancel(); <-done }
	n.part("schedules", func() error {
		defer close(done)
		return runner.Run(ctx)
	})
	return nil
}

// checkSchedule says whether a schedule's jobs can be made.
func (n *node) checkSchedule(s *schedule.Spec) error {
	if t := n.o.registry.Lookup(s.Type); t != nil && t.Internal {
		return n.o.registry.Unknown(s.Type)
	}
	return n.o.registry.Check(&jobs.Submission{Type: s.Type, Payload: s.Payload})
}

// hasEnded says whether a job has ended, or is not there any more.
func (n *node) hasEnded(ctx context.Context, id jobs.ID) (bool, error) {
	j, err := n.store.Job(ctx, id)
	return j == nil || j.Status.Ended(), err
}

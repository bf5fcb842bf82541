package bench

import (
	"context"
	"fmt"

	"jobstream/jobs"
)

// waitingType is the type of the jobs that wait in the backlog phase.
const waitingType = "waiting"

// behindBacklog is the sustained phase while many jobs of another, paused type wait in
// the same queue. It is compared with the phase while none do.
func (b *bench) behindBacklog(ctx context.Context, dir string) (err error) {
	o := b.options
	o.QueueSize += b.c.Backlog
	o.Registry = jobs.NewRegistry(append(b.c.types(noop), &jobs.Type{Name: waitingType, Handler: noop})...)
	full := load{c: b.c, options: o, prepare: func(ctx context.Context, n *node) error {
		n.Pool.SetPaused(waitingType, true)
		c := *b.c
		c.Jobs, c.MaxTime = b.c.Backlog, max(c.MaxTime, patience)
		b.show(phaseBacklog+": making", c.Jobs, n.accepted.Load)
		accepted, err := n.submitTo(ctx, &c, []jobs.Lane{{Type: waitingType, Priority: jobs.DefaultPriority}})
		if err == nil && accepted != c.Jobs {
			err = fmt.Errorf("only %d jobs could be submitted within %v", accepted, c.MaxTime)
		}
		return err
	}}
	b.report.Behind, err = b.compare(ctx, dir, phaseBacklog, full, load{c: b.c, options: o})
	return err
}

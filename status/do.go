package status

import (
	"context"
	"fmt"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/replica"
	"jobstream/status/boltfile"
)

// task is a command on its way to the writer. A transaction between those of the batches
// does it. done gets the result after the commit. A task whose ctx has ended is not
// begun.
type task struct {
	ctx     context.Context //nolint:containedctx // a task is a call that waits in a queue
	command jobs.Command
	done    chan answer
}

// answer is the result of a command.
type answer struct {
	effect jobs.Effect
	err    error
}

// runTasks does commands in one transaction and answers each. If the transaction fails,
// each command is tried by itself. done says that all were committed.
func (p *Projector) runTasks(tasks []*task, publish func(*jobs.Commit)) (done bool) {
	answers, c, err := p.doAll(tasks, p.input())
	if err != nil && len(tasks) > 1 {
		done = true
		for i := range tasks {
			done = p.runTasks(tasks[i:i+1], publish) && done
		}
		return done
	}
	if err != nil {
		p.log.Error("a command could not be committed", "command", fmt.Sprintf("%T", tasks[0].command), "error", err)
		tasks[0].done <- answer{err: unavailable(err)}
		return false
	}
	for i, t := range tasks {
		t.done <- answers[i]
	}
	publish(c)
	return true
}

// doAll is one transaction of commands. A command that fails with a [*jobs.Error] has
// changed nothing, and the others count. Any other error undoes all of them.
func (p *Projector) doAll(tasks []*task, in input) (answers []answer, c *jobs.Commit, err error) {
	answers = make([]answer, len(tasks))
	var f *fold
	err = p.change(func(tx *boltfile.Tx) (*jobs.Commit, error) {
		f = p.newFold(tx, 0, in)
		for i, t := range tasks {
			a := answer{err: t.ctx.Err()}
			if a.err == nil { // else nobody waits for it any more
				a.effect, a.err = f.do(t.command)
				if _, known := asRefusal(a.err); a.err != nil && !known {
					return nil, a.err
				}
			}
			answers[i] = a
		}
		return &f.out, f.finish()
	})
	if err != nil {
		p.bits.Reset()
		return nil, nil, err
	}
	return answers, p.committed(f.result(), f.began), nil
}

// taskLook is how often a waiting task checks the tracker's health.
const taskLook = 250 * time.Millisecond

// Do does a command on the writer, which must be running; see [jobs.Doer]. While the
// tracker cannot commit, Do fails with a [*jobs.Error] of kind Unavailable. A command
// that failed in this way is not begun later. The audit log has a command of a request, see
// [jobs.WithRequest].
func (p *Projector) Do(ctx context.Context, c jobs.Command) (e jobs.Effect, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := p.Health(); err != nil {
		return e, unavailable(err)
	}
	if _, follows := p.share.part(); follows {
		return e, unavailable(replica.ErrDeposed)
	}
	request := jobs.RequestOf(ctx)
	if request != nil && !request.Noted() {
		c = jobs.Audited{Command: c, Act: request.Act}
	}
	t := &task{ctx: ctx, command: c, done: make(chan answer, 1)}
	if !p.inbox.push(t) {
		return e, boltfile.ErrClosed
	}
	tick := time.NewTicker(taskLook)
	defer tick.Stop()
	for {
		select {
		case a := <-t.done:
			if a.effect.Noted {
				request.SetNoted()
			}
			return a.effect, a.err
		case <-ctx.Done():
			return e, ctx.Err()
		case <-tick.C:
			if err := p.Health(); err != nil {
				return e, unavailable(err)
			}
		}
	}
}

// Prepare does a command before Run is called. Nothing is published.
func (p *Projector) Prepare(c jobs.Command) (jobs.Effect, error) {
	answers, _, err := p.doAll([]*task{{ctx: context.Background(), command: c}}, p.input())
	if err != nil {
		return jobs.Effect{}, err
	}
	return answers[0].effect, answers[0].err
}

func unavailable(err error) *jobs.Error {
	return &jobs.Error{Kind: jobs.Unavailable, Detail: err.Error(), RetryAfter: time.Second}
}

package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// A stream that failed to write once, for want of space, of a file descriptor or of a
// permission, never writes again. When it could, the core is broken off as by a crash,
// and another one is started as after a crash. The node goes on: REST answers 503
// meanwhile, handlers are interrupted as at a stop, and the port for NATS clients stays
// the same.

// The pause before another core is broken off, and between tries to start one, doubles
// up to longPause. A core that has worked for wellAfter resets it.
const (
	longPause = time.Minute
	wellAfter = 5 * time.Minute
)

// longestEnd is how long a stuck core may take to end. A second is usual. More than all
// bounded waits of [core.end] together means that nats-server has locked itself up.
const longestEnd = time.Minute

// errStays says that a stuck core does not end, so that no other can be started.
var errStays = errors.New("the stuck broker does not end, so that none can be started in its place; start the server again: no accepted job is lost")

// errCutOff says that the node was closed between two cores.
var errCutOff = errors.New("stopped while the broker was being started anew; the next start recovers what was under way")

// errHealing says that there is no core.
func errHealing() *jobs.Error {
	return &jobs.Error{Kind: jobs.Unavailable, Detail: "the broker is being started anew; try again in a moment", RetryAfter: time.Second}
}

// healer spaces new starts.
type healer struct {
	first   time.Duration   // the shortest pause
	longest time.Duration   // how long a stuck core may take to end
	ended   <-chan struct{} // closed when the last stuck core has ended
	last    time.Time       // when a start succeeded
	pause   time.Duration
}

// next is the pause before the next start.
func (h *healer) next(now time.Time) time.Duration {
	if h.last.IsZero() || now.Sub(h.last) >= wellAfter {
		h.pause = 0
		return 0
	}
	h.pause = min(max(2*h.pause, h.first), longPause)
	return h.pause
}

// heal replaces the stuck core by another one. It returns an error only if the node
// must end: ctx has ended, or another try is useless.
func (n *Node) heal(ctx context.Context, why error) error {
	if !sleep(ctx, n.healer.next(time.Now())) {
		return errCutOff
	}
	begun := time.Now()
	n.log.Warn("the folder can be written to again, so the broker is started anew; running jobs go back to the queue", "was", why)
	n.rest.Away(errHealing())
	n.changing.Lock()
	workers := n.core.Load().Pool.Workers()
	n.paused = workers.Paused
	n.healer.ended = n.down(why)
	n.changing.Unlock()
	select {
	case <-n.healer.ended: // whatever ctx does
	case <-time.After(n.healer.longest):
		return errStays
	}
	for pause := n.healer.first; ; pause = min(2*pause, longPause) {
		err := n.upAgain(ctx, &workers)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return errCutOff
		}
		if errors.Is(err, boltfile.ErrDamaged) || errors.Is(err, boltfile.ErrLocked) {
			return fmt.Errorf("the broker was being started anew: %w", err)
		}
		n.log.Error("the broker could not be started anew; trying again", "in", pause, "error", err)
		if !sleep(ctx, pause) {
			return errCutOff
		}
	}
	n.healer.last = time.Now()
	n.log.Info("healed: jobs are taken and run again", "times", n.lives-1, "took", time.Since(begun).Round(time.Millisecond))
	return nil
}

// upAgain is up with the bounds of workers that the last core had.
func (n *Node) upAgain(ctx context.Context, workers *jobs.Workers) error {
	n.changing.Lock()
	defer n.changing.Unlock()
	if err := n.up(ctx); err != nil {
		return err
	}
	resize := jobs.Resize{MaxWorkers: &workers.Max, MinWorkers: &workers.Min, Types: make(map[string]int)}
	for name, t := range workers.Types {
		resize.Types[name] = t.Max
	}
	if err := n.core.Load().Pool.Resize(&resize); err != nil {
		n.log.Warn("the number of workers is that of the configuration again", "error", err)
	}
	return nil
}

// sleep waits for d; false if ctx ends before that.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

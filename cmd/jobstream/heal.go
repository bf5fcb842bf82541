package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// A stream that could not write once, for want of space, of a file descriptor or of a
// permission, never writes again. When it could, the node is broken off as by a crash,
// and another one made by what a start after a crash does. The process goes on: REST
// answers 503 meanwhile, handlers are interrupted as at a stop, and the port for NATS
// clients is the same afterwards.

// The pause before a node is broken off again, and between the tries to start another
// one: it doubles from the first to the long one, and whoever has been well for long
// enough begins anew.
const (
	longPause = time.Minute
	wellAfter = 5 * time.Minute
)

// firstPause is a variable, so that tests need not wait.
var firstPause = time.Second

// errCutOff says that the server has ended between two nodes.
var errCutOff = errors.New("stopped while the broker was being started anew; the next start recovers what was under way")

// healer keeps new starts apart.
type healer struct {
	last  time.Time // when one succeeded
	pause time.Duration
}

// next is how long the next one has to wait.
func (h *healer) next(now time.Time) time.Duration {
	if h.last.IsZero() || now.Sub(h.last) >= wellAfter {
		h.pause = 0
		return 0
	}
	h.pause = min(max(2*h.pause, firstPause), longPause)
	return h.pause
}

// healing runs heal until it is done or the server is to end.
func (s *server) healing(ctx context.Context, why error) (over bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	healed := make(chan error, 1)
	go func() { healed <- s.heal(ctx, why) }()
	select {
	case err = <-healed:
		return err != nil, err
	case <-s.signals:
		cancel()
	case <-ctx.Done():
	}
	select {
	case err = <-healed:
	case <-s.signals: // it may be in the middle of reading a large folder
		return true, errSecondSignal
	}
	if s.node == nil {
		return true, err
	}
	return true, nil
}

// heal puts another node in the place of the one that is stuck. It returns an error only
// if the server must end: ctx has, or it is of no use to go on trying.
func (s *server) heal(ctx context.Context, why error) error {
	if !sleep(ctx, s.healer.next(time.Now())) {
		return errCutOff
	}
	begun := time.Now()
	s.log.Warn("the folder can be written to again, so the broker is started anew; running jobs go back to the queue", "was", why)
	s.rest.Away(&jobs.Error{Kind: jobs.Unavailable, Detail: "the broker is being started anew; try again in a moment", RetryAfter: time.Second})
	workers := s.node.Pool.Workers()
	s.down(why) //nolint:contextcheck // it is brought to its end, whatever ctx does
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := s.up(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return errCutOff
		}
		if errors.Is(err, boltfile.ErrDamaged) || errors.Is(err, boltfile.ErrLocked) {
			return fmt.Errorf("the broker was being started anew: %w", err)
		}
		s.log.Error("the broker could not be started anew; trying again", "in", pause, "error", err)
		if !sleep(ctx, pause) {
			return errCutOff
		}
	}
	resize := jobs.Resize{MaxWorkers: &workers.Max, MinWorkers: &workers.Min, Types: make(map[string]int)}
	for name, t := range workers.Types {
		resize.Types[name] = t.Max
	}
	if err := s.node.Pool.Resize(&resize); err != nil {
		s.log.Warn("the number of workers is that of the configuration again", "error", err)
	}
	s.healer.last = time.Now()
	s.log.Info("healed: jobs are taken and run again", "times", s.lives.Load()-1, "took", time.Since(begun).Round(time.Millisecond))
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

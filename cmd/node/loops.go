package node

import (
	"context"
	"fmt"
	"sync"
)

// loops are the goroutines of a core, one for each part that always has work. The first
// that breaks ends the core.
type loops struct {
	ctx    context.Context // ends when all have to
	cancel context.CancelFunc
	all    sync.WaitGroup
	broken chan error // the error of the first that broke
}

func newLoops() *loops {
	l := &loops{broken: make(chan error, 1)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// run runs one of them until end is called.
func (l *loops) run(part string, loop func(context.Context) error) {
	l.all.Go(func() {
		if err := loop(l.ctx); err != nil {
			select {
			case l.broken <- fmt.Errorf("%s: %w", part, err):
			default:
			}
		}
	})
}

// end ends all of them, and waits.
func (l *loops) end() {
	l.cancel()
	l.all.Wait()
}

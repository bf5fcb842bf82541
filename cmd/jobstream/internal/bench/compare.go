package bench

import (
	"cmp"
	"context"
	"path/filepath"
	"time"
)

// compareTurns is the number of turns of each node in a comparison. The load of the
// machine changes within seconds, so two long runs would compare the load, not the
// nodes.
const compareTurns = 4

// load is a node and its work.
type load struct {
	c       *Options
	options NodeOptions
	dir     string                             // of the node; "" = a new one
	prepare func(context.Context, *node) error // called before the measurement; may be nil
}

// compare measures a load beside another one, each on a node of its own. The nodes take
// turns: the other, this, this, the other, and so on. Between the turns nothing is
// measured, and each node cleans up after itself.
func (b *bench) compare(ctx context.Context, dir, name string, this, other load) (*Comparison, error) {
	var c *Comparison
	err := b.withLoad(ctx, cmp.Or(other.dir, filepath.Join(dir, "other")), other, func(n *node) error {
		return b.withLoad(ctx, cmp.Or(this.dir, filepath.Join(dir, "this")), this, func(m *node) (err error) {
			c, err = takeTurns(ctx, name, b.turnsOf(m, this.c), b.turnsOf(n, other.c))
			return err
		})
	})
	return c, err
}

func (b *bench) withLoad(ctx context.Context, dir string, l load, f func(*node) error) error {
	return b.withNode(ctx, dir, l.options, func(n *node) error {
		if l.prepare != nil {
			if err := l.prepare(ctx, n); err != nil {
				return err
			}
		}
		return f(n)
	})
}

// turns are the turns of one side, and their results so far.
type turns struct {
	c    *Options
	turn func(ctx context.Context, name string, c *Options) (*Throughput, error)
	sum  Throughput
}

// turnsOf are the turns of a node.
func (b *bench) turnsOf(n *node, c *Options) turns { return b.turnsBy(n, c, n.submit) }

// turnsBy are the turns of a node whose jobs come in by submit.
func (b *bench) turnsBy(n *node, c *Options, submit func(context.Context, *Options) (int, error)) turns {
	return turns{c: c, turn: func(ctx context.Context, name string, c *Options) (*Throughput, error) {
		if err := n.begin(ctx); err != nil {
			return nil, err
		}
		t, err := b.endToEnd(ctx, n, c, name, submit)
		if err != nil {
			return nil, err
		}
		// Its messages are trimmed now, and not during the other one's turn.
		return t, n.Tail.Sweep(ctx)
	}}
}

func takeTurns(ctx context.Context, name string, this, other turns) (*Comparison, error) {
	for i := range 2 * compareTurns {
		turn, what := &other, name+": yardstick"
		if i%4 == 1 || i%4 == 2 {
			turn, what = &this, name
		}
		c := *turn.c
		c.Jobs = share(c.Jobs, i/2)
		c.MaxTime = max(c.MaxTime/(2*compareTurns), time.Millisecond)
		if c.Jobs == 0 {
			continue // fewer jobs than turns
		}
		t, err := turn.turn(ctx, what, &c)
		if err != nil {
			return nil, err
		}
		turn.sum.add(t)
	}
	c := &Comparison{Throughput: this.sum, Beside: other.sum}
	if other.sum.Jobs > 0 {
		c.Ratio = this.sum.PerSecond / other.sum.PerSecond
	}
	return c, nil
}

// share is a turn's part of all jobs.
func share(all, turn int) int {
	return all*(turn+1)/compareTurns - all*turn/compareTurns
}

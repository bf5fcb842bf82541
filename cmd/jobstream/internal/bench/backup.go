package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

// Backups is the throughput while backups are made one after the other, and without.
type Backups struct {
	Comparison
	Made  int   `json:"made"`  // backups that came to their end
	Bytes int64 `json:"bytes"` // of all of them
	Rate  int   `json:"rate"`  // MiB in a second that their reader takes at most
}

// backups is the sustained phase while somebody takes one backup after the other, verified
// as they come. It is compared with the phase while nobody does. Both trackers know the
// finished jobs of --history.
func (b *bench) backups(ctx context.Context, dir string) error {
	o := load{c: b.c, options: b.options}
	out := &Backups{Rate: b.c.BackupRate}
	this, other := filepath.Join(dir, "this"), filepath.Join(dir, "other")
	for _, past := range []string{this, other} {
		if b.c.History == 0 {
			break
		}
		if err := errors.Join(b.remember(ctx, past), b.server.SyncFolder(past)); err != nil {
			return err
		}
	}
	err := b.withLoad(ctx, other, o, func(n *node) error {
		return b.withLoad(ctx, this, o, func(m *node) error {
			this := b.turnsOf(m, b.c)
			turn := this.turn
			this.turn = func(ctx context.Context, name string, c *Options) (*Throughput, error) {
				end := out.take(ctx, m, b.c.BackupRate)
				t, err := turn(ctx, name, c)
				return t, errors.Join(err, end())
			}
			c, err := takeTurns(ctx, phaseBackup, this, b.turnsOf(n, b.c))
			if err == nil {
				out.Comparison = *c
			}
			return err
		})
	})
	b.report.Backups = out
	return err
}

// take makes backups until end is called.
func (b *Backups) take(ctx context.Context, n *node, rate int) (end func() error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		for {
			size, err := n.Backup(ctx, rate)
			if ctx.Err() != nil {
				done <- nil
				return
			}
			if err != nil {
				done <- fmt.Errorf("a backup: %w", err)
				return
			}
			b.Made++
			b.Bytes += size
		}
	}()
	return func() error { cancel(); return <-done }
}

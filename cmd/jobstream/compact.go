package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"jobstream/cmd/node"
	"jobstream/status/boltfile"
)

type compactCommand struct{ configFlag }

// Run frees the space of deleted records.
func (c *compactCommand) Run(p *program) error {
	cfg, err := loadConfig(p, c.File)
	if err != nil {
		return err
	}
	path := node.FoldersIn(cfg.Data.Dir).Tracker
	log, _ := newLogger(cfg.Log, p.Stderr)
	before, after, err := boltfile.Compact(path, time.Second, log)
	switch {
	case errors.Is(err, boltfile.ErrLocked):
		return fmt.Errorf("%w Stop it first", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no tracker at %s (data.dir)", path)
	case err != nil:
		return err
	}
	const mib = 1 << 20
	_, err = fmt.Fprintf(p.Stdout, "%s: %.1f MiB, was %.1f MiB\n", path, float64(after)/mib, float64(before)/mib)
	return err
}

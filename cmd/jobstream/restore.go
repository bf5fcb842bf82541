package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/jobstream/internal/terminal"
	"jobstream/cmd/node"
	"jobstream/cmd/node/archive"
	"jobstream/jobs/handlers"
)

type restoreCommand struct {
	configFlag
	Data *string `placeholder:"DIR" help:"The folder to restore into, which must be empty (default: data.dir)."`
	From string  `arg:"" name:"file" help:"The backup; - is the standard input."`
}

// Run restores a backup: everything, or nothing.
func (c *restoreCommand) Run(p *program) error {
	dir, err := c.dir(p)
	if err != nil {
		return err
	}
	from := io.ReadCloser(os.Stdin)
	if c.From != "-" {
		if from, err = os.Open(c.From); err != nil {
			return fmt.Errorf("the backup cannot be read: %w", err)
		}
		defer func() { _ = from.Close() }() // opened for reading only
	}
	ctx, stop := signal.NotifyContext(p.Ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	bar := terminal.On(p.Stderr)
	defer bar.End()
	shown := bar.Reading("restore", from)
	got, err := node.Restore(ctx, shown, dir, sized(shown), commandLog(p.Stderr))
	bar.End()
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("interrupted; nothing was restored into %s", dir)
	case errors.Is(err, archive.ErrBroken), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("nothing was restored into %s: %s: %w", dir, c.From, err)
	case err != nil:
		return fmt.Errorf("nothing was restored: %w", err)
	}
	_, err = fmt.Fprintf(p.Stdout, "%s: %d files, %s, verified; as the server was at %s. Start it on this folder, and never beside the one that the backup is of\n",
		dir, got.Files, terminal.Bytes(got.Bytes), got.At.Format(time.RFC3339))
	return err
}

// dir is the folder to restore into.
func (c *restoreCommand) dir(p *program) (string, error) {
	if c.Data != nil {
		return *c.Data, nil
	}
	at, err := config.Running(c.File, handlers.Kinds(), p.Environ)
	if err != nil {
		return "", &usageError{Err: err}
	}
	return at.Dir, nil
}

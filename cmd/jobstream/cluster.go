package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"jobstream/cmd/jobstream/internal/cli"
	"jobstream/cmd/node"
	"jobstream/status/boltfile"
)

type clusterCommand struct {
	Status cli.ClusterStatusCommand `cmd:"" default:"withargs" help:"List the nodes of the cluster, and how they are doing (the default)."`
	Remove cli.ClusterRemoveCommand `cmd:"" help:"Remove a stopped node from the cluster, for ever."`
	Leave  leaveCommand             `cmd:"" help:"Make the data folder of a member that does not run that of a server that is alone."`
}

type leaveCommand struct {
	Data  string `default:"data" placeholder:"DIR" help:"The data folder (default: ${default})."`
	Lossy bool   `help:"Leave although files of jobs are missing."`
}

// Run makes a server that is alone of a member that does not run.
func (c *leaveCommand) Run(p *program) error {
	ctx, stop := signal.NotifyContext(p.Ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	aside, err := node.Leave(ctx, c.Data, c.Lossy, slog.New(slog.DiscardHandler))
	switch {
	case errors.Is(err, boltfile.ErrLocked):
		return fmt.Errorf("%w Stop it first", err)
	case errors.Is(err, node.ErrFilesMissing):
		return fmt.Errorf("%w. Nothing is changed. Another member may have them; --lossy leaves without", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no tracker in %s (--data), so nothing to leave with: %w", c.Data, err)
	case err != nil:
		return err
	}
	if _, err := fmt.Fprintf(p.Stdout, "%s belongs to no cluster any more; start jobstream on it without broker.cluster\n", c.Data); err != nil || aside == "" {
		return err
	}
	_, err = fmt.Fprintf(p.Stdout, "the streams of the cluster are in %s now; nothing needs them\n", aside)
	return err
}

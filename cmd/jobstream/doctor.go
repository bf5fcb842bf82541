package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"jobstream/cmd/jobstream/internal/cli"
	"jobstream/cmd/jobstream/internal/terminal"
	"jobstream/cmd/node"
	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/status/boltfile"
)

type doctorCommand struct {
	cli.ServerFlags
	cli.OutputFlag
	Data   *string `placeholder:"DIR" help:"Inspect the data folder of a server that does not run, instead of asking one that runs."`
	Repair bool    `help:"Mend what can be mended without a loss; needs --data."`
}

// Exit codes of the doctor, besides those of all commands.
const (
	exitWarnings = 3
	exitFindings = 4
)

// Run inspects a server or a folder, and prints each finding.
func (c *doctorCommand) Run(p *program) error {
	if c.Repair && c.Data == nil {
		return &usageError{Err: errors.New("--repair needs the folder of a stopped server: stop it, and name the folder with --data")}
	}
	ctx, stop := signal.NotifyContext(p.Ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	bar, begun := terminal.On(p.Stderr), time.Now()
	defer bar.End()
	bar.Show(func() string { return fmt.Sprintf("inspecting, %.0f s", time.Since(begun).Seconds()) })
	seen, err := c.inspect(ctx, p)
	bar.End()
	if err != nil {
		return err
	}
	if err := c.print(p, seen); err != nil {
		return err
	}
	left := seen.Findings
	if c.Repair { // what was repaired is no problem any more
		left = slices.DeleteFunc(slices.Clone(left), func(f jobs.Finding) bool { return f.Repairs })
	}
	switch jobs.Worst(left) {
	case jobs.Broken:
		return exitCode(exitFindings)
	case jobs.Warning:
		return exitCode(exitWarnings)
	}
	return nil
}

func (c *doctorCommand) inspect(ctx context.Context, p *program) (*api.Inspection, error) {
	if c.Data != nil {
		return c.inspectFolder(ctx, p)
	}
	answer, err := c.Whole(ctx, p, "/doctor")
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Close() }() // all of it has been read
	seen := &api.Inspection{}
	if err := json.NewDecoder(answer).Decode(seen); err != nil {
		return nil, fmt.Errorf("that is no server of this version: %w", err)
	}
	return seen, nil
}

func (c *doctorCommand) inspectFolder(ctx context.Context, p *program) (*api.Inspection, error) {
	o := node.DoctorOptions{Dir: *c.Data, Repair: c.Repair, Logger: commandLog(p.Stderr)}
	further, err := c.configured(p, &o)
	if err != nil {
		return nil, err
	}
	found, err := node.Doctor(ctx, o)
	switch {
	case errors.Is(err, boltfile.ErrLocked):
		return nil, fmt.Errorf("%w Leave --data out to inspect the running server", err)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no tracker in %s (--data): %w", *c.Data, err)
	case errors.Is(err, boltfile.ErrDamaged):
		found = append(found, jobs.Finding{
			Check: "tracker.file", Severity: jobs.Broken, Text: err.Error(),
			Do: "restore a backup; or move status.db away, so that the next start rebuilds it from what the streams still hold",
		})
	case err != nil:
		return nil, err
	}
	return api.NewInspection(append(found, further...)), nil
}

// configured takes from the configuration what the folder is compared with. One that is
// wrong is a finding.
func (c *doctorCommand) configured(p *program, o *node.DoctorOptions) (found []jobs.Finding, err error) {
	cfg, err := loadConfig(p, c.File)
	if err != nil {
		if c.File != "" {
			return nil, err
		}
		return []jobs.Finding{{
			Check: "config", Severity: jobs.Broken, Text: strings.ReplaceAll(err.Error(), "\n", "; "), Do: "correct it, or name another file with --config",
		}}, nil
	}
	o.MinFree = cfg.Data.MinFree
	o.Types = append(slices.Sorted(maps.Keys(cfg.Jobs)), api.BulkType, jobs.CallbackType)
	if files, known := fileLimit(); known {
		if _, err := connsAllowed(fewConns, cfg.Worker.MaxWorkers, files); err != nil {
			found = append(found, jobs.Finding{Check: "descriptors", Severity: jobs.Broken, Text: err.Error(), Do: "raise the limit where the server runs"})
		}
	}
	return found, nil
}

// print prints a line for each finding.
func (c *doctorCommand) print(p *program, seen *api.Inspection) error {
	w := p.Stdout
	if c.JSON(p) {
		_, err := w.Write(append(seen.AppendJSON(nil), '\n'))
		return err
	}
	if len(seen.Findings) == 0 {
		_, err := fmt.Fprintln(w, "all is well")
		return err
	}
	for _, f := range seen.Findings {
		do := f.Do
		if c.Repair && f.Repairs {
			do = "repaired"
		}
		if _, err := fmt.Fprintf(w, "%-7s  %s: %s; %s\n", f.Severity, f.Check, f.Text, do); err != nil {
			return err
		}
	}
	return nil
}

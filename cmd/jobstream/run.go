package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/alecthomas/kong"

	"jobstream/cmd/jobstream/internal/cli"
	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs/handlers"
)

// Exit codes.
const (
	exitOK     = 0
	exitBroken = 1 // a failure at run time
	exitUsage  = 2 // the command line or the configuration is wrong
	exitFailed = 3 // the job for which a command has waited did not complete
)

// commands is the command line.
type commands struct {
	Serve   serveCommand   `cmd:"" default:"withargs" help:"Serve jobs (the default)."`
	Config  configCommand  `cmd:"" help:"Print the effective configuration as YAML, secrets masked."`
	Bench   benchCommand   `cmd:"" help:"Measure throughput and latency on this machine, in a temporary folder."`
	Compact compactCommand `cmd:"" help:"Give back the disk space of deleted records, while no server runs."`
	Backup  backupCommand  `cmd:"" help:"Copy everything that a server keeps into one file, while it runs or not."`
	Restore restoreCommand `cmd:"" help:"Put a backup into an empty folder, for a server to start on."`
	Doctor  doctorCommand  `cmd:"" help:"Look for what is wrong with a server or its data folder, and mend it."`
	Cluster clusterCommand `cmd:"" help:"Show the nodes of a cluster, or let one leave."`
	Token   tokenCommand   `cmd:"" help:"Make tokens for whoever uses the server."`
	Version versionCommand `cmd:"" help:"Print versions."`
	cli.Commands

	Help helpCommand `cmd:"" help:"Say what a command does."`

	ShowVersion versionFlag `name:"version" help:"Print versions."`
}

// program is the environment of a command.
type program = cli.Program

// usageError is an error of the command line or the configuration.
type usageError = cli.UsageError

// exitCode ends a command that has said everything with a code of its own.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) (code int) {
	exited := false
	parser, err := kong.New(&commands{}, kong.Name("jobstream"),
		kong.Description("A background-job server in one binary. Without a command it serves."),
		kong.Writers(stdout, stderr), kong.Exit(func(int) { exited = true }), kong.UsageOnError())
	if err != nil {
		panic(err) // the commands struct is wrong
	}
	if len(args) > 0 && args[0] == "help" {
		args = append(slices.Clone(args[1:]), "--help")
	}
	parsed, err := parser.Parse(args)
	if exited { // --help or --version has been printed
		return exitOK
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, mistake(err))
		return exitUsage
	}
	err = parsed.Run(&program{Ctx: ctx, Environ: environ, Stdin: os.Stdin, Stdout: stdout, Stderr: stderr, Model: parser.Model})
	var usage *usageError
	var refused *cli.RefusedError
	var failed *cli.JobError
	var exit exitCode
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &failed):
		_, _ = fmt.Fprintln(stderr, failed)
		return exitFailed
	case errors.As(err, &refused) && refused.Wrong():
		_, _ = fmt.Fprintln(stderr, refused)
		return exitUsage
	case errors.As(err, &usage):
		_, _ = fmt.Fprintln(stderr, usage.Err)
		return exitUsage
	}
	_, _ = fmt.Fprintf(stderr, "jobstream: %v\n", err)
	return exitBroken
}

// loadConfig reads the configuration of a command.
func loadConfig(p *program, file string, flags ...config.Flag) (*config.Config, error) {
	c, err := config.Load(file, handlers.Kinds(), p.Environ, flags...)
	if err != nil {
		return nil, &usageError{Err: err}
	}
	return c, nil
}

// configFlag is the flag of the commands that read the configuration.
type configFlag = cli.ConfigFlag

// helpCommand makes the list of commands complete; run turns it into the flag.
type helpCommand struct {
	Command []string `arg:"" optional:"" help:"The command; all of them if left out."`
}

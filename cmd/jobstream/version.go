package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

type versionCommand struct{}

// Run prints versions.
func (versionCommand) Run(p *program) error { return printVersions(p.Stdout) }

// versionFlag is --version, which every command accepts.
type versionFlag bool

// BeforeReset prints versions and ends the program, whatever the rest of the command
// line.
func (versionFlag) BeforeReset(app *kong.Kong) error {
	defer app.Exit(exitOK)
	return printVersions(app.Stdout)
}

func printVersions(w io.Writer) error {
	version, commit, nats := versions()
	_, err := fmt.Fprintf(w, "jobstream %s (commit %s)\n%s %s/%s\nnats-server %s\n", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH, nats)
	return err
}

// versions are those from which this binary was built.
func versions() (version, commit, nats string) {
	version, commit, nats = "devel", "unknown", "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, commit, nats
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = s.Value
		}
	}
	for _, d := range info.Deps {
		if d.Path == "github.com/nats-io/nats-server/v2" {
			nats = d.Version
		}
	}
	return version, commit, nats
}

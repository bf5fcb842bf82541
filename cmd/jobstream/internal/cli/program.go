package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/alecthomas/kong"
)

// Program is the environment of a command.
type Program struct {
	Ctx            context.Context
	Environ        []string // NAME=VALUE
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Model          *kong.Application // the command line, for completions
}

// UsageError is an error of the command line or the configuration.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef makes a [UsageError] as [fmt.Errorf] makes an error.
func Usagef(format string, args ...any) *UsageError {
	return &UsageError{fmt.Errorf(format, args...)}
}

// ConfigFlag is the flag of the commands that read the configuration.
type ConfigFlag struct {
	File string `name:"config" short:"c" placeholder:"FILE" help:"Configuration file (default: ./config.yaml if there is one)."`
}

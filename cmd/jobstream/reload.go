package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"reflect"
	"strings"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/setting"
)

// rereader reads the configuration of a running server again. Its types are taken up;
// everything else stays as it was at the start.
type rereader struct {
	started *config.Config
	load    func(further ...config.Flag) (*config.Config, error)
	types   *typeMaker
	log     *slog.Logger
}

// read is the node's [node.Options.Reread].
func (r *rereader) read() (node.Reread, error) {
	next, err := r.load()
	if err != nil {
		return node.Reread{}, refusal(err)
	}
	restart := r.started.NeedsRestart(next)
	if before := r.started.Worker.JobTimeout; next.Worker.JobTimeout != before {
		// Types without a timeout of their own keep that of this server.
		next, err = r.load(config.Flag{Name: "the running server", Key: "worker.job_timeout", Value: setting.FormatDuration(before)})
		if err != nil {
			return node.Reread{}, refusal(err)
		}
	}
	before := r.types.configured()
	types, err := r.types.make(next)
	if err != nil {
		return node.Reread{}, refusal(err)
	}
	for name, t := range before {
		if reflect.DeepEqual(next.Jobs[name], t) {
			delete(next.Jobs, name) // it has been warned of
		}
	}
	warnOfPrograms(next, r.log)
	return node.Reread{Types: types, NeedsRestart: restart}, nil
}

// refusal names all problems of a configuration.
func refusal(err error) *jobs.Error {
	var problems config.Problems
	if !errors.As(err, &problems) {
		return &jobs.Error{Kind: jobs.InvalidRequest, Detail: err.Error()}
	}
	var fields []jobs.FieldError
	for _, p := range problems {
		at := "config/" + p.Key
		if p.Key == "" {
			at = "environment/" + p.Env
		}
		fields = append(fields, jobs.FieldError{Pointer: at, Detail: p.String()})
	}
	e := jobs.InvalidFields(fields...)
	if e.Detail = "the configuration has a problem; nothing has changed"; len(problems) > 1 {
		e.Detail = fmt.Sprintf("the configuration has %d problems; nothing has changed", len(problems))
	}
	return e
}

// configFile returns an error if there is no configuration file to read again. Without
// one the shipped types would replace all others.
func configFile(name string) error {
	if name != "" {
		return nil // a missing one is an error anyway
	}
	if _, err := os.Stat(config.DefaultFile); errors.Is(err, fs.ErrNotExist) {
		dir, _ := os.Getwd() // the message does without it
		return fmt.Errorf("there is no configuration file: the server was started without --config, and there is no %s in its working directory %s", config.DefaultFile, dir)
	}
	return nil
}

type reloadCommand struct{ clientFlags }

// Run asks a running server to take up the jobs section of its configuration, and prints
// what has changed.
func (c *reloadCommand) Run(p *program) error {
	ctx, cancel := context.WithTimeout(p.ctx, clientTimeout)
	defer cancel()
	answer, err := c.do(ctx, p, http.MethodPost, "/reload")
	if err != nil {
		return err
	}
	if answer.code != http.StatusOK {
		return failed(answer)
	}
	var done api.Reloaded
	if err := json.Unmarshal(answer.body, &done); err != nil {
		return fmt.Errorf("that is no server of this version: %w", err)
	}
	return printReload(p.stdout, &done)
}

// failed is the error that a server has answered with. One in the configuration
// is a [*usageError] with a line for each problem.
func failed(answer *answered) error {
	var p struct {
		Detail string            `json:"detail"`
		Errors []jobs.FieldError `json:"errors"`
	}
	if json.Unmarshal(answer.body, &p) != nil || p.Detail == "" {
		return fmt.Errorf("the server answers %s", answer.status)
	}
	switch answer.code {
	case http.StatusUnprocessableEntity:
	case http.StatusUnauthorized, http.StatusForbidden:
		return errors.New(p.Detail + "\nGive a token with --token, or run this where the server runs, with its --config, as a user who may read its data folder.")
	default:
		return errors.New(p.Detail)
	}
	lines := []string{p.Detail}
	for _, e := range p.Errors {
		lines = append(lines, e.Detail)
	}
	return &usageError{errors.New(strings.Join(lines, "\n"))}
}

// printReload says what has changed, a line for each kind of change.
func printReload(w io.Writer, r *api.Reloaded) error {
	var out strings.Builder
	line := func(what string, names []string) {
		if len(names) > 0 {
			out.WriteString(what + ": " + strings.Join(names, ", ") + "\n")
		}
	}
	line("added", r.Added)
	line("changed", r.Changed)
	line("removed", r.Removed)
	if out.Len() == 0 {
		out.WriteString("no job type has changed\n")
	}
	line("needs a restart", r.NeedsRestart)
	_, err := io.WriteString(w, out.String())
	return err
}

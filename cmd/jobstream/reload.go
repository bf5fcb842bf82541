package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"reflect"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/jobs"
	"jobstream/jobs/setting"
)

// rereader reads the configuration of a running server again. Its types and the level of
// the log are taken up; everything else stays as it was at the start.
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
	return node.Reread{Types: types, LogLevel: levelOf(next.Log), NeedsRestart: restart}, nil
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

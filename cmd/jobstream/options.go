package main

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/jobs"
	"jobstream/jobs/handlers"
	"jobstream/jobs/handlers/email"
	"jobstream/jobs/handlers/exec"
	"jobstream/jobs/schedule"
)

// nodeOptions are the options of the configured node.
func nodeOptions(c *config.Config, log *slog.Logger) (o node.Options, err error) {
	maxConns, err := conns(c.Server.MaxConnections, c.Worker.MaxWorkers, log)
	if err != nil {
		return o, err
	}
	dirs, tracker, requester := node.FoldersIn(c.Data.Dir), &node.Tracker{}, &node.Requester{}
	files := jobs.NewArtifactDir(dirs.Artifacts, c.Artifacts.MaxBytes)
	tools := handlerServer(c, dirs, tracker, files)
	tools.Requests = requester
	types, err := makeTypes(c, tools)
	if err != nil {
		return o, err
	}
	if err := checkSchedules(jobs.NewRegistry(types...), c.Schedules); err != nil {
		return o, err
	}
	scheduled := c.Worker.MaxScheduled
	if scheduled == 0 {
		scheduled = -1
	}
	version, _, _ := versions()
	return node.Options{
		Dir: c.Data.Dir, Types: types, Tracker: tracker, Requester: requester, Cleaner: tools.Cleaner(),
		Artifacts: files,
		Sweep:     func() error { return sweep(dirs, log) },
		Schedules: c.Schedules, Retention: c.Retention.Finished,
		REST: node.REST{Hosts: append([]string{c.Server.Host}, c.Server.Hosts...), MaxBody: c.Server.MaxBody, MaxUpload: c.Server.MaxUpload},
		NATS: node.NATS{
			Host: c.Broker.Host, Port: c.Broker.Port, Sync: c.Broker.Sync, SyncAlways: c.Broker.Sync == config.SyncAlways,
		},
		MaxConns:  maxConns,
		Workers:   node.Workers{Max: c.Worker.MaxWorkers, Min: c.Worker.MinWorkers, Lease: c.Worker.Lease, MaxLost: c.Worker.MaxLost},
		QueueSize: c.Worker.QueueSize, MaxScheduled: scheduled, Version: version, Logger: log,
	}, nil
}

// sweep removes what handlers of a server that was killed have left.
func sweep(dirs node.Folders, log *slog.Logger) error {
	if err := email.SweepOutbox(dirs.Outbox); err != nil {
		return err
	}
	killed, err := exec.Sweep(exec.Host{Data: dirs.Root, Work: dirs.Work})
	if killed > 0 {
		log.Warn("ended programs that a killed server has left running", "processes", killed)
	}
	if err != nil {
		log.Warn("cannot remove all folders of programs that a killed server has left", "error", err)
	}
	return nil
}

// programs are the options of the types that run programs.
func programs(c *config.Config) map[string]*exec.Options {
	all := make(map[string]*exec.Options)
	for name, t := range c.Jobs {
		if o, ok := t.Options.(*exec.Options); ok {
			all[name] = o
		}
	}
	return all
}

// warnOfPrograms says what programs may do that their operator may not expect.
func warnOfPrograms(c *config.Config, log *slog.Logger) {
	all := programs(c)
	said := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, text := range all[name].Warnings() {
			if !said[text] {
				said[text] = true
				log.Warn(text, "type", name)
			}
		}
	}
	if len(all) > 0 && len(c.Exposed()) > 0 {
		log.Warn("other machines can have this server run programs; nobody has to log in (server.insecure)", "types", len(all))
	}
}

// handlerServer is the part of this server that handlers may use.
func handlerServer(c *config.Config, dirs node.Folders, tracker *node.Tracker, files *jobs.ArtifactDir) *handlers.Server {
	smtp := c.Email.SMTP
	return &handlers.Server{
		Tracker: tracker, Artifacts: files, Logs: dirs.Logs, Data: dirs.Root, Work: dirs.Work,
		Mail: email.Config{
			Transport: c.Email.Transport, From: c.Email.From, Outbox: dirs.Outbox,
			SMTP: email.SMTP{
				Host: smtp.Host, Port: smtp.Port, Username: smtp.Username, Password: smtp.Password,
				TLS: smtp.TLS, Timeout: smtp.Timeout, RetryUnknown: smtp.RetryUnknown,
			},
		},
	}
}

// makeTypes makes the configured job types, each with a handler of its own.
func makeTypes(c *config.Config, s *handlers.Server) ([]*jobs.Type, error) {
	var all []*jobs.Type
	for _, name := range slices.Sorted(maps.Keys(c.Jobs)) {
		t := c.Jobs[name]
		h, err := handlers.Find(c.Kinds, t.Run).New(s, t.Options)
		if err != nil {
			return nil, err
		}
		made := &jobs.Type{
			Name: name, RetryCount: t.RetryCount, Timeout: t.Timeout, MaxWorkers: t.MaxWorkers,
			ConcurrencyPerKey: t.ConcurrencyPerKey, Rate: t.Rate, Backoff: t.Backoff, Inputs: t.Inputs, Handler: h, Run: t.Run,
			Description: t.Description,
		}
		if !t.Schema.IsZero() {
			s, err := t.Schema.Compile()
			if err != nil {
				return nil, fmt.Errorf("jobs.%s.schema: %w", name, err)
			}
			made.Schema = s
		}
		if t.Options != nil {
			made.Grace = t.Options.Grace()
		}
		if d, ok := h.(interface{ Describe() string }); ok {
			made.Runs = d.Describe()
		}
		all = append(all, made)
	}
	return all, nil
}

// checkSchedules returns an error if a configured schedule would make jobs that their
// types refuse. Like every wrong value, that stops the start.
func checkSchedules(r *jobs.Registry, specs []schedule.Spec) error {
	var problems config.Problems
	for i := range specs {
		s := &specs[i]
		err := r.Check(&jobs.Submission{Type: s.Type, Payload: s.Payload})
		if err == nil {
			continue
		}
		e, _ := jobs.AsError(err)
		for _, f := range e.Fields {
			key := "schedules." + s.Name + strings.ReplaceAll(f.Pointer, "/", ".")
			problems = append(problems, config.Problem{Key: key, Text: f.Detail})
		}
	}
	if len(problems) > 0 {
		return &usageError{problems}
	}
	return nil
}

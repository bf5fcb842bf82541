package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/handlers"
	"jobstream/jobs/handlers/email"
	"jobstream/jobs/schedule"
)

// handlerServer is what handlers may use of this server.
func handlerServer(c *config.Config, dirs node.Folders, tracker *node.LateTracker) *handlers.Server {
	smtp := c.Email.SMTP
	return &handlers.Server{
		Tracker: tracker, Artifacts: jobs.ArtifactDir(dirs.Artifacts),
		Mail: email.Config{
			Transport: c.Email.Transport, From: c.Email.From, Outbox: dirs.Outbox,
			SMTP: email.SMTP{
				Host: smtp.Host, Port: smtp.Port, Username: smtp.Username, Password: smtp.Password,
				TLS: smtp.TLS, Timeout: smtp.Timeout, RetryUnknown: smtp.RetryUnknown,
			},
		},
	}
}

// bulkType is the type of bulk jobs. Few run at once, as each keeps the tracker
// busy; there may be millions of jobs to change.
func bulkType(h jobs.Handler) *jobs.Type {
	return &jobs.Type{
		Name: api.BulkType, Internal: true, Handler: h,
		RetryCount: 3, Timeout: 24 * time.Hour, MaxWorkers: 2, Backoff: jobs.DefaultBackoff(),
	}
}

// makeTypes makes the job types that the configuration names, each with a handler of its
// own.
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
			ConcurrencyPerKey: t.ConcurrencyPerKey, Rate: t.Rate, Backoff: t.Backoff, Handler: h,
		}
		if t.Options != nil {
			made.Grace = t.Options.Grace()
		}
		all = append(all, made)
	}
	return all, nil
}

// checkSchedules says which of the configuration's schedules make jobs that their
// types would refuse: as for any value that makes no sense, there is no start.
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

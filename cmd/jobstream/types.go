package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/handlers"
	"jobstream/jobs/handlers/email"
	"jobstream/jobs/schedule"
	"jobstream/status"
)

// lateTracker is the tracker for handlers that are made before it is open: the
// tracker itself needs the registry that the handlers are in.
type lateTracker struct{ *status.Store }

// folders are the places in the data folder.
type folders struct{ root, broker, tracker, artifacts, outbox string }

func foldersIn(root string) folders {
	return folders{
		root: root, broker: filepath.Join(root, "broker"), tracker: filepath.Join(root, "status.db"),
		artifacts: filepath.Join(root, "artifacts"), outbox: filepath.Join(root, "outbox"),
	}
}

// make makes the data folder, if need be, and looks for what would stop everything
// else in it.
func (f folders) make() error {
	if info, err := os.Stat(f.root); err == nil && !info.IsDir() {
		return fmt.Errorf("data.dir: %s is not a folder; move it away, or choose another place", f.root)
	}
	if err := os.MkdirAll(f.root, 0o750); err != nil {
		return fmt.Errorf("data.dir: the folder %s cannot be made: %w", f.root, err)
	}
	probe, err := os.CreateTemp(f.root, ".probe-*")
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("data.dir: no file can be made in %s: %w", f.root, err)
	}
	if err == nil { // whatever else is wrong is said by those who meet it
		_, _ = probe.Close(), os.Remove(probe.Name())
	}
	for _, dir := range []string{f.broker, f.artifacts, f.outbox} {
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			return fmt.Errorf("data.dir: %s is not a folder, but should be one; move it away", dir)
		}
	}
	return nil
}

// handlerServer is what handlers may use of this server.
func handlerServer(c *config.Config, dirs folders, tracker *lateTracker) *handlers.Server {
	smtp := c.Email.SMTP
	return &handlers.Server{
		Tracker: tracker, Artifacts: jobs.ArtifactDir(dirs.artifacts),
		Mail: email.Config{
			Transport: c.Email.Transport, From: c.Email.From, Outbox: dirs.outbox,
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
		Name: jobs.BulkType, Internal: true, Handler: h,
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

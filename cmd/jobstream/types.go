package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/handlers/bulk"
	"jobstream/jobs/handlers/cleanup"
	"jobstream/jobs/handlers/email"
	"jobstream/jobs/handlers/export"
	"jobstream/jobs/handlers/report"
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

// builtins are the handlers by the name that a type's run gives.
type builtins struct {
	byName  map[string]jobs.Handler
	cleanup *cleanup.Handler
	bulk    *bulk.Handler
}

func newBuiltins(c *config.Config, dirs folders, tracker *lateTracker) (*builtins, error) {
	mail, err := email.New(email.Config{
		Transport: c.Email.Transport, From: c.Email.From, Outbox: dirs.outbox,
		SMTP: email.SMTP{
			Host: c.Email.SMTP.Host, Port: c.Email.SMTP.Port, Username: c.Email.SMTP.Username,
			Password: c.Email.SMTP.Password, TLS: c.Email.SMTP.TLS,
			Timeout: c.Email.SMTP.Timeout, RetryUnknown: c.Email.SMTP.RetryUnknown,
		},
	})
	if err != nil {
		return nil, err
	}
	artifacts := jobs.ArtifactDir(dirs.artifacts)
	clean := cleanup.New(tracker, artifacts, func(id jobs.ID) (int64, error) { return email.RemoveMail(dirs.outbox, id) })
	return &builtins{cleanup: clean, bulk: bulk.New(tracker, clean.Remove), byName: map[string]jobs.Handler{
		"email":   mail,
		"export":  export.New(tracker, artifacts),
		"cleanup": clean,
		"report":  report.New(tracker, artifacts),
	}}, nil
}

// bulkType is the type of bulk jobs. Few run at once, as each keeps the tracker
// busy; there may be millions of jobs to change.
func (b *builtins) bulkType() *jobs.Type {
	return &jobs.Type{
		Name: jobs.BulkType, Internal: true, Handler: b.bulk,
		RetryCount: 3, Timeout: 24 * time.Hour, MaxWorkers: 2, Backoff: jobs.DefaultBackoff(),
	}
}

// registry makes the job types that the configuration names, and the server's
// own.
func (b *builtins) registry(types map[string]config.JobType) *jobs.Registry {
	all := []*jobs.Type{b.bulkType()}
	for name, t := range types {
		all = append(all, &jobs.Type{
			Name: name, RetryCount: t.RetryCount, Timeout: t.Timeout, MaxWorkers: t.MaxWorkers,
			ConcurrencyPerKey: t.ConcurrencyPerKey, Rate: t.Rate,
			Backoff: t.Backoff, Handler: b.byName[t.Run],
		})
	}
	return jobs.NewRegistry(all...)
}

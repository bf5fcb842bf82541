// Package handlers lists the kinds of work that a job type can do: what its run can be.
//
// A kind is a package beside this file and an entry in the list that [Kinds] returns. If
// its types can be set to something, the package has a struct of [Options], which says
// what keys there are and what they may be; everything else about them follows from
// that.
package handlers

import (
	"slices"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/cleanup"
	"jobstream/jobs/handlers/email"
	"jobstream/jobs/handlers/export"
	"jobstream/jobs/handlers/report"
	"jobstream/jobs/setting"
)

// Kind is what the run of a job type can be.
type Kind struct {
	Name string
	// Shipped is how the type of the kind's own name is set that is there if the
	// configuration names no types; nil: there is none.
	Shipped *Shipped
	// Options makes the options of one type, as they are by default; nil: the kind has
	// none.
	Options func() Options
	// New makes the handler of one type. o is what Options has made, after the
	// configuration has been read.
	New func(s *Server, o Options) (jobs.Handler, error)
}

// Shipped are the settings of a type that is there without a configuration.
type Shipped struct {
	RetryCount int
	Timeout    time.Duration // 0 = worker.job_timeout
}

// Options are what one type of a kind can be set to beside what every type has. Two are
// the same if they are deeply equal.
type Options interface {
	// Settings binds the keys to their places. A path begins below the type: kill_after
	// is jobs.<type>.kill_after.
	Settings() []setting.Setting
	// Check tells what else is wrong, like a key that must be there, once all is set.
	Check(fail func(path, text string))
	// Grace is [jobs.Type.Grace] of the type.
	Grace() time.Duration
}

// Server is what handlers may use of the server that they run in.
type Server struct {
	Tracker   Tracker
	Artifacts jobs.Artifacts
	Mail      email.Config // the section email, which all types of that kind share
}

// Tracker reads the job history and deletes from it.
type Tracker interface {
	jobs.History
	jobs.Cleaner
}

// Cleaner makes what deletes ended jobs with all that they have left.
func (s *Server) Cleaner() *cleanup.Handler {
	return cleanup.New(s.Tracker, s.Artifacts, func(id jobs.ID) (int64, error) {
		return email.RemoveMail(s.Mail.Outbox, id)
	})
}

// Kinds lists all kinds, in the order in which they are shown; the list is the caller's.
func Kinds() []*Kind { return slices.Clone(kinds) }

var kinds = []*Kind{
	Plain("email", &Shipped{RetryCount: 3, Timeout: time.Minute}, func(s *Server) (jobs.Handler, error) { return email.New(s.Mail) }),
	Plain("export", &Shipped{RetryCount: 1, Timeout: 10 * time.Minute}, func(s *Server) (jobs.Handler, error) {
		return export.New(s.Tracker, s.Artifacts), nil
	}),
	Plain("cleanup", &Shipped{RetryCount: 3}, func(s *Server) (jobs.Handler, error) { return s.Cleaner(), nil }),
	Plain("report", &Shipped{RetryCount: 3}, func(s *Server) (jobs.Handler, error) { return report.New(s.Tracker, s.Artifacts), nil }),
}

// Plain makes a kind without options.
func Plain(name string, shipped *Shipped, handler func(s *Server) (jobs.Handler, error)) *Kind {
	return &Kind{
		Name: name, Shipped: shipped,
		New: func(s *Server, _ Options) (jobs.Handler, error) { return handler(s) },
	}
}

// With makes a kind whose types have options.
func With[O Options](name string, options func() O, handler func(s *Server, o O) (jobs.Handler, error)) *Kind {
	return &Kind{
		Name:    name,
		Options: func() Options { return options() },
		New:     func(s *Server, o Options) (jobs.Handler, error) { return handler(s, o.(O)) },
	}
}

// Find is the kind of this name; nil if there is none.
func Find(kinds []*Kind, name string) *Kind {
	for _, k := range kinds {
		if k.Name == name {
			return k
		}
	}
	return nil
}

// Names are the names of kinds.
func Names(kinds []*Kind) []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Name
	}
	return names
}

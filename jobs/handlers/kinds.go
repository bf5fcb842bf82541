// Package handlers lists the kinds of work that a job type can do: the values of its
// run. Start reading at [Kinds].
//
// A kind is a package beside this file, and an entry in the list that [Kinds] returns.
// If its types have settings, the package has a struct of [Options] with their keys and
// values. The configuration follows from that.
package handlers

import (
	"iter"
	nethttp "net/http"
	"slices"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/handlers/cleanup"
	"jobstream/jobs/handlers/email"
	"jobstream/jobs/handlers/exec"
	"jobstream/jobs/handlers/export"
	"jobstream/jobs/handlers/http"
	"jobstream/jobs/handlers/importer"
	"jobstream/jobs/handlers/nats"
	"jobstream/jobs/handlers/remote"
	"jobstream/jobs/handlers/report"
	"jobstream/jobs/joblog"
	"jobstream/jobs/setting"
)

// Kind is one possible run of a job type.
type Kind struct {
	Name string
	// Shipped configures the type that has the kind's name and exists if the
	// configuration names no types. nil: there is no such type.
	Shipped *Shipped
	// Needs is the scope that a submission of such a type needs, besides submit; "" = none.
	Needs access.Scope
	// Options makes the default options of one type. nil: the kind has none.
	Options func() Options
	// Inside says that the work needs the server's history, queue or broker, so no worker
	// elsewhere can do it.
	Inside bool
	// Inputs are the files that each job needs. The configuration of a type may restrict
	// them further, and names no others. nil: the configuration alone decides.
	Inputs []jobs.InputRule
	// New makes the handler of one type. o comes from Options; the configuration has
	// been read into it. The handler is nil if workers elsewhere do the work.
	New func(s *Server, o Options) (jobs.Handler, error)
}

// Shipped are the settings of a type that exists without a configuration.
type Shipped struct {
	RetryCount int
	Timeout    time.Duration // 0 = worker.job_timeout
}

// Options are the settings of one type of a kind, beside those that every type has. Two
// are the same if they are deeply equal.
type Options interface {
	// Settings binds the keys to their fields. A path begins below the type: kill_after
	// is jobs.<type>.kill_after.
	Settings() []setting.Setting
	// Check reports problems between settings, like a missing key, after all are set, and
	// looks for what they name. Relative paths in them begin at folder, that of the
	// configuration's file.
	Check(folder string, fail func(path, text string))
	// Grace is [jobs.Type.Grace] of the type.
	Grace() time.Duration
}

// Reader is implemented by Options with settings that name fields of the payload, as
// templates do, or inputs.
type Reader interface {
	// Reads are the keys of these settings, and the names that lead to each field that one
	// has: from "payload" on, or "inputs" and the name of one. Check has been called.
	Reads() iter.Seq2[string, []string]
}

// Server is the part of the server that handlers may use.
type Server struct {
	Tracker   Tracker
	Requests  nats.Requester
	Queue     importer.Queue
	Artifacts jobs.Artifacts
	Logs      string       // the folder of jobs' logs
	Data      string       // the data folder
	Work      string       // the folder in which programs work
	PublicURL string       // where others reach it; "" = unknown
	Mail      email.Config // the section email, which all types of that kind share
	// Transport returns what makes the requests of the kind http, around another one; nil =
	// that one alone.
	Transport func(nethttp.RoundTripper) nethttp.RoundTripper
}

// Tracker reads the job history and deletes from it.
type Tracker interface {
	jobs.History
	jobs.Cleaner
}

// Cleaner makes the handler that deletes ended jobs and everything that they left.
func (s *Server) Cleaner() *cleanup.Handler {
	return cleanup.New(s.Tracker, s.Artifacts,
		cleanup.Leftover{Name: "its mail from the outbox", Remove: func(id jobs.ID) (int64, error) { return email.RemoveMail(s.Mail.Outbox, id) }},
		cleanup.Leftover{Name: "its log", Remove: joblog.New(s.Logs, nil).Remove})
}

// Kinds lists all kinds in their order in messages. The caller owns the list.
func Kinds() []*Kind { return slices.Clone(kinds) }

var kinds = []*Kind{
	Plain("email", &Shipped{RetryCount: 3, Timeout: time.Minute}, func(s *Server) (jobs.Handler, error) { return email.New(s.Mail) }),
	inside(Needing(access.Read, Plain("export", &Shipped{RetryCount: 1, Timeout: 10 * time.Minute}, func(s *Server) (jobs.Handler, error) {
		return export.New(s.Tracker), nil
	}))),
	inside(Needing(access.Manage, Plain("cleanup", &Shipped{RetryCount: 3}, func(s *Server) (jobs.Handler, error) { return s.Cleaner(), nil }))),
	inside(Needing(access.Read, Plain("report", &Shipped{RetryCount: 3}, func(s *Server) (jobs.Handler, error) { return report.New(s.Tracker), nil }))),
	{
		Name: "import", Inputs: importer.Inputs(), Inside: true,
		New: func(s *Server, _ Options) (jobs.Handler, error) { return importer.New(s.Queue), nil },
	},
	With("exec", exec.NewOptions, func(s *Server, o *exec.Options) (jobs.Handler, error) {
		return exec.New(o, exec.Host{Data: s.Data, Work: s.Work}), nil
	}),
	inside(With("nats", nats.NewOptions, func(s *Server, o *nats.Options) (jobs.Handler, error) { return nats.New(o, s.Requests), nil })),
	With("http", http.NewOptions, func(s *Server, o *http.Options) (jobs.Handler, error) {
		return http.New(o, s.PublicURL, s.Transport), nil
	}),
	With("remote", remote.NewOptions, func(*Server, *remote.Options) (jobs.Handler, error) { return nil, nil }),
}

// Plain makes a kind without options.
func Plain(name string, shipped *Shipped, handler func(s *Server) (jobs.Handler, error)) *Kind {
	return &Kind{
		Name: name, Shipped: shipped,
		New: func(s *Server, _ Options) (jobs.Handler, error) { return handler(s) },
	}
}

// Needing is a kind whose submissions need a scope.
func Needing(s access.Scope, k *Kind) *Kind {
	k.Needs = s
	return k
}

func inside(k *Kind) *Kind {
	k.Inside = true
	return k
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

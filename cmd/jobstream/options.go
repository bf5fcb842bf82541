package main

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"jobstream/broker"
	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/cmd/node/traces"
	"jobstream/jobs"
	"jobstream/jobs/handlers"
	"jobstream/jobs/handlers/email"
	"jobstream/jobs/handlers/exec"
	"jobstream/jobs/handlers/webhook"
	"jobstream/jobs/schedule"
)

// nodeOptions are the options of the configured node. reread reads the configuration
// again, with further flags; nil: it never changes.
// t gives spans to what it does; nil: there are none.
func nodeOptions(c *config.Config, reread func(...config.Flag) (*config.Config, error), t *traces.Tracer, log *slog.Logger) (o node.Options, r *jobs.Registry, err error) {
	maxConns, err := conns(c.Server.MaxConnections, c.Worker.MaxWorkers+webhook.Workers/2, log)
	if err != nil {
		return o, nil, err
	}
	dirs, parts := node.FoldersIn(c.Data.Dir), &node.Tools{}
	files := jobs.NewArtifactDir(dirs.Artifacts, c.Artifacts.MaxBytes)
	tools := handlerServer(c, dirs, parts, files)
	if t != nil {
		tools.Transport = t.Transport
	}
	types := &typeMaker{tools: tools}
	made, err := types.make(c)
	if err != nil {
		return o, nil, err
	}
	scheduled := c.Worker.MaxScheduled
	if scheduled == 0 {
		scheduled = -1
	}
	cluster, err := clusterOf(c)
	if err != nil {
		return o, nil, err
	}
	version, _, _ := versions()
	o = node.Options{
		Name: c.Node.Name, Dir: c.Data.Dir, NATS: natsAddress(c.Broker.Host, c.Broker.Port), Insecure: c.Server.Insecure,
		Callbacks: c.Callbacks,
		Schedules: c.Schedules, Retention: c.Retention.Finished,
		REST:    node.REST{Hosts: append([]string{c.Server.Host}, c.Server.Hosts...), MaxBody: c.Server.MaxBody, MaxUpload: c.Server.MaxUpload},
		Broker:  node.Broker{Sync: c.Broker.Sync, SyncAlways: c.Broker.Sync == config.SyncAlways, Cluster: cluster, Bootstrap: c.Broker.Cluster.Bootstrap},
		Bounds:  node.Bounds{Queue: c.Worker.QueueSize, Scheduled: scheduled, Conns: maxConns, MinFree: c.Data.MinFree},
		Workers: node.Workers{Max: c.Worker.MaxWorkers, Min: c.Worker.MinWorkers, Lease: c.Worker.Lease, MaxLost: c.Worker.MaxLost},
		Version: version, Logger: log,
		Handlers: node.Handlers{
			Tools: parts, Cleaner: tools.Cleaner(), Artifacts: files,
			Sweep: func() error { return sweep(dirs, log) },
		},
	}
	if t != nil {
		o.Tracer = t
	}
	if reread != nil {
		o.Handlers.Reread = (&rereader{started: c, load: reread, types: types, log: log}).read
	}
	return o, jobs.NewRegistry(made...), nil
}

// natsAddress is the address of the NATS port: port 0 is none, and -1 any free one.
func natsAddress(host string, port int) string {
	if port == 0 {
		return ""
	}
	return net.JoinHostPort(host, strconv.Itoa(max(port, 0)))
}

// clusterOf is the configured membership in a cluster; nil if there is none.
func clusterOf(c *config.Config) (*broker.Cluster, error) {
	in := &c.Broker.Cluster
	if in.Listen == "" {
		return nil, nil
	}
	routes, err := in.TLS.Load()
	return &broker.Cluster{
		Name: in.Name, Listen: in.Listen, Routes: in.Routes, Advertise: in.Advertise, Replicas: in.Replicas,
		User: in.User, Password: in.Password, TLS: routes,
	}, err
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
func handlerServer(c *config.Config, dirs node.Folders, parts *node.Tools, files *jobs.ArtifactDir) *handlers.Server {
	smtp := c.Email.SMTP
	return &handlers.Server{
		Tracker: &parts.Tracker, Requests: &parts.Requester, Queue: &parts.Queue, Artifacts: files, Logs: dirs.Logs, Data: dirs.Root, Work: dirs.Work,
		PublicURL: c.Callbacks.PublicURL,
		Mail: email.Config{
			Transport: c.Email.Transport, From: c.Email.From, Outbox: dirs.Outbox,
			SMTP: email.SMTP{
				Host: smtp.Host, Port: smtp.Port, Username: smtp.Username, Password: smtp.Password,
				TLS: smtp.TLS, Timeout: smtp.Timeout, RetryUnknown: smtp.RetryUnknown,
			},
		},
	}
}

// typeMaker makes the job types of configurations. It knows what it has made, so that
// a type of the next configuration that has not changed is the same value. Its methods
// are not called at the same time.
type typeMaker struct {
	tools *handlers.Server
	made  map[string]madeType // of the last configuration
}

// madeType is a type and the configuration that it was made from.
type madeType struct {
	from config.JobType
	typ  *jobs.Type
}

// make makes the configured job types, each with a handler of its own. The error may be
// a [*usageError].
func (m *typeMaker) make(c *config.Config) ([]*jobs.Type, error) {
	next := make(map[string]madeType, len(c.Jobs))
	var all []*jobs.Type
	for _, name := range slices.Sorted(maps.Keys(c.Jobs)) {
		t, before := c.Jobs[name], m.made[name]
		made := before.typ
		if !reflect.DeepEqual(before.from, t) {
			var err error
			if made, err = m.makeOne(c, name, before); err != nil {
				return nil, err
			}
		}
		next[name] = madeType{t, made}
		all = append(all, made)
	}
	callbacks := webhook.Type()
	callbacks.Handler = webhook.New(&c.Callbacks, nil) // only for its checks
	if err := checkSchedules(jobs.NewRegistry(append(slices.Clone(all), callbacks)...), c.Schedules); err != nil {
		return nil, err
	}
	m.made = next
	return all, nil
}

// makeOne makes a configured type. It has the handler of the one before if that would do
// the same.
func (m *typeMaker) makeOne(c *config.Config, name string, before madeType) (*jobs.Type, error) {
	t := c.Jobs[name]
	h, err := m.handler(c, &t, before)
	if err != nil {
		return nil, err
	}
	made := &jobs.Type{
		Name: name, RetryCount: t.RetryCount, Timeout: t.Timeout, MaxWorkers: t.MaxWorkers,
		ConcurrencyPerKey: t.ConcurrencyPerKey, Rate: t.Rate, Backoff: t.Backoff, Inputs: t.Inputs, Handler: h, Run: t.Run,
		Needs:       handlers.Find(c.Kinds, t.Run).Needs,
		AtLeader:    handlers.Find(c.Kinds, t.Run).Inside,
		Description: t.Description,
	}
	if !t.Schema.IsZero() {
		s, err := t.Schema.Compile()
		if err != nil {
			return nil, fmt.Errorf("jobs.%s.schema: %w", name, err)
		}
		made.Schema = s
	}
	if made.Remote = h == nil; made.Remote {
		made.Runs = "workers that ask for its jobs"
	}
	if t.Options != nil {
		made.Grace = t.Options.Grace()
	}
	if o, ok := t.Options.(interface{ LeaseTime() time.Duration }); ok {
		made.Lease = o.LeaseTime()
	}
	if o, ok := t.Options.(interface{ HandsOver() bool }); ok && o.HandsOver() {
		made.HandsOver, made.Timeout = true, max(made.Timeout, made.Lease)
	}
	if d, ok := h.(interface{ Describe() string }); ok {
		made.Runs = d.Describe()
	}
	return made, nil
}

func (m *typeMaker) handler(c *config.Config, t *config.JobType, before madeType) (jobs.Handler, error) {
	if before.typ != nil && before.from.Run == t.Run && reflect.DeepEqual(before.from.Options, t.Options) {
		return before.typ.Handler, nil
	}
	return handlers.Find(c.Kinds, t.Run).New(m.tools, t.Options)
}

// configured are the types as they were configured last.
func (m *typeMaker) configured() map[string]config.JobType {
	all := make(map[string]config.JobType, len(m.made))
	for name, t := range m.made {
		all[name] = t.from
	}
	return all
}

// checkSchedules returns an error if a configured schedule would make jobs that their
// types refuse. Like every wrong value, that stops the start.
func checkSchedules(r *jobs.Registry, specs []schedule.Spec) error {
	var problems config.Problems
	for i := range specs {
		s := &specs[i]
		err := r.Check(s.Submission())
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
		return &usageError{Err: problems}
	}
	return nil
}

// Package config reads jobstream's configuration from four layers: built-in defaults, a
// YAML file, the environment and flags. Later layers win.
//
// Start with [Load]. Its result is a [Config], with every key decided and checked.
// Reading is strict: everything that it does not understand is a [Problem]. A mistyped
// key that is ignored silently costs more than a refused start. All problems are
// reported at once.
//
// The keys are in one table, in keys.go. Kinds of work add those of their types.
// Reading, checking, environment variables and [Config.YAML] all follow from that
// table.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers"
	"jobstream/jobs/handlers/webhook"
	"jobstream/jobs/schedule"
	"jobstream/jobs/schema"
	"jobstream/jobs/setting"
)

// DefaultFile is the file that [Load] reads if none is named.
const DefaultFile = "config.yaml"

// maxFile is the largest configuration file, in bytes. Real ones have a few thousand, and
// more with the schemas of many types. The YAML parser's needs grow with the square of the
// size.
const maxFile = 256 << 10

// Config is the effective configuration.
type Config struct {
	Server    Server
	Data      Data
	Artifacts Artifacts
	Node      Node
	Broker    Broker
	Worker    Worker
	Retention Retention
	Email     Email
	Kinds     []*handlers.Kind   // the possible runs of types
	Jobs      map[string]JobType // by name; never empty
	Schedules []schedule.Spec    // by name; nobody has checked yet whether their types can use their payloads
	Callbacks webhook.Options
	Log       Log

	webhooks string // the list as JSON, until it is in Callbacks
}

// Server is the REST side.
type Server struct {
	Host      string   // a name or an address, without port
	Port      int      // 0 = any free port
	Hosts     []string // names that requests may be for, besides Host and loopback
	MaxBody   int64    // of a request, in bytes
	MaxUpload int64    // of an uploaded file, in bytes
	// MaxConnections bounds the connections of each of the two ports. It is lower if
	// the process may not open as many files. 0 stands for up to 10,000.
	MaxConnections int
	// Insecure confirms that everybody who reaches Host and Broker.Host from another
	// machine may do what Auth allows without a token.
	Insecure bool
	TLS      TLS
	Auth     Auth
}

// Data is the folder of all durable data.
type Data struct {
	Dir     string // relative to the working directory, or absolute
	MinFree int64  // bytes free on its disk, below which nothing new is admitted; 0 = no bound
}

// Artifacts are the files that jobs leave.
type Artifacts struct {
	MaxBytes int64 // of all of them together; 0 = no bound
}

// SyncAlways as [Broker.Sync] syncs every message to disk before it is acknowledged.
const SyncAlways time.Duration = 0

// Broker is the embedded NATS server.
type Broker struct {
	Host string
	Port int           // -1 = any free port, 0 = none: in process only
	Sync time.Duration // between syncs of the streams to disk, or [SyncAlways]

	Cluster Cluster
	Servers Servers // of a worker
}

// Worker is the pool that runs jobs.
type Worker struct {
	MaxWorkers    int           // jobs at the same time, over all types
	MinWorkers    int           // the lower bound of a pool that follows the load; 0 = always MaxWorkers
	QueueSize     int           // bound of unfinished jobs, without those of MaxScheduled
	MaxScheduled  int           // bound of jobs whose time is to come
	JobTimeout    time.Duration // of one attempt, for types without a timeout
	ShutdownGrace time.Duration // of running jobs at a stop
	Lease         time.Duration // silence after which a worker counts as dead
	MaxLost       int           // dead workers after which a job fails
}

// Retention is how long ended jobs are kept.
type Retention struct {
	Finished time.Duration // ended jobs and their artifacts; 0 = for ever
}

// Email is the delivery of jobs of kind email.
type Email struct {
	Transport string // "outbox" or "smtp"
	From      string // an address, perhaps with a display name
	SMTP      SMTP
}

// SMTP is the mail server of the smtp transport.
type SMTP struct {
	Host     string
	Port     int
	Username string // "" = no authentication
	Password string
	TLS      string        // "none", "opportunistic" (STARTTLS if offered), "mandatory" (STARTTLS) or "implicit"
	Timeout  time.Duration // of each wait for the server; 0 = the times of RFC 5321
	// RetryUnknown sends mails again that may have been delivered.
	RetryUnknown bool
}

// JobType is one entry of the jobs section.
type JobType struct {
	Run               string        // the name of a kind
	Description       string        // for people
	Schema            schema.Source // of its payloads; zero = none
	RetryCount        int           // retries after the first attempt
	Timeout           time.Duration // of one attempt
	MaxWorkers        int           // at most so many of this type at once; 0 = Worker.MaxWorkers
	ConcurrencyPerKey int           // at most so many of this type with the same concurrency_key at once, from 1
	Rate              jobs.Rate     // at most so many of this type start; zero = no limit
	Backoff           jobs.Backoff
	Inputs            []jobs.InputRule // by name
	Options           handlers.Options // of its kind; nil: that has none
}

// Log is the output to standard error.
type Log struct {
	Level  string // "debug", "info", "warn" or "error"
	Format string // "text" or "json"
}

// Default is the configuration without a file and without environment
// variables, for these kinds.
func Default(kinds []*handlers.Kind) *Config {
	c := scalarDefaults(kinds)
	c.decideAnonymous()
	c.Jobs = make(map[string]JobType)
	for name, t := range shippedTypes(kinds) {
		t.finish(name, c.Worker.JobTimeout)
		c.Jobs[name] = *t
	}
	return c
}

// scalarDefaults is Default without the job types.
func scalarDefaults(kinds []*handlers.Kind) *Config {
	return &Config{
		Kinds:  kinds,
		Server: Server{Host: "127.0.0.1", Port: 8080, MaxBody: 1 << 20, MaxUpload: 1 << 30, Auth: Auth{JWT: JWT{ScopesClaim: "scope"}}},
		Data:   Data{Dir: "data", MinFree: 256 << 20},
		Node:   Node{Role: roleFull},
		Broker: Broker{Host: "127.0.0.1", Port: 4222, Sync: time.Second, Cluster: Cluster{Name: "jobstream", Replicas: 3}},
		Worker: Worker{
			MaxWorkers: 10, QueueSize: 100_000, MaxScheduled: 1_000_000, JobTimeout: 5 * time.Minute,
			ShutdownGrace: 30 * time.Second, Lease: 30 * time.Second, MaxLost: 5,
		},
		Retention: Retention{Finished: 30 * 24 * time.Hour},
		Email: Email{
			Transport: "outbox", From: "jobstream@localhost",
			SMTP: SMTP{Host: "localhost", Port: 25, TLS: "opportunistic"},
		},
		Log: Log{Level: "info", Format: "text"},
	}
}

// newType is a type of a kind, which may be nil, before its own settings are read.
// finish fills in its empty fields.
func newType(k *handlers.Kind) *JobType {
	t := &JobType{RetryCount: 3, ConcurrencyPerKey: 1, Backoff: jobs.DefaultBackoff()}
	if k == nil {
		return t
	}
	t.Inputs = slices.Clone(k.Inputs)
	if k.Options != nil {
		t.Options = k.Options()
	}
	return t
}

// finish fills in the fields that a type has not set.
func (t *JobType) finish(name string, jobTimeout time.Duration) {
	if t.Run == "" {
		t.Run = name
	}
	if t.Timeout == 0 {
		t.Timeout = jobTimeout
	}
}

// shippedTypes are the types without a jobs section, before finish.
func shippedTypes(kinds []*handlers.Kind) map[string]*JobType {
	types := make(map[string]*JobType)
	for _, k := range kinds {
		if k.Shipped != nil {
			t := newType(k)
			t.RetryCount, t.Timeout = k.Shipped.RetryCount, k.Shipped.Timeout
			types[k.Name] = t
		}
	}
	return types
}

// Flag is a value from the command line.
type Flag struct {
	Name  string // as given, like --port
	Key   string // path of the key that it sets
	Value string
}

// Load reads the configuration for these kinds from the file at path, from env in the
// form of os.Environ, and from flags. An empty path stands for ./config.yaml if it
// exists, else for no file. The error is a [Problems], a [*SyntaxError], or the reason
// why the file could not be read.
func Load(path string, kinds []*handlers.Kind, env []string, flags ...Flag) (*Config, error) {
	name, data, err := source(path)
	if err != nil {
		return nil, err
	}
	return parse(name, data, kinds, env, flags...)
}

// Where is what commands need to know of a server on this machine: its REST door and its
// data folder.
type Where struct {
	Host string
	Port int
	Dir  string
	TLS  TLS
}

// Running is where a server with the configuration that [Load] would read runs. Problems
// elsewhere in it do not matter.
func Running(path string, kinds []*handlers.Kind, env []string) (Where, error) {
	name, data, err := source(path)
	if err != nil {
		return Where{}, err
	}
	l, err := read(name, data, kinds, env)
	if err != nil {
		return Where{}, err
	}
	needed := []string{"server.host", "server.port", certKey, "data.dir"}
	l.problems = slices.DeleteFunc(l.problems, func(p Problem) bool { return !slices.Contains(needed, p.Key) })
	c, err := l.result()
	if err != nil {
		return Where{}, err
	}
	return Where{Host: c.Server.Host, Port: c.Server.Port, Dir: c.Data.Dir, TLS: c.Server.TLS}, nil
}

// source is the file at path, or the one that an empty path stands for. Without a file
// the name is empty.
func source(path string) (name string, data []byte, err error) {
	if name = path; path == "" {
		name = DefaultFile
	}
	data, err = readFile(name)
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("the configuration cannot be read: %w", err)
	}
	return name, data, nil
}

// readFile is os.ReadFile with a bound.
func readFile(name string) (data []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	if data, err = io.ReadAll(io.LimitReader(f, maxFile+1)); err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %s", name, setting.FormatSize(maxFile))
	}
	return data, nil
}

// parse makes a configuration from the content of the file with this name, from env and
// from flags.
func parse(name string, data []byte, kinds []*handlers.Kind, env []string, flags ...Flag) (*Config, error) {
	l, err := read(name, data, kinds, env, flags...)
	if err != nil {
		return nil, err
	}
	return l.result()
}

// read is parse, with the problems in its result.
func read(name string, data []byte, kinds []*handlers.Kind, env []string, flags ...Flag) (*loader, error) {
	root, problems, err := parseYAML(name, data)
	if err != nil {
		return nil, err
	}
	l := &loader{file: name, problems: problems, config: scalarDefaults(kinds)}
	l.lines = make(map[string]int)
	l.declareTypes(root, env)
	l.declareTokens(root.child("server").child("auth").child("tokens"))
	l.keys = l.config.keys(l.types)
	if err := l.merge(root, env, flags); err != nil {
		return nil, err
	}
	l.decide()
	l.crossCheck()
	l.readCallbacks()
	l.readSchedules()
	return l, nil
}

// result is the configuration, unless there are problems.
func (l *loader) result() (*Config, error) {
	if len(l.problems) > 0 {
		return nil, l.sorted()
	}
	l.config.decideAnonymous()
	l.config.Jobs = make(map[string]JobType, len(l.types))
	for _, t := range l.types {
		l.config.Jobs[t.name] = *t.JobType
	}
	return l.config, nil
}

// namedType is a type with its name, while its settings are being read.
type namedType struct {
	name string
	*JobType
}

// inOrder lists types in the order of YAML: first those named after kinds, in the order
// of the kinds, then the others by name.
func (c *Config) inOrder(types map[string]*JobType) []namedType {
	list := make([]namedType, 0, len(types))
	for name, t := range types {
		list = append(list, namedType{name, t})
	}
	kinds := handlers.Names(c.Kinds)
	rank := func(name string) int {
		if i := slices.Index(kinds, name); i >= 0 {
			return i
		}
		return len(kinds)
	}
	slices.SortFunc(list, func(a, b namedType) int {
		return cmp.Or(rank(a.name)-rank(b.name), strings.Compare(a.name, b.name))
	})
	return list
}

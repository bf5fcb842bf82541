// Package config reads jobstream's configuration: built-in defaults, over them
// a YAML file, over that the environment, over that flags.
//
// Start with [Load]; [Config] is what comes out, with every key decided and
// checked. It is strict: whatever it does not understand is a [Problem], and
// all problems are reported at once, since a mistyped key that is ignored in
// silence costs more than a start that is refused. The keys stand in one table,
// in keys.go, to which kinds of work add those of their types. Reading, checking,
// environment variables and [Config.YAML] all follow from it.
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
	"jobstream/jobs/schedule"
	"jobstream/jobs/setting"
)

// DefaultFile is the file that [Load] reads if none is named.
const DefaultFile = "config.yaml"

// maxFile is the largest configuration file, in bytes. Real ones have a few
// thousand; what the YAML parser needs grows with the square.
const maxFile = 64 << 10

// Config is the effective configuration.
type Config struct {
	Server    Server
	Data      Data
	Broker    Broker
	Worker    Worker
	Retention Retention
	Email     Email
	Kinds     []*handlers.Kind   // what a type's run can be
	Jobs      map[string]JobType // by name; never empty
	Schedules []schedule.Spec    // by name; whether their types can use their payloads is not checked
	Log       Log
}

// Server is the REST side.
type Server struct {
	Host    string   // a name or an address, without port
	Port    int      // 0 = any free port
	Hosts   []string // names that requests may be for, besides Host and loopback
	MaxBody int64    // of a request, in bytes
	// MaxConnections are the connections that each of the two ports has at a time; fewer
	// if the process may not open as many files. 0 = up to 10,000.
	MaxConnections int
	Insecure       bool // Host and Broker.Host may be reached from other machines
}

// Data is where everything durable lives.
type Data struct {
	Dir string // relative to the working directory, or absolute
}

// SyncAlways as [Broker.Sync] means that the broker syncs every message to disk
// before it is acknowledged.
const SyncAlways time.Duration = 0

// Broker is the embedded NATS server.
type Broker struct {
	Host string
	Port int           // -1 = any free port, 0 = none: reached in process only
	Sync time.Duration // between syncs of the streams to disk, or [SyncAlways]
}

// Worker is the pool that runs jobs.
type Worker struct {
	MaxWorkers    int           // jobs at the same time, over all types
	MinWorkers    int           // the pool grows from so many to MaxWorkers and shrinks again; 0 = it always has MaxWorkers
	QueueSize     int           // unfinished jobs that are let in, without those of MaxScheduled
	MaxScheduled  int           // jobs with a time to come that are let in
	JobTimeout    time.Duration // of one attempt, where a type says nothing
	ShutdownGrace time.Duration // what running jobs get at a stop; 0 = nothing
	Lease         time.Duration // silence after which a worker counts as dead
	MaxLost       int           // dead workers after which a job fails
}

// Retention is how long what has ended is kept.
type Retention struct {
	Finished time.Duration // finished jobs with their artifacts; 0 = for ever
}

// Email is how jobs of kind email deliver.
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
	Timeout  time.Duration // of each wait for the server; 0 = as RFC 5321 says
	// RetryUnknown has mails sent again that may be delivered already.
	RetryUnknown bool
}

// JobType is one entry of the jobs section.
type JobType struct {
	Run               string        // what does the work: the name of a kind
	RetryCount        int           // retries after the first attempt
	Timeout           time.Duration // of one attempt
	MaxWorkers        int           // at most so many of this type at once; 0 = Worker.MaxWorkers
	ConcurrencyPerKey int           // at most so many of this type with the same concurrency_key at once, from 1
	Rate              jobs.Rate     // at most so many of this type start; zero = no limit
	Backoff           jobs.Backoff
	Options           handlers.Options // of its kind; nil: that has none
}

// Log is what goes to standard error.
type Log struct {
	Level  string // "debug", "info", "warn" or "error"
	Format string // "text" or "json"
}

// Default is the configuration without a file and without environment
// variables, for these kinds.
func Default(kinds []*handlers.Kind) *Config {
	c := scalarDefaults(kinds)
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
		Server: Server{Host: "127.0.0.1", Port: 8080, MaxBody: 1 << 20},
		Data:   Data{Dir: "data"},
		Broker: Broker{Host: "127.0.0.1", Port: 4222, Sync: time.Second},
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

// newType is a type of a kind, which may be nil, before its own settings are read. What
// is empty in it comes from elsewhere: see finish.
func newType(k *handlers.Kind) *JobType {
	t := &JobType{RetryCount: 3, ConcurrencyPerKey: 1, Backoff: jobs.DefaultBackoff()}
	if k != nil && k.Options != nil {
		t.Options = k.Options()
	}
	return t
}

// finish fills in what a type has not set itself.
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
	Name  string // as it was written, like --port
	Key   string // path of the key that it sets
	Value string
}

// Load reads the configuration for these kinds from the file at path, from env, which
// has the form of os.Environ, and from flags. With path "", it is ./config.yaml if there is one, and
// the defaults if not. The error is a [Problems], a [*SyntaxError] or says why
// the file could not be read.
func Load(path string, kinds []*handlers.Kind, env []string, flags ...Flag) (*Config, error) {
	name := path
	if name == "" {
		name = DefaultFile
	}
	data, err := readFile(name)
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		return parse("", nil, kinds, env, flags...)
	}
	if err != nil {
		return nil, fmt.Errorf("the configuration cannot be read: %w", err)
	}
	return parse(name, data, kinds, env, flags...)
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

// parse makes a configuration from the content of the file called name, from env
// and from flags.
func parse(name string, data []byte, kinds []*handlers.Kind, env []string, flags ...Flag) (*Config, error) {
	root, problems, err := parseYAML(name, data)
	if err != nil {
		return nil, err
	}
	l := &loader{file: name, problems: problems, config: scalarDefaults(kinds)}
	l.declareTypes(root, env)
	l.keys = l.config.keys(l.types)
	if err := l.merge(root, env, flags); err != nil {
		return nil, err
	}
	l.decide()
	l.crossCheck()
	l.readSchedules()
	if len(l.problems) > 0 {
		return nil, l.sorted()
	}
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

// inOrder lists types as YAML shows them: those with the names of kinds in the order of
// these, then the others by name.
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

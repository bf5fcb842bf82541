package config

import (
	"fmt"
	"strings"
	"time"

	"jobstream/jobs"
)

// schedulesKey is the section that is read in schedules.go.
const schedulesKey = "schedules"

// key is one setting, bound to its place in a Config.
type key struct {
	path    string
	allowed string         // what a value must be, to follow "is not"
	set     func(any) bool // takes a value of the file or a fromText; false if it is not allowed
	get     func() any     // the value as YAML shows it
	secret  bool           // never shown
	list    bool           // a list of texts, which has no variable; set takes a []string
	subtree bool           // a section that is read elsewhere and has no variable; nothing but the path is set
}

// The bounds of values. They are about what makes sense, not about what is
// wise.
const (
	maxPort        = 65535
	maxBodyLimit   = 8 << 20 // NATS advises against messages beyond 8 MiB
	maxConns       = 1_000_000
	maxWorkers     = 10_000
	maxPerKey      = 10_000
	maxQueue       = 10_000_000
	maxScheduled   = 100_000_000
	maxLost        = 1000
	maxLease       = time.Hour
	maxSMTPTimeout = time.Hour
	maxGrace       = time.Hour
	maxBackoff     = jobs.MaxTimeout
	maxRetention   = 100 * 365 * 24 * time.Hour
	minSync        = 100 * time.Millisecond
	maxSync        = 2 * time.Minute
	minJobTimeout  = time.Millisecond
)

// keys is the table of all settings of c with these types, in the order of the
// shipped file.
func (c *Config) keys(types []namedType) []key {
	smtp := &c.Email.SMTP
	list := []key{
		host("server.host", &c.Server.Host),
		whole("server.port", &c.Server.Port, 0, maxPort),
		hosts("server.hosts", &c.Server.Hosts),
		size("server.max_body", &c.Server.MaxBody, 1, maxBodyLimit),
		whole("server.max_connections", &c.Server.MaxConnections, 0, maxConns),
		boolean("server.insecure", &c.Server.Insecure),
		folder("data.dir", &c.Data.Dir),
		host("broker.host", &c.Broker.Host),
		whole("broker.port", &c.Broker.Port, -1, maxPort),
		syncInterval("broker.sync", &c.Broker.Sync),
		whole("worker.max_workers", &c.Worker.MaxWorkers, 1, maxWorkers),
		whole("worker.min_workers", &c.Worker.MinWorkers, 0, maxWorkers),
		whole("worker.queue_size", &c.Worker.QueueSize, 1, maxQueue),
		whole("worker.max_scheduled", &c.Worker.MaxScheduled, 0, maxScheduled),
		duration("worker.job_timeout", &c.Worker.JobTimeout, minJobTimeout, jobs.MaxTimeout),
		duration("worker.shutdown_grace", &c.Worker.ShutdownGrace, 0, maxGrace),
		duration("worker.lease", &c.Worker.Lease, time.Second, maxLease),
		whole("worker.max_lost", &c.Worker.MaxLost, 1, maxLost),
		duration("retention.finished", &c.Retention.Finished, 0, maxRetention),
		oneOf("email.transport", &c.Email.Transport, "outbox", "smtp"),
		address("email.from", &c.Email.From),
		host("email.smtp.host", &smtp.Host),
		whole("email.smtp.port", &smtp.Port, 1, maxPort),
		text("email.smtp.username", &smtp.Username),
		secret(text("email.smtp.password", &smtp.Password)),
		oneOf("email.smtp.tls", &smtp.TLS, "none", "opportunistic", "mandatory", "implicit"),
		duration("email.smtp.timeout", &smtp.Timeout, 0, maxSMTPTimeout),
		boolean("email.smtp.retry_unknown", &smtp.RetryUnknown),
	}
	for _, t := range types {
		list = append(list, t.keys()...)
	}
	return append(list,
		key{path: schedulesKey, subtree: true},
		oneOf("log.level", &c.Log.Level, "debug", "info", "warn", "error"),
		oneOf("log.format", &c.Log.Format, "text", "json"),
	)
}

// keys is the table of the settings of one type.
func (t namedType) keys() []key {
	p := "jobs." + t.name + "."
	return []key{
		oneOf(p+"run", &t.Run, Kinds()...),
		whole(p+"retry_count", &t.RetryCount, 0, jobs.MaxRetryCount),
		duration(p+"timeout", &t.Timeout, minJobTimeout, jobs.MaxTimeout),
		whole(p+"max_workers", &t.MaxWorkers, 0, maxWorkers),
		whole(p+"concurrency_per_key", &t.ConcurrencyPerKey, 1, maxPerKey),
		rate(p+"rate", &t.Rate),
		whole(p+"burst", &t.Rate.Burst, 0, jobs.MaxBurst),
		oneOf(p+"backoff.kind", &t.Backoff.Kind, jobs.Linear, jobs.Exponential, jobs.Constant),
		duration(p+"backoff.base", &t.Backoff.Base, 0, maxBackoff),
		duration(p+"backoff.max", &t.Backoff.Max, 0, maxBackoff),
		fraction(p+"backoff.jitter", &t.Backoff.Jitter),
	}
}

// variable is the environment variable that overrides the key at path.
func variable(path string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

// under lists the names directly below section ("" is the top), in order.
func under(keys []key, section string) []string {
	var names []string
	prefix := section + "."
	if section == "" {
		prefix = ""
	}
	seen := make(map[string]bool)
	for _, k := range keys {
		rest, ok := strings.CutPrefix(k.path, prefix)
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, ".")
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

// sections is the set of paths that have keys below them.
func sections(keys []key) map[string]bool {
	set := map[string]bool{"": true, "jobs": true}
	for _, k := range keys {
		for i, c := range k.path {
			if c == '.' {
				set[k.path[:i]] = true
			}
		}
	}
	return set
}

// spanText is "from lo to hi".
func spanText(lo, hi any) string { return fmt.Sprintf("from %v to %v", lo, hi) }

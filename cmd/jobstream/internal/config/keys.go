package config

import (
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers"
	"jobstream/jobs/setting"
)

// schedulesKey is the section that schedules.go reads.
const schedulesKey = "schedules"

// levelKey is the key of the level of the log, which can be changed while the server runs.
const levelKey = "log.level"

// The bounds of values exclude nonsense, not unwise values.
const (
	maxPort        = 65535
	maxBodyLimit   = 8 << 20 // NATS advises against messages beyond 8 MiB
	maxArtifacts   = 1 << 60
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
	maxDescription = 4096
)

// subtree says whether k is a section that is read elsewhere and has no variable.
func subtree(k setting.Setting) bool { return k.Set == nil }

// keys is the table of all settings of c with these types, in the order of the
// shipped file.
func (c *Config) keys(types []namedType) []setting.Setting {
	smtp := &c.Email.SMTP
	list := []setting.Setting{
		host("server.host", &c.Server.Host),
		setting.Whole("server.port", &c.Server.Port, 0, maxPort),
		hosts("server.hosts", &c.Server.Hosts),
		setting.Size("server.max_body", &c.Server.MaxBody, 1, maxBodyLimit),
		setting.Size("server.max_upload", &c.Server.MaxUpload, 1, maxArtifacts),
		setting.Whole("server.max_connections", &c.Server.MaxConnections, 0, maxConns),
		setting.Bool("server.insecure", &c.Server.Insecure),
		setting.Text("server.public_url", &c.Callbacks.PublicURL),
	}
	list = append(list, c.Server.TLS.keys()...)
	list = append(list, c.Server.Auth.keys()...)
	list = append(list,
		folder("data.dir", &c.Data.Dir),
		setting.Size("data.min_free", &c.Data.MinFree, 0, maxArtifacts),
		setting.Size("artifacts.max_bytes", &c.Artifacts.MaxBytes, 0, maxArtifacts),
	)
	list = append(list, c.Node.keys()...)
	list = append(list,
		host("broker.host", &c.Broker.Host),
		setting.Whole("broker.port", &c.Broker.Port, -1, maxPort),
		syncInterval("broker.sync", &c.Broker.Sync),
	)
	list = append(list, c.Broker.Cluster.keys()...)
	list = append(list, c.Broker.Servers.keys()...)
	list = append(list,
		setting.Whole("worker.max_workers", &c.Worker.MaxWorkers, 1, maxWorkers),
		setting.Whole("worker.min_workers", &c.Worker.MinWorkers, 0, maxWorkers),
		setting.Whole("worker.queue_size", &c.Worker.QueueSize, 1, maxQueue),
		setting.Whole("worker.max_scheduled", &c.Worker.MaxScheduled, 0, maxScheduled),
		setting.Duration("worker.job_timeout", &c.Worker.JobTimeout, minJobTimeout, jobs.MaxTimeout),
		setting.Duration("worker.shutdown_grace", &c.Worker.ShutdownGrace, 0, maxGrace),
		setting.Duration("worker.lease", &c.Worker.Lease, time.Second, maxLease),
		setting.Whole("worker.max_lost", &c.Worker.MaxLost, 1, maxLost),
		setting.Duration("retention.finished", &c.Retention.Finished, 0, maxRetention),
		setting.OneOf("email.transport", &c.Email.Transport, "outbox", "smtp"),
		address("email.from", &c.Email.From),
		host("email.smtp.host", &smtp.Host),
		setting.Whole("email.smtp.port", &smtp.Port, 1, maxPort),
		setting.Text("email.smtp.username", &smtp.Username),
		setting.Secret(setting.Text("email.smtp.password", &smtp.Password)),
		setting.OneOf("email.smtp.tls", &smtp.TLS, "none", "opportunistic", "mandatory", "implicit"),
		setting.Duration("email.smtp.timeout", &smtp.Timeout, 0, maxSMTPTimeout),
		setting.Bool("email.smtp.retry_unknown", &smtp.RetryUnknown),
	)
	for _, t := range types {
		list = append(list, t.keys(handlers.Names(c.Kinds))...)
	}
	list = append(list, setting.Setting{Path: schedulesKey})
	list = append(list, c.Callbacks.Settings()...)
	return append(list,
		c.webhookList(),
		setting.OneOf(levelKey, &c.Log.Level, "debug", "info", "warn", "error"),
		setting.OneOf("log.format", &c.Log.Format, "text", "json"),
	)
}

// keys is the table of the settings of one type. kinds are the possible values of its
// run.
func (t namedType) keys(kinds []string) []setting.Setting {
	p := "jobs." + t.name + "."
	list := []setting.Setting{
		setting.OneOf(p+"run", &t.Run, kinds...),
		description(p+"description", &t.Description),
		document(p+"schema", &t.Schema),
		setting.Whole(p+"retry_count", &t.RetryCount, 0, jobs.MaxRetryCount),
		setting.Duration(p+"timeout", &t.Timeout, minJobTimeout, jobs.MaxTimeout),
		setting.Whole(p+"max_workers", &t.MaxWorkers, 0, maxWorkers),
		setting.Whole(p+"concurrency_per_key", &t.ConcurrencyPerKey, 1, maxPerKey),
		rate(p+"rate", &t.Rate),
		setting.Whole(p+"burst", &t.Rate.Burst, 0, jobs.MaxBurst),
		setting.OneOf(p+"backoff.kind", &t.Backoff.Kind, jobs.Linear, jobs.Exponential, jobs.Constant, jobs.ListKind),
		setting.Duration(p+"backoff.base", &t.Backoff.Base, 0, maxBackoff),
		setting.Duration(p+"backoff.max", &t.Backoff.Max, 0, maxBackoff),
		setting.Fraction(p+"backoff.jitter", &t.Backoff.Jitter),
		setting.Durations(p+"backoff.delays", &t.Backoff.Delays, 0, maxBackoff),
	}
	list = append(list, t.inputKeys(p+"inputs")...)
	if t.Options != nil {
		for _, k := range t.Options.Settings() {
			k.Path = p + k.Path
			list = append(list, k)
		}
	}
	return list
}

// inputKeys are the settings of a type's inputs, which are known from their section at
// path. Without one the section itself is a setting, so that it can be empty.
func (t namedType) inputKeys(path string) (list []setting.Setting) {
	if len(t.Inputs) == 0 {
		var none map[string]string
		empty := setting.Map(path, &none)
		empty.Allowed = "a section of names for inputs, each with types and max"
		return []setting.Setting{empty}
	}
	for i := range t.Inputs {
		in := &t.Inputs[i]
		at := path + "." + in.Name
		list = append(list,
			setting.CheckedTexts(at+".types", &in.Types, "a list of content types in small letters, like [text/csv, image/*]", jobs.ValidContentType),
			setting.Size(at+".max", &in.Max, 0, maxArtifacts),
		)
	}
	return list
}

// variable is the environment variable that overrides the key at path.
func variable(path string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

// under lists the names directly below section ("" is the top), in order.
func under(keys []setting.Setting, section string) []string {
	var names []string
	prefix := section + "."
	if section == "" {
		prefix = ""
	}
	seen := make(map[string]bool)
	for _, k := range keys {
		rest, ok := strings.CutPrefix(k.Path, prefix)
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
func sections(keys []setting.Setting) map[string]bool {
	set := map[string]bool{"": true, "jobs": true, tokensKey: true}
	for _, k := range keys {
		for i, c := range k.Path {
			if c == '.' {
				set[k.Path[:i]] = true
			}
		}
	}
	return set
}

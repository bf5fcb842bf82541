package config

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers"
	"jobstream/jobs/handlers/webhook"
	"jobstream/jobs/schedule"
)

const shippedFile = "../../../../config.yaml"

func TestShippedFileIsTheDefault(t *testing.T) {
	got, err := Load(shippedFile, handlers.Kinds(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, Default(handlers.Kinds())) {
		t.Errorf("config.yaml gives\n%+v\nthe defaults are\n%+v", got, Default(handlers.Kinds()))
	}
}

// Every key of the shipped file must have a comment, and the file must have every key.
func TestShippedFileExplainsEveryKey(t *testing.T) {
	data, err := os.ReadFile(shippedFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range scalarDefaults(handlers.Kinds()).keys(nil) {
		if subtree(k) {
			continue
		}
		name := k.Path[strings.LastIndex(k.Path, ".")+1:]
		line := regexp.MustCompile(`(?m)^ *` + name + `: +\S`)
		if !line.Match(data) {
			t.Errorf("%s is not in config.yaml", k.Path)
		}
	}
	for _, kind := range append(handlers.Kinds(), nil) {
		for _, k := range (namedType{"x", newType(kind)}).keys(nil) {
			name := k.Path[strings.LastIndex(k.Path, ".")+1:]
			if !regexp.MustCompile(`(?m)^# +` + name + `: `).Match(data) {
				t.Errorf("%s is not explained in config.yaml", k.Path)
			}
		}
	}
	for _, name := range []string{"url", "types", "statuses", "secret"} {
		if !regexp.MustCompile(`(?m)^# +` + name + `: `).Match(data) {
			t.Errorf("%s of webhooks is not explained in config.yaml", name)
		}
	}
	cron := schedule.Spec{Cron: "x", Payload: json.RawMessage("{}"), Tags: []string{"a"}, Timeout: 1, CallbackURL: "https://a"}
	for _, f := range append(scheduleFields(&cron), scheduleFields(&schedule.Spec{Every: 1})...) {
		if !regexp.MustCompile(`(?m)^# +` + f.name + `: `).Match(data) {
			t.Errorf("%s of schedules is not explained in config.yaml", f.name)
		}
	}
}

// load is parse without a file of its own.
func load(t *testing.T, yaml string, env ...string) (*Config, error) {
	t.Helper()
	return parse("config.yaml", []byte(yaml), handlers.Kinds(), env)
}

func mustLoad(t *testing.T, yaml string, env ...string) *Config {
	t.Helper()
	c, err := load(t, yaml, env...)
	if err != nil {
		t.Fatalf("%s\n%q\n%v", yaml, env, err)
	}
	return c
}

func TestDefault(t *testing.T) {
	c := Default(handlers.Kinds())
	want := map[string]JobType{
		"email":   {Run: "email", RetryCount: 3, Timeout: time.Minute, ConcurrencyPerKey: 1, Backoff: jobs.DefaultBackoff()},
		"export":  {Run: "export", RetryCount: 1, Timeout: 10 * time.Minute, ConcurrencyPerKey: 1, Backoff: jobs.DefaultBackoff()},
		"cleanup": {Run: "cleanup", RetryCount: 3, Timeout: 5 * time.Minute, ConcurrencyPerKey: 1, Backoff: jobs.DefaultBackoff()},
		"report":  {Run: "report", RetryCount: 3, Timeout: 5 * time.Minute, ConcurrencyPerKey: 1, Backoff: jobs.DefaultBackoff()},
	}
	if !reflect.DeepEqual(c.Jobs, want) {
		t.Errorf("types are %+v", c.Jobs)
	}
	for _, empty := range []string{"", "\n", "# nothing\n", "---\n", "\xef\xbb\xbf", "server:\n", "server: {}", "email: {smtp: }"} {
		if got := mustLoad(t, empty); !reflect.DeepEqual(got, c) {
			t.Errorf("%q gives %+v", empty, got)
		}
	}
}

func TestLoadChoosesItsFile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if c, err := Load("", handlers.Kinds(), nil); err != nil || c.Server.Port != 8080 {
		t.Fatalf("without a file: %+v, %v", c, err)
	}
	write(t, filepath.Join(dir, "config.yaml"), "server: {port: 1234}")
	write(t, filepath.Join(dir, "other.yaml"), "server: {port: 4321}")
	if c, err := Load("", handlers.Kinds(), nil); err != nil || c.Server.Port != 1234 {
		t.Errorf("config.yaml: %+v, %v", c, err)
	}
	if c, err := Load("other.yaml", handlers.Kinds(), nil); err != nil || c.Server.Port != 4321 {
		t.Errorf("other.yaml: %+v, %v", c, err)
	}
	for _, name := range []string{"missing.yaml", dir} {
		if _, err := Load(name, handlers.Kinds(), nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
	write(t, filepath.Join(dir, "huge.yaml"), strings.Repeat("# much\n", maxFile/7+1))
	if _, err := Load("huge.yaml", handlers.Kinds(), nil); err == nil || !strings.Contains(err.Error(), "larger than 256KiB") {
		t.Errorf("huge.yaml: the error is %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestValues(t *testing.T) {
	const insecure = ", insecure: true"
	tests := []struct {
		yaml string
		get  func(*Config) any
		want any
	}{
		{"server: {host: localhost}", func(c *Config) any { return c.Server.Host }, "localhost"},
		{"server: {hosts: [a.example, '::1', 10.0.0.1]}", func(c *Config) any { return strings.Join(c.Server.Hosts, " ") }, "a.example ::1 10.0.0.1"},
		{"server: {hosts: }", func(c *Config) any { return len(c.Server.Hosts) }, 0},
		{"server: {hosts: []}", func(c *Config) any { return len(c.Server.Hosts) }, 0},
		{"server: {host: '::1'}", func(c *Config) any { return c.Server.Host }, "::1"},
		{"server: {host: 127.9.9.9}", func(c *Config) any { return c.Server.Host }, "127.9.9.9"},
		{"server: {host: 0.0.0.0" + insecure + "}", func(c *Config) any { return c.Server.Host }, "0.0.0.0"},
		{"server: {host: '::'" + insecure + "}", func(c *Config) any { return c.Server.Host }, "::"},
		{"server: {host: jobs_1.example.com" + insecure + "}", func(c *Config) any { return c.Server.Host }, "jobs_1.example.com"},
		{"server: {port: 0}", func(c *Config) any { return c.Server.Port }, 0},
		{"server: {port: 65535}", func(c *Config) any { return c.Server.Port }, 65535},
		{"server: {max_body: 512}", func(c *Config) any { return c.Server.MaxBody }, int64(512)},
		{"server: {max_body: 64KiB}", func(c *Config) any { return c.Server.MaxBody }, int64(64 << 10)},
		{"server: {max_body: 8 MiB}", func(c *Config) any { return c.Server.MaxBody }, int64(8 << 20)},
		{"data: {dir: /var/lib/job stream}", func(c *Config) any { return c.Data.Dir }, "/var/lib/job stream"},
		{"broker: {host: 0.0.0.0, port: 0}", func(c *Config) any { return c.Broker.Host }, "0.0.0.0"},
		{"{broker: {host: 0.0.0.0}, server: {insecure: true}}", func(c *Config) any { return c.Broker.Host }, "0.0.0.0"},
		{"artifacts: {max_bytes: 20GiB}", func(c *Config) any { return c.Artifacts.MaxBytes }, int64(20 << 30)},
		{"broker: {port: -1}", func(c *Config) any { return c.Broker.Port }, -1},
		{"broker: {sync: always}", func(c *Config) any { return c.Broker.Sync }, SyncAlways},
		{"broker: {sync: 100ms}", func(c *Config) any { return c.Broker.Sync }, 100 * time.Millisecond},
		{"broker: {sync: 2m}", func(c *Config) any { return c.Broker.Sync }, 2 * time.Minute},
		{"broker: {sync: 3}", func(c *Config) any { return c.Broker.Sync }, 3 * time.Second},
		{"worker: {max_workers: 1}", func(c *Config) any { return c.Worker.MaxWorkers }, 1},
		{"worker: {max_workers: 10000}", func(c *Config) any { return c.Worker.MaxWorkers }, 10000},
		{"worker: {min_workers: 10}", func(c *Config) any { return c.Worker.MinWorkers }, 10},
		{"worker: {min_workers: 20, max_workers: 21}", func(c *Config) any { return c.Worker.MinWorkers }, 20},
		{"worker: {max_scheduled: 0}", func(c *Config) any { return c.Worker.MaxScheduled }, 0},
		{"worker: {queue_size: 10000000}", func(c *Config) any { return c.Worker.QueueSize }, 10_000_000},
		{"worker: {job_timeout: 5m}", func(c *Config) any { return c.Worker.JobTimeout }, 5 * time.Minute},
		{"worker: {job_timeout: 90}", func(c *Config) any { return c.Worker.JobTimeout }, 90 * time.Second},
		{"worker: {job_timeout: '90'}", func(c *Config) any { return c.Worker.JobTimeout }, 90 * time.Second},
		{"worker: {job_timeout: 1w}", func(c *Config) any { return c.Worker.JobTimeout }, 7 * 24 * time.Hour},
		{"worker: {shutdown_grace: 0}", func(c *Config) any { return c.Worker.ShutdownGrace }, time.Duration(0)},
		{"worker: {shutdown_grace: 1h}", func(c *Config) any { return c.Worker.ShutdownGrace }, time.Hour},
		{"worker: {lease: 1s}", func(c *Config) any { return c.Worker.Lease }, time.Second},
		{"worker: {max_lost: 1000}", func(c *Config) any { return c.Worker.MaxLost }, 1000},
		{"retention: {finished: 0}", func(c *Config) any { return c.Retention.Finished }, time.Duration(0)},
		{"retention: {finished: 1w2d}", func(c *Config) any { return c.Retention.Finished }, 9 * 24 * time.Hour},
		{"email: {transport: smtp}", func(c *Config) any { return c.Email.Transport }, "smtp"},
		{"email: {from: 'Jobs <jobs@example.com>'}", func(c *Config) any { return c.Email.From }, "Jobs <jobs@example.com>"},
		{"email: {smtp: {host: smtp.example.com}}", func(c *Config) any { return c.Email.SMTP.Host }, "smtp.example.com"},
		{"email: {smtp: {username: }}", func(c *Config) any { return c.Email.SMTP.Username }, ""},
		{"email: {smtp: {tls: implicit}}", func(c *Config) any { return c.Email.SMTP.TLS }, "implicit"},
		{"log: {level: debug}", func(c *Config) any { return c.Log.Level }, "debug"},
		{"log: {format: json}", func(c *Config) any { return c.Log.Format }, "json"},
		// the types
		{"jobs: {report: {}}", func(c *Config) any { return slices.Collect(maps.Keys(c.Jobs)) }, []string{"report"}},
		{"jobs: {report: }", func(c *Config) any { return c.Jobs["report"].Run }, "report"},
		{"jobs: {email: }", func(c *Config) any { return c.Jobs["email"].Timeout }, 5 * time.Minute},
		{"jobs: {Mail-1: {run: email}}", func(c *Config) any { return c.Jobs["Mail-1"].Run }, "email"},
		{"jobs: {1: {run: email}}", func(c *Config) any { return c.Jobs["1"].Run }, "email"},
		{"jobs: {email: {run: report}}", func(c *Config) any { return c.Jobs["email"].Run }, "report"},
		{"{worker: {job_timeout: 7}, jobs: {email: {}}}", func(c *Config) any { return c.Jobs["email"].Timeout }, 7 * time.Second},
		{"worker: {job_timeout: 7}", func(c *Config) any { return c.Jobs["report"].Timeout }, 7 * time.Second},
		{"worker: {job_timeout: 7}", func(c *Config) any { return c.Jobs["email"].Timeout }, time.Minute},
		{"jobs: {email: {retry_count: 0}}", func(c *Config) any { return c.Jobs["email"].RetryCount }, 0},
		{"jobs: {email: {max_workers: 2}}", func(c *Config) any { return c.Jobs["email"].MaxWorkers }, 2},
		{"jobs: {email: {concurrency_per_key: 10000}}", func(c *Config) any { return c.Jobs["email"].ConcurrencyPerKey }, 10000},
		{"jobs: {email: {rate: 5/m}}", func(c *Config) any { return c.Jobs["email"].Rate }, jobs.Rate{Count: 5, Per: time.Minute}},
		{"jobs: {email: {rate: ''}}", func(c *Config) any { return c.Jobs["email"].Rate }, jobs.Rate{}},
		{
			"jobs: {email: {burst: 7, rate: 10/30s}}",
			func(c *Config) any { return c.Jobs["email"].Rate },
			jobs.Rate{Count: 10, Per: 30 * time.Second, Burst: 7},
		},
		{"jobs: {email: {burst: 0}}", func(c *Config) any { return c.Jobs["email"].Rate }, jobs.Rate{}},
		{"jobs: {Jobstream-1: {run: email}, jobstream: {run: email}}", func(c *Config) any { return len(c.Jobs) }, 2},
		{
			"jobs: {email: {backoff: {kind: exponential, base: 2s, max: 0, jitter: 0.5}}}",
			func(c *Config) any { return c.Jobs["email"].Backoff },
			jobs.Backoff{Kind: jobs.Exponential, Base: 2 * time.Second, Jitter: 0.5},
		},
		{
			"jobs: {email: {backoff: {kind: list, base: 1h, delays: [0, 5s, 1h30m]}}}", // base counts for nothing then
			func(c *Config) any { return c.Jobs["email"].Backoff },
			jobs.Backoff{Kind: jobs.ListKind, Base: time.Hour, Max: 5 * time.Minute, Delays: []time.Duration{0, 5 * time.Second, 90 * time.Minute}},
		},
		{
			"jobs: {email: {inputs: {csv: {types: [text/csv, image/*], max: 20MiB}, any: {}, all: }}}",
			func(c *Config) any { return c.Jobs["email"].Inputs },
			[]jobs.InputRule{{Name: "all"}, {Name: "any"}, {Name: "csv", Types: []string{"text/csv", "image/*"}, Max: 20 << 20}},
		},
		{
			"jobs: {email: &e {inputs: {a: {max: 1}}}, report: {<<: *e, inputs: {a: {max: 2}}}}",
			func(c *Config) any { return []any{c.Jobs["email"].Inputs, c.Jobs["report"].Inputs} },
			[]any{[]jobs.InputRule{{Name: "a", Max: 1}}, []jobs.InputRule{{Name: "a", Max: 2}}},
		},
		{"jobs: {email: {inputs: {}}}", func(c *Config) any { return len(c.Jobs["email"].Inputs) }, 0},
		{"jobs: {email: {backoff: {jitter: 1}}}", func(c *Config) any { return c.Jobs["email"].Backoff.Jitter }, 1.0},
		{"jobs: {email: {backoff: }}", func(c *Config) any { return c.Jobs["email"].Backoff }, jobs.DefaultBackoff()},
		// YAML's own features
		{
			"jobs: {email: &e {retry_count: 7, timeout: 9}, report: {<<: *e, timeout: 8}}",
			func(c *Config) any { return []any{c.Jobs["report"].RetryCount, c.Jobs["report"].Timeout} },
			[]any{7, 8 * time.Second},
		},
		{"jobs: {email: &e {retry_count: 7}, report: *e}", func(c *Config) any { return c.Jobs["report"].RetryCount }, 7},
		{"jobs: {email: &e {retry_count: 7}, report: {<<: [*e]}}", func(c *Config) any { return c.Jobs["report"].RetryCount }, 7},
		{"server:\r\n  port: 81\r\n", func(c *Config) any { return c.Server.Port }, 81},
		{"email:\n  from: >-\n    a@example.com\n", func(c *Config) any { return c.Email.From }, "a@example.com"},
		{"? server\n: {port: 82}\n", func(c *Config) any { return c.Server.Port }, 82},
	}
	for _, tt := range tests {
		if got := tt.get(mustLoad(t, tt.yaml)); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s gives %#v, not %#v", tt.yaml, got, tt.want)
		}
	}
}

func TestProblems(t *testing.T) {
	const at1 = " (config.yaml line 1)"
	const names = "a list of host names or IP addresses (without port), like [jobs.example.com]"
	const rates = `a rate like 100/s, 5/m or 10/30s, from 1/365d to 1000000/s, or "" for none`
	const insecure = "is not loopback (127.0.0.1, ::1, localhost), and nobody would have to log in; set server.auth.tokens (jobstream token new prints one) or server.auth.jwt, or confirm it by server.insecure: true" + at1
	const hook = "https://a.example"
	const whsec = "must be whsec_ and a key of 24 to 64 bytes in base64, as by: printf whsec_; head -c 32 /dev/urandom | base64" + at1
	tests := []struct {
		yaml string
		want string // lines
	}{
		// callbacks
		{"callbacks: {allow: [http://a]}", `callbacks.allow: "http://a": must be a range of addresses like 10.1.0.0/16, without a scheme or a path` + at1},
		{"callbacks: {secret: hunter2}", "callbacks.secret: " + whsec},
		{"callbacks: {secret: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, hunter2]}", "callbacks.secret: " + whsec},
		{"callbacks: {secret: '${env:NO_SUCH_SECRET}'}", "callbacks.secret: the environment has no NO_SUCH_SECRET" + at1},
		{"callbacks: {secret: 1}", "callbacks.secret: the value is not text or a list of texts (a number needs quotes)" + at1},
		{"callbacks: {secrets: a}", "callbacks.secrets: is not a known key; did you mean callbacks.secret?" + at1},
		{"server: {public_url: jobs}", "server.public_url: must be the address of this server for others, like https://jobs.example.com" + at1},
		{"webhooks: {url: a}", "webhooks: a section is not a list of sections with url and, if you want, types, statuses and secret" + at1},
		{"webhooks: " + hook, `webhooks: "https://a.example" is not a list of sections with url and, if you want, types, statuses and secret` + at1},
		{"webhooks: [" + hook + "]", "webhooks.0: must be a JSON object" + at1},
		{"webhooks: [{}]", "webhooks.0.url: is required" + at1},
		{"webhooks: [{url: /x}]", "webhooks.0.url: must be an absolute URL that begins with https:// or http://" + at1},
		{"webhooks: [{url: " + hook + "}, {url: http://169.254.169.254}]", "webhooks.1.url: the address 169.254.169.254 is refused: it is link-local" + at1},
		{"webhooks: [{url: " + hook + "},\n {url: " + hook + "}]", "webhooks.1.url: is that of another webhook; give that one all the types and statuses (config.yaml line 2)"},
		{"webhooks: [{url: " + hook + ", typs: [email]}]", "webhooks.0.typs: is not a known field; known are url, types, statuses, secret" + at1},
		{"webhooks: [{url: " + hook + ", types: [fax]}]", `webhooks.0.types: "fax" is not a job type` + at1},
		{"webhooks: [{url: " + hook + ", statuses: [done]}]", `webhooks.0.statuses: "done" is not a status of an end: completed, failed or cancelled` + at1},
		{"webhooks: [{url: " + hook + ", secret: x}]", "webhooks.0.secret: " + whsec},
		// wrong types
		{"worker: {max_workers: abc}", `worker.max_workers: "abc" is not a whole number from 1 to 10000` + at1},
		{"worker: {max_workers: '5'}", `worker.max_workers: "5" is not a whole number from 1 to 10000` + at1},
		{"worker: {max_workers: 1.5}", `worker.max_workers: 1.5 is not a whole number from 1 to 10000` + at1},
		{"worker: {max_workers: true}", `worker.max_workers: true is not a whole number from 1 to 10000` + at1},
		{"worker: {max_workers: }", `worker.max_workers: no value is not a whole number from 1 to 10000` + at1},
		{"worker: {max_workers: [1]}", `worker.max_workers: a list is not a whole number from 1 to 10000` + at1},
		{"worker: {max_workers: {a: 1}}", `worker.max_workers: a section is not a whole number from 1 to 10000` + at1},
		{"worker: {max_workers: 18446744073709551615}", `worker.max_workers: 18446744073709551615 is not a whole number from 1 to 10000` + at1},
		{"worker: 3", `worker: 3 is not a section with max_workers, min_workers, queue_size, max_scheduled, job_timeout, shutdown_grace, lease, max_lost` + at1},
		{"worker: []", `worker: a list is not a section with max_workers, min_workers, queue_size, max_scheduled, job_timeout, shutdown_grace, lease, max_lost` + at1},
		{"server: {insecure: 'true'}", `server.insecure: "true" is not true or false` + at1},
		{"server: {host: 1}", `server.host: 1 is not a host name or an IP address (without port)` + at1},
		{"server: {hosts: a.example}", `server.hosts: "a.example" is not ` + names + at1},
		{"server: {hosts: {a: b}}", `server.hosts: a section is not ` + names + at1},
		{"server: {hosts: [a.example, 1]}", `server.hosts: a list with 1 in it is not ` + names + at1},
		{"server: {hosts: [[]]}", `server.hosts: a list with a list in it is not ` + names + at1},
		{"server: {hosts: ['a.example:80']}", `server.hosts: ["a.example:80"] is not ` + names + at1},
		{"server: {hosts: ['*']}", `server.hosts: ["*"] is not ` + names + at1},
		{"- a", `a list is not a configuration: sections like server: are expected` + at1},
		{"hello", `"hello" is not a configuration: sections like server: are expected` + at1},
		// impossible values
		{"worker: {max_workers: 0}", `worker.max_workers: 0 is not a whole number from 1 to 10000` + at1},
		{"worker: {max_workers: 10001}", `worker.max_workers: 10001 is not a whole number from 1 to 10000` + at1},
		{"worker: {min_workers: -1}", `worker.min_workers: -1 is not a whole number from 0 to 10000` + at1},
		{"worker: {min_workers: 11}", `worker.min_workers: 11 is more than worker.max_workers, 10; lower it, or 0 for a pool that always has max_workers` + at1},
		{"worker: {max_workers: 3, min_workers: 4}", `worker.min_workers: 4 is more than worker.max_workers, 3; lower it, or 0 for a pool that always has max_workers` + at1},
		{"worker: {max_scheduled: 100000001}", `worker.max_scheduled: 100000001 is not a whole number from 0 to 100000000` + at1},
		{"worker: {queue_size: 0}", `worker.queue_size: 0 is not a whole number from 1 to 10000000` + at1},
		{"worker: {queue_size: 10000001}", `worker.queue_size: 10000001 is not a whole number from 1 to 10000000` + at1},
		{"worker: {job_timeout: 0}", `worker.job_timeout: 0 is not seconds or a duration like 90s, 5m, 12h or 30d, from 1ms to 7d` + at1},
		{"worker: {job_timeout: soon}", `worker.job_timeout: "soon" is not seconds or a duration like 90s, 5m, 12h or 30d, from 1ms to 7d` + at1},
		{"worker: {job_timeout: 8d}", `worker.job_timeout: "8d" is not seconds or a duration like 90s, 5m, 12h or 30d, from 1ms to 7d` + at1},
		{"worker: {shutdown_grace: -1}", `worker.shutdown_grace: -1 is not seconds or a duration like 90s, 5m, 12h or 30d, from 0s to 1h` + at1},
		{"worker: {shutdown_grace: 61m}", `worker.shutdown_grace: "61m" is not seconds or a duration like 90s, 5m, 12h or 30d, from 0s to 1h` + at1},
		{"worker: {lease: 999ms}", `worker.lease: "999ms" is not seconds or a duration like 90s, 5m, 12h or 30d, from 1s to 1h` + at1},
		{"worker: {lease: 1.5}", `worker.lease: 1.5 is not seconds or a duration like 90s, 5m, 12h or 30d, from 1s to 1h` + at1},
		{"worker: {max_lost: 0}", `worker.max_lost: 0 is not a whole number from 1 to 1000` + at1},
		{"server: {port: -1}", `server.port: -1 is not a whole number from 0 to 65535` + at1},
		{"server: {port: 65536}", `server.port: 65536 is not a whole number from 0 to 65535` + at1},
		{"broker: {port: -2}", `broker.port: -2 is not a whole number from -1 to 65535` + at1},
		{"broker: {sync: 99ms}", `broker.sync: "99ms" is not seconds or a duration like 90s, 5m, 12h or 30d, from 100ms to 2m, or always` + at1},
		{"broker: {sync: 0}", `broker.sync: 0 is not seconds or a duration like 90s, 5m, 12h or 30d, from 100ms to 2m, or always` + at1},
		{"broker: {sync: never}", `broker.sync: "never" is not seconds or a duration like 90s, 5m, 12h or 30d, from 100ms to 2m, or always` + at1},
		{"server: {max_body: 0}", `server.max_body: 0 is not bytes or a size like 512KiB, 1MiB or 1GiB, from 1 to 8MiB` + at1},
		{"server: {max_body: 1MB}", `server.max_body: "1MB" is not bytes or a size like 512KiB, 1MiB or 1GiB, from 1 to 8MiB` + at1},
		{"server: {max_body: 9223372036854775807GiB}", `server.max_body: "9223372036854775807GiB" is not bytes or a size like 512KiB, 1MiB or 1GiB, from 1 to 8MiB` + at1},
		{"retention: {finished: -5d}", `retention.finished: "-5d" is not seconds or a duration like 90s, 5m, 12h or 30d, from 0s to 36500d` + at1},
		{"data: {dir: ''}", `data.dir: "" is not the path of a folder` + at1},
		{"email: {transport: pigeon}", `email.transport: "pigeon" is not one of outbox, smtp` + at1},
		{"email: {from: nobody}", `email.from: "nobody" is not a mail address like jobs@example.com or "Jobs <jobs@example.com>"` + at1},
		{`email: {from: "a@b.example\r\n "}`, `email.from: "a@b.example\r\n " is not a mail address like jobs@example.com or "Jobs <jobs@example.com>"` + at1},
		{"email: {smtp: {port: 0}}", `email.smtp.port: 0 is not a whole number from 1 to 65535` + at1},
		{"email: {smtp: {tls: some}}", `email.smtp.tls: "some" is not one of none, opportunistic, mandatory, implicit` + at1},
		{"email: {smtp: {host: 'mail:25'}}", `email.smtp.host: "mail:25" is not a host name or an IP address (without port)` + at1},
		{"email: {smtp: {password: 1234}}", `email.smtp.password: the value is not text (a number needs quotes)` + at1},
		{"email: {transport: smtp, smtp: {username: me}}", "email.smtp.username: and email.smtp.password go together: set both, or none for a server without authentication" + at1},
		{"log: {level: loud}", `log.level: "loud" is not one of debug, info, warn, error` + at1},
		{"log: {format: xml}", `log.format: "xml" is not one of text, json` + at1},
		// reachable hosts
		{"server: {host: 0.0.0.0}", `server.host: "0.0.0.0" ` + insecure},
		{"server: {host: example.com}", `server.host: "example.com" ` + insecure},
		{"server: {host: '::'}", `server.host: "::" ` + insecure},
		{"server: {host: ''}", `server.host: "" is not a host name or an IP address (without port)` + at1},
		{"server: {host: 127.0.0.1.5}", `server.host: "127.0.0.1.5" is not a host name or an IP address (without port)` + at1},
		{"server: {host: a..b}", `server.host: "a..b" is not a host name or an IP address (without port)` + at1},
		{"broker: {host: 10.0.0.1}", `broker.host: "10.0.0.1" ` + insecure},
		// types
		{"jobs: {}", "jobs: has no type in it; name at least one, or leave the section out for email, export, cleanup, report" + at1},
		{"jobs:", "jobs: has no type in it; name at least one, or leave the section out for email, export, cleanup, report" + at1},
		{"jobs: 5", "jobs: 5 is not a section" + at1},
		{"jobs: {a b: {}}", `jobs."a b": is not a name for a job type: 1 to 64 letters, digits, _ and -` + at1},
		{"jobs: {a.b: {run: email}}", `jobs."a.b": is not a name for a job type: 1 to 64 letters, digits, _ and -` + at1},
		{"jobs: {jobstream-x: {run: email}}", "jobs.jobstream-x: is not a name for a job type of yours: those that begin with jobstream- are the server's own" + at1},
		{"jobs: {jobstream-: }", "jobs.jobstream-: is not a name for a job type of yours: those that begin with jobstream- are the server's own" + at1},
		{"jobs: {sync: {}}", "jobs.sync: says nothing about what runs it; set jobs.sync.run to one of email, export, cleanup, report, import, exec, nats, http, remote" + at1},
		{"jobs: {sync: {run: shell}}", `jobs.sync.run: "shell" is not one of email, export, cleanup, report, import, exec, nats, http, remote` + at1},
		{"jobs: {a: {run: http, url: 'http://localhost/', async: 1s}}", "jobs.a.async: must be 5s at least, or 0, so that the endpoint can report in time" + at1},
		{"jobs: {a: {run: remote, lease: 1s}}", "jobs.a.lease: must be 5s at least, or 0 for worker.lease, so that a worker can beat in time" + at1},
		{"jobs: {a: {run: nats, subject: jobs.a}}", "jobs.a.subject: must not begin with jobs.: this server answers there, and its jobs would make more jobs or write into its streams" + at1},
		{"jobs: {email: 3}", "jobs.email: 3 is not a section with run, description, schema, retry_count, timeout, max_workers, concurrency_per_key, rate, burst, backoff, inputs" + at1},
		{"jobs: {email: {retry_count: 1001}}", "jobs.email.retry_count: 1001 is not a whole number from 0 to 1000" + at1},
		{"jobs: {email: {max_workers: -1}}", "jobs.email.max_workers: -1 is not a whole number from 0 to 10000" + at1},
		{"jobs: {email: {concurrency_per_key: 0}}", "jobs.email.concurrency_per_key: 0 is not a whole number from 1 to 10000" + at1},
		{"jobs: {email: {concurrency_per_key: 10001}}", "jobs.email.concurrency_per_key: 10001 is not a whole number from 1 to 10000" + at1},
		{"jobs: {email: {rate: fast}}", `jobs.email.rate: "fast" is not ` + rates + at1},
		{"jobs: {email: {rate: 100}}", `jobs.email.rate: 100 is not ` + rates + at1},
		{"jobs: {email: {rate: 0/s}}", `jobs.email.rate: "0/s" is not ` + rates + at1},
		{"jobs: {email: {rate: 2000000/s}}", `jobs.email.rate: "2000000/s" is not ` + rates + at1},
		{"jobs: {email: {rate: }}", `jobs.email.rate: no value is not ` + rates + at1},
		{"jobs: {email: {rate: 1/s, burst: -1}}", "jobs.email.burst: -1 is not a whole number from 0 to 1000000" + at1},
		{"jobs: {email: {rate: 1/s, burst: 1000001}}", "jobs.email.burst: 1000001 is not a whole number from 0 to 1000000" + at1},
		{"jobs: {email: {burst: 5}}", "jobs.email.burst: 5 means something only with a rate; set jobs.email.rate as well, or leave burst out" + at1},
		{"jobs: {email: {timeout: 0}}", "jobs.email.timeout: 0 is not seconds or a duration like 90s, 5m, 12h or 30d, from 1ms to 7d" + at1},
		{"jobs: {email: {inputs: [csv]}}", `jobs.email.inputs: a list is not a section of names for inputs, each with types and max` + at1},
		{"jobs: {email: {inputs: {csv: 5}}}", `jobs.email.inputs.csv: 5 is not a section with types, max` + at1},
		{"jobs: {email: {inputs: {'a b': {}}}}", `jobs.email.inputs."a b": is not a name for an input: 1 to 64 letters, digits, _ and -` + at1},
		{"jobs: {email: {inputs: {csv: {types: csv}}}}", `jobs.email.inputs.csv.types: "csv" is not a list of content types in small letters, like [text/csv, image/*]` + at1},
		{"jobs: {email: {inputs: {csv: {types: [csv]}}}}", `jobs.email.inputs.csv.types: ["csv"] is not a list of content types in small letters, like [text/csv, image/*]` + at1},
		{"jobs: {email: {inputs: {csv: {max: -1}}}}", `jobs.email.inputs.csv.max: -1 is not bytes or a size like 512KiB, 1MiB or 1GiB, from 0 to 1073741824GiB` + at1},
		{"jobs: {email: {inputs: {csv: {most: 1}}}}", `jobs.email.inputs.csv.most: is not a known key; did you mean jobs.email.inputs.csv.max?` + at1},
		{"jobs: {email: {input: {csv: {max: 1}}}}", `jobs.email.input: is not a known key; did you mean jobs.email.inputs?` + at1},
		{"jobs: {email: {backoff: linear}}", `jobs.email.backoff: "linear" is not a section with kind, base, max, jitter, delays` + at1},
		{"jobs: {email: {backoff: {kind: random}}}", `jobs.email.backoff.kind: "random" is not one of linear, exponential, constant, list` + at1},
		{"jobs: {email: {backoff: {kind: list}}}", `jobs.email.backoff.kind: list needs jobs.email.backoff.delays, like [5s, 5m, 1h]` + at1},
		{"jobs: {email: {backoff: {delays: [1]}}}", "jobs.email.backoff.delays: means something only with kind: list; set jobs.email.backoff.kind as well, or leave delays out" + at1},
		{"jobs: {email: {backoff: {kind: list, delays: [1m, soon]}}}", "jobs.email.backoff.delays: [\"1m\",\"soon\"] is not a list of seconds or durations like [5s, 5m, 12h], each from 0s to 7d" + at1},
		{"jobs: {email: {backoff: {kind: list, delays: 1m}}}", "jobs.email.backoff.delays: \"1m\" is not a list of seconds or durations like [5s, 5m, 12h], each from 0s to 7d" + at1},
		{"jobs: {email: {backoff: {kind: list, delays: [8d]}}}", "jobs.email.backoff.delays: [\"8d\"] is not a list of seconds or durations like [5s, 5m, 12h], each from 0s to 7d" + at1},
		{"jobs: {email: {backoff: {jitter: 1.1}}}", "jobs.email.backoff.jitter: 1.1 is not a number from 0 to 1" + at1},
		{"jobs: {email: {backoff: {jitter: .inf}}}", "jobs.email.backoff.jitter: +Inf is not a number from 0 to 1" + at1},
		{"jobs: {email: {backoff: {base: 10m}}}", "jobs.email.backoff.max: 5m is less than backoff.base, 10m; raise it, or 0 for no bound"},
		{"jobs: {email: {backoff: {base: 10m, max: 9m}}}", "jobs.email.backoff.max: 9m is less than backoff.base, 10m; raise it, or 0 for no bound" + at1},
		// tokens of a provider
		{"server: {auth: {jwt: {issuer: i}}}", "server.auth.jwt.audience: is missing; it is the claim aud of the tokens that are meant for this server\n" +
			"server.auth.jwt.jwks: is missing; it is the address or the file of the keys that the issuer signs with"},
		{"server: {auth: {jwt: {audience: a, jwks: keys.json}}}", "server.auth.jwt.issuer: is missing; it is the claim iss of the tokens that count"},
		{"server: {auth: {jwt: {issuer: i, audience: a, jwks: 'http://u:secret@login.example.com/'}}}", "server.auth.jwt.jwks: must not have a name or password in it" + at1},
		{"server: {auth: {jwt: {issuer: i, audience: a, jwks: 'http://login.example.com/'}}}", "server.auth.jwt.jwks: must begin with https://, since whoever changes the keys on their way can log in as anybody" + at1},
		{"server: {auth: {jwt: {scopes_claim: ''}}}", `server.auth.jwt.scopes_claim: "" is not the name of a claim` + at1},
		{"server: {auth: {jwt: {jwks_url: x}}}", "server.auth.jwt.jwks_url: is not a known key; server.auth.jwt has issuer, audience, jwks, scopes_claim" + at1},
		// unknown keys
		{"worker: {max_wrokers: 3}", "worker.max_wrokers: is not a known key; did you mean worker.max_workers?" + at1},
		{"worker: {max_later: 3}", "worker.max_later: is not a known key; worker has max_workers, min_workers, queue_size, max_scheduled, job_timeout, shutdown_grace, lease, max_lost" + at1},
		{"jobs: {email: {retry: 3}}", "jobs.email.retry: is not a known key; did you mean jobs.email.retry_count?" + at1},
		{"jobs: {email: {back: {}}}", "jobs.email.back: is not a known key; did you mean jobs.email.backoff?" + at1},
		{"worker: {queue: 3}", "worker.queue: is not a known key; did you mean worker.queue_size?" + at1},
		{"broker: {por: 3}", "broker.por: is not a known key; did you mean broker.port?" + at1},
		{"sever: {port: 3}", "sever: is not a known key; did you mean server?" + at1},
		{"queue_size: 3", "queue_size: is not a known key; did you mean worker.queue_size?" + at1},
		{"nonsense: {a: {b: 3}}", "nonsense: is not a known key; known are server, data, artifacts, node, broker, worker, retention, email, jobs, schedules, callbacks, webhooks, log" + at1},
		{"server.port: 3", `"server.port": is not a known key; did you mean server.port?` + at1},
		{"jobs: {email: {backof: {}}}", "jobs.email.backof: is not a known key; did you mean jobs.email.backoff?" + at1},
		{"email: {smtp: {login: {x: 1}}}", "email.smtp.login: is not a known key; email.smtp has host, port, username, password, tls, timeout, retry_unknown" + at1},
		// YAML's own features
		{"server: {port: 1}\nlog: {}\nserver: {port: 2}", "server: is given twice, first in line 1 (config.yaml line 3)"},
		{"server:\n  port: 1\n  port: 2", "server.port: is given twice, first in line 2 (config.yaml line 3)"},
		{"server: {port: *p}", `server.port: the alias "*p" stands for nothing that was given before; text that begins with * needs quotes` + at1 + "\nserver.port: no value is not a whole number from 0 to 65535" + at1},
		{"server: {}\n---\nlog: {}", "a second document begins here; only one is allowed (config.yaml line 3)"},
		{"jobs: {email: {<<: 5}}", "jobs.email: << is not followed by a section" + at1},
		// many at once, in the order of the file
		{
			"log:\n  level: loud\nserver:\n  port: x\n  prot: 1\n", "log.level: \"loud\" is not one of debug, info, warn, error (config.yaml line 2)\n" +
				"server.port: \"x\" is not a whole number from 0 to 65535 (config.yaml line 4)\n" +
				"server.prot: is not a known key; did you mean server.port? (config.yaml line 5)",
		},
	}
	for _, tt := range tests {
		_, err := load(t, tt.yaml)
		var problems Problems
		if !errors.As(err, &problems) {
			t.Errorf("%s: the error is %v, not Problems", tt.yaml, err)
		} else if problems.Error() != tt.want {
			t.Errorf("%s says\n%s\nnot\n%s", tt.yaml, problems, tt.want)
		}
	}
}

func TestSyntaxError(t *testing.T) {
	tests := []struct {
		yaml string
		line int
	}{
		{"server: {port: 1", 1},
		{"log: {}\nserver: [1, 2\n", 2},
		{"log: {}\nserver:\n\tport: 1\n", 3},
		{"server:\n  port: 1\n\thost: localhost\n", 3},
		{"jobs:\n  email:\n\t\tretry_count: 1\n", 3},
		{"\tserver: {}\n", 1},
		{"email:\n  from: |\n\ta@b.example\n", 3},
		{"log: {}\nserver: 'open\n", 2},
		{"log: {}\nserver: \xff\n", 2},
		{"log: {}\n\x00", 2},
	}
	for _, tt := range tests {
		_, err := load(t, tt.yaml)
		var se *SyntaxError
		if !errors.As(err, &se) || se.Line != tt.line {
			t.Errorf("%q gives %v, not a syntax error in line %d", tt.yaml, err, tt.line)
		} else if !strings.HasPrefix(se.Error(), "config.yaml:") {
			t.Errorf("%q: %v does not name the file", tt.yaml, err)
		} else if strings.Contains(tt.yaml, "\t") && !strings.Contains(se.Error(), "is indented with a tab; YAML takes spaces there") {
			t.Errorf("%q: %v does not speak of the tab", tt.yaml, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	c := mustLoad(
		t, "worker: {max_workers: 3}\njobs: {email: {}, re-port_2: {run: report}}",
		"HOME=/root", "JOBSTREAMER=1",
		"JOBSTREAM_WORKER_MAX_WORKERS=20", "JOBSTREAM_SERVER_PORT=9090", "JOBSTREAM_SERVER_MAX_BODY=2MiB",
		"JOBSTREAM_SERVER_INSECURE=true", "JOBSTREAM_SERVER_HOST=0.0.0.0", "JOBSTREAM_BROKER_SYNC=always",
		"JOBSTREAM_EMAIL_SMTP_PASSWORD=a=b", "JOBSTREAM_EMAIL_SMTP_USERNAME=12", "JOBSTREAM_WORKER_JOB_TIMEOUT=90",
		"JOBSTREAM_WORKER_MIN_WORKERS=15", "JOBSTREAM_WORKER_MAX_SCHEDULED=5", "JOBSTREAM_JOBS_EMAIL_CONCURRENCY_PER_KEY=3",
		"JOBSTREAM_JOBS_EMAIL_RATE=0.5/s", "JOBSTREAM_JOBS_EMAIL_BURST=4",
		"JOBSTREAM_JOBS_EMAIL_RETRY_COUNT=9", "JOBSTREAM_JOBS_RE_PORT_2_BACKOFF_JITTER=0.25",
		// variables of a cluster, not of jobstream
		"JOBSTREAM_PORT=tcp://10.0.0.1:8080", "JOBSTREAM_SERVICE_HOST=10.0.0.1", "JOBSTREAM_SERVICE_PORT=8080",
		"JOBSTREAM_SERVICE_PORT_HTTP=8080", "JOBSTREAM_PORT_8080_TCP=tcp://10.0.0.1:8080", "JOBSTREAM_PORT_8080_TCP_ADDR=10.0.0.1",
	)
	got := []any{
		c.Worker.MaxWorkers, c.Server.Port, c.Server.MaxBody, c.Server.Host, c.Broker.Sync, c.Email.SMTP.Password,
		c.Email.SMTP.Username, c.Worker.JobTimeout, c.Jobs["email"].RetryCount, c.Jobs["email"].Timeout, c.Jobs["re-port_2"].Backoff.Jitter,
		c.Worker.MinWorkers, c.Worker.MaxScheduled, c.Jobs["email"].ConcurrencyPerKey, c.Jobs["email"].Rate,
	}
	want := []any{20, 9090, int64(2 << 20), "0.0.0.0", SyncAlways, "a=b", "12", 90 * time.Second, 9, 90 * time.Second, 0.25, 15, 5, 3, jobs.Rate{Count: 0.5, Per: time.Second, Burst: 4}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if c := mustLoad(t, "", "JOBSTREAM_JOBS_EXPORT_RETRY_COUNT=5"); c.Jobs["export"].RetryCount != 5 || len(c.Jobs) != 4 {
		t.Errorf("a built-in type by the environment: %+v", c.Jobs)
	}
	if c := mustLoad(t, "server: {port: x}", "JOBSTREAM_SERVER_PORT=1"); c.Server.Port != 1 {
		t.Errorf("port is %d", c.Server.Port)
	}
}

// Every key has a variable.
func TestEnvironmentReachesEveryKey(t *testing.T) {
	c := Default(handlers.Kinds())
	for _, k := range c.keys(c.inOrder(shippedTypes(c.Kinds))) {
		if subtree(k) || k.FileOnly() {
			continue
		}
		_, err := load(t, "", variable(k.Path)+"=\x01")
		var problems Problems
		if !errors.As(err, &problems) || problems[0].Key != k.Path || problems[0].Env != variable(k.Path) {
			t.Errorf("%s: %v", variable(k.Path), err)
		}
	}
}

func TestEnvironmentProblems(t *testing.T) {
	tests := []struct {
		yaml, env, want string
	}{
		{"", "WORKER_MAX_WORKERS=abc", `worker.max_workers: "abc" is not a whole number from 1 to 10000 (from JOBSTREAM_WORKER_MAX_WORKERS)`},
		{"", "WORKER_MAX_WORKERS=", `worker.max_workers: "" is not a whole number from 1 to 10000 (from JOBSTREAM_WORKER_MAX_WORKERS)`},
		{"worker: {max_workers: 3}", "WORKER_MAX_WORKERS=0", `worker.max_workers: "0" is not a whole number from 1 to 10000 (from JOBSTREAM_WORKER_MAX_WORKERS)`},
		{"", "SERVER_INSECURE=yes", `server.insecure: "yes" is not true or false (from JOBSTREAM_SERVER_INSECURE)`},
		{"", "EMAIL_SMTP_PASSWORD=\x01", `email.smtp.password: the value is not text (a number needs quotes) (from JOBSTREAM_EMAIL_SMTP_PASSWORD)`},
		{"", "WORKER_MIN_WORKERS=11", `worker.min_workers: 11 is more than worker.max_workers, 10; lower it, or 0 for a pool that always has max_workers (from JOBSTREAM_WORKER_MIN_WORKERS)`},
		{"", "JOBS_EMAIL_BURST=1", `jobs.email.burst: 1 means something only with a rate; set jobs.email.rate as well, or leave burst out (from JOBSTREAM_JOBS_EMAIL_BURST)`},
		{"", "WORKER_MAX_WROKERS=1", "JOBSTREAM_WORKER_MAX_WROKERS: is not a known variable; did you mean JOBSTREAM_WORKER_MAX_WORKERS?"},
		{"", "JOBS_EMAIL_RETRY=1", "JOBSTREAM_JOBS_EMAIL_RETRY: is not a known variable; did you mean JOBSTREAM_JOBS_EMAIL_RETRY_COUNT?"},
		{"", "CRASH=1", "JOBSTREAM_CRASH: is not a known variable; it is JOBSTREAM_ and a key's path in capitals, joined by _"},
		{"", "PORT=9090", "JOBSTREAM_PORT: is not a known variable; it is JOBSTREAM_ and a key's path in capitals, joined by _"},
		{"", "SERVER_HOSTS=a.example", "JOBSTREAM_SERVER_HOSTS: is not a known variable: lists are set in the file only"},
		{"", "SCHEDULES=1", "JOBSTREAM_SCHEDULES: is not a known variable: schedules are set in the file only"},
		{"schedules: {a: {every: 1s, type: email}}", "SCHEDULES_A_EVERY=2s", "JOBSTREAM_SCHEDULES_A_EVERY: is not a known variable: schedules are set in the file only"},
		{"", "SCHEDULE=1", "JOBSTREAM_SCHEDULE: is not a known variable; it is JOBSTREAM_ and a key's path in capitals, joined by _"},
		{"jobs: {email: {}}", "JOBS_EXPORT_RUN=email", "JOBSTREAM_JOBS_EXPORT_RUN: is not a known variable; it is JOBSTREAM_ and a key's path in capitals, joined by _"},
		{
			"jobs: {Email: {run: email}, email: {}}", "JOBS_EMAIL_TIMEOUT=3",
			"JOBSTREAM_JOBS_EMAIL_TIMEOUT: could mean jobs.email.timeout or jobs.Email.timeout; set them in the file",
		},
	}
	for _, tt := range tests {
		_, err := load(t, tt.yaml, "JOBSTREAM_"+tt.env)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s with %q says\n%v\nnot\n%s", tt.yaml, tt.env, err, tt.want)
		}
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	const password = "hunter2-and-more"
	c := mustLoad(t, "email: {smtp: {username: me, password: "+password+"}}")
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), password) || !strings.Contains(string(text), mask) {
		t.Errorf("the effective configuration is\n%s", text)
	}
	for _, yaml := range []string{"password: [" + password + "]", "password: {a: " + password + "}", "password: \"" + password + "\\n\""} {
		_, err := load(t, "email: {smtp: {"+yaml+"}}")
		if err == nil || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v", yaml, err)
		}
	}
}

func TestYAML(t *testing.T) {
	tests := map[string]*Config{
		"defaults": Default(handlers.Kinds()),
		"everything changed": mustLoad(t, `
server: {host: "::", port: 0, hosts: [a.example, "::1", "null"], max_body: 1025, insecure: true}
data: {dir: "C:\\data: #1"}
artifacts: {max_bytes: 1500}
broker: {host: host.example.com, port: -1, sync: always}
worker: {max_workers: 7, min_workers: 6, queue_size: 8, max_scheduled: 9, job_timeout: 25h1m1s, shutdown_grace: 0, lease: 1h, max_lost: 1}
retention: {finished: 0}
callbacks: {allow: [10.1.0.0/16, hooks.internal]}
webhooks:
  - {url: "https://a.example/x?y=[{", types: [zeta, "true"], statuses: [failed, cancelled]}
  - url: http://127.0.0.1:9000
email: {transport: smtp, from: "Ä <a@example.com>", smtp: {host: "2001:db8::1", port: 465, username: "null", password: "********", tls: implicit}}
jobs:
  zeta: {run: report, retry_count: 0, timeout: 1500ms, max_workers: 3, concurrency_per_key: 2, rate: 2.5/1h30m, burst: 9, backoff: {kind: exponential, base: 1h30m, max: 0, jitter: 0.125}}
  "true": {run: email, backoff: {kind: list, delays: [5, 1h30m, 1500ms]}}
  "12": {run: email}
  "1e3": {run: email}
  "null": {run: email}
  "-": {run: email}
  "y": {run: email}
  "0x1": {run: email}
  report:
schedules:
  weekly: {every: 1w, type: zeta, priority: 1}
  "true": {cron: "*/5 * * * * *", type: "1e3", timezone: America/Argentina/Buenos_Aires, paused: true}
  all:
    cron: "@daily"
    timezone: Europe/Berlin
    type: "true"
    payload:
      text: "[[\x7f\u2028\U0001f600\U000e0001\0\\\" ]"
      lines: |
        - a
        - b
      numbers: [1e400, 0.10, 12345678901234567890123, -0, 0x1F, +.5, 1_000]
      none: ~
      "<<": {"": [[], {}, true, null]}
    priority: 5
    tags: [a b, "12", "é"]
    retry_count: 0
    timeout: 1.5
    overlap: queue
    catch_up: none
log: {level: error, format: json}`),
	}
	for name, c := range tests {
		sameAgain(t, name, c)
	}
	for _, s := range []string{"~", "yes", "1e3", "0o7", "- a", "a: b", "#c", " lead", "trail ", "'", `"`, `\`, "&a", "*a", "!a", "%a", "@a", "`a", "{a}", "[a]", "|", ">", "?", "é\u00a0ü", "\u2028", "\U0001f600", "<<", "---", "...", "1_000", "0x", ".inf", "2024-01-01"} {
		c := Default(handlers.Kinds())
		c.Email.SMTP.Username = s
		sameAgain(t, s, c)
	}
}

// sameAgain checks that c's printed form loads as c, except for its secrets.
func sameAgain(t *testing.T, name string, c *Config) {
	t.Helper()
	text, err := c.YAML()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	got, err := parse("printed.yaml", text, c.Kinds, nil)
	if err != nil {
		t.Fatalf("%s: %v in\n%s", name, err, text)
	}
	want := *c
	if want.Email.SMTP.Password != "" {
		want.Email.SMTP.Password = mask
	}
	want.Schedules = slices.Clone(want.Schedules)
	for i, s := range want.Schedules {
		if s.Payload != nil && string(s.Payload) != "{}" {
			want.Schedules[i].Payload = json.RawMessage(`"` + mask + `"`)
		}
	}
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("%s: printed as\n%s\nit loads as\n%+v\nnot\n%+v", name, text, got, &want)
	}
}

// The printed keys have the order of the shipped file.
func TestYAMLOrder(t *testing.T) {
	text, err := Default(handlers.Kinds()).YAML()
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := os.ReadFile(shippedFile)
	if err != nil {
		t.Fatal(err)
	}
	top := regexp.MustCompile(`(?m)^\w+:`)
	got, want := top.FindAllString(string(text), -1), top.FindAllString(string(shipped), -1)
	if !slices.Equal(got, want) {
		t.Errorf("sections are %v, in the file %v", got, want)
	}
}

func TestDeepNestingIsNoDanger(t *testing.T) {
	for _, s := range []string{"[", "{", "a: [", "- ", "{a: ", "&a [", "? ", "!a "} {
		data := strings.Repeat(s, maxFile/4/len(s)) // the parser takes four times as long for twice as much
		if _, err := load(t, data); err == nil {
			t.Errorf("much of %q is accepted", s)
		}
	}
}

func FuzzLoad(f *testing.F) {
	shipped, err := os.ReadFile(shippedFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(shipped, "JOBSTREAM_SERVER_PORT=1")
	f.Add([]byte("jobs: {email: &e {retry_count: 7}, report: {<<: [*e, *e]}}"), "")
	f.Add([]byte("schedules:\n  a: &a {cron: '* * * * *', type: email, payload: {x: [1e3, .5, ~, \"\\0[\", {}]}}\n  b: *a\n"), "")
	f.Add([]byte("? a\n: b\n!!str x: |+\n  text\n"), "JOBSTREAM_=")
	f.Add([]byte("server: {port: 0x1F}\n---\n"), "JOBSTREAM_JOBS_EMAIL_RUN")
	f.Fuzz(func(t *testing.T, data []byte, variable string) {
		c, err := parse("config.yaml", data, handlers.Kinds(), []string{variable})
		var problems Problems
		var se *SyntaxError
		switch {
		case errors.As(err, &problems):
			if len(problems) == 0 || problems.Error() == "" {
				t.Error("no problem in Problems")
			}
		case errors.As(err, &se):
		case err != nil:
			t.Errorf("the error is neither Problems nor a syntax error: %v", err)
		default:
			sameAgain(t, string(data), c)
		}
	})
}

func TestWebhooks(t *testing.T) {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	c := mustLoad(t, `
callbacks: {allow: [10.1.0.0/16], secret: `+secret+`}
webhooks:
  - {url: https://a.example, types: [email], statuses: [failed], secret: `+secret+`}
  - {url: https://b.example}
`)
	want := []webhook.Webhook{
		{Webhook: jobs.Webhook{URL: "https://a.example", Types: []string{"email"}, Statuses: []jobs.Status{jobs.Failed}}, Secret: []string{secret}},
		{Webhook: jobs.Webhook{URL: "https://b.example"}},
	}
	if got := c.Callbacks.Webhooks; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	text, err := c.YAML()
	if err != nil || strings.Contains(string(text), secret) || !strings.Contains(string(text), `webhooks: [{"url":"https://a.example","types":["email"],"statuses":["failed"],"secret":["********"]},{"url":"https://b.example"}]`) {
		t.Errorf("%v\n%s", err, text)
	}
}

package config

import (
	"strings"
	"testing"

	"jobstream/jobs/handlers"
)

const workerLines = "node: {role: worker}\nbroker: {url: 'nats://t:hush77@a:4222, tls://b'}\n"

func TestWorkerOfThreeLines(t *testing.T) {
	t.Parallel()
	c, err := parse("config.yaml", []byte(workerLines+"jobs: {cat: {run: exec, command: [cat]}}\nserver: {host: 0.0.0.0}"), handlers.Kinds(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !c.IsWorker() || len(c.Exposed()) > 0 || len(c.Jobs) != 1 {
		t.Errorf("%+v", c)
	}
	text, err := c.YAML()
	if err != nil || strings.Contains(string(text), "hush77") {
		t.Errorf("the configuration is printed as %s, %v; want no secrets", text, err)
	}
}

func TestWorkerProblems(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ yaml, want string }{
		{"node: {role: worker}", "broker.url: is missing: a worker (node.role) takes its jobs from there"},
		{workerLines, "jobs: is missing: name the types that this worker does"},
		{workerLines + "schedules: {}", "schedules: means nothing to a worker"},
		{workerLines + "retention: {finished: 1d}", "retention.finished: means nothing to a worker (node.role): it is set at the servers"},
		{workerLines + "server: {auth: {tokens: {a: {scopes: [work]}}}}", "server.auth.tokens.a.scopes: means nothing to a worker"},
		{strings.Replace(workerLines, "}\njob", ", port: 1}\njob", 1) + "worker: {queue_size: 5}", "worker.queue_size: means nothing to a worker"},
		{strings.Replace(workerLines, "'}", "', port: 4222}", 1), "broker.port: means nothing to a worker"},
		{strings.Replace(workerLines, "'}", "', tls: {cert: a}}", 1), "broker.tls.cert: and broker.tls.key go together"},
		{workerLines + "jobs: {a: {run: exec, command: [cat], timeout: 5}}", "jobs.a.timeout: counts where jobs wait"},
		{workerLines + "jobs: {a: {run: exec, command: [cat], backoff: {base: 1s}}}", "jobs.a.backoff.base: counts where jobs wait"},
		{workerLines + "jobs: {a: {run: remote}}", "jobs.a.run: remote is what the servers say of this type"},
		{workerLines + "jobs: {report: {}}", "jobs.report.run: report needs the history"},
		{workerLines + "jobs: {a: {run: email}}", "email.transport: outbox is a folder of a server"},
		{workerLines + "jobs: {a: {run: exec, command: [cat], stdout: artifact}}", "server.public_url: is missing: jobs.a has files"},
		{workerLines + "jobs: {a: {run: http, url: 'http://127.0.0.1:1', async: 1h}}", "jobs.a.async: hands jobs over"},
	} {
		_, err := parse("config.yaml", []byte(tt.yaml), handlers.Kinds(), nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\nsays %v\nwant %s", tt.yaml, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hush77") {
			t.Errorf("%s\ngives a token away: %v", tt.yaml, err)
		}
	}
}

// TestWorkerExample reads the configuration of a worker that the page on deployment has.
func TestWorkerExample(t *testing.T) {
	t.Parallel()
	c, err := Load("../../deploy/worker.yaml", handlers.Kinds(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !c.IsWorker() || c.Jobs["thumb"].Run != "exec" || !strings.HasSuffix(c.Broker.Servers.TLS.CA, "/deploy/ca.pem") {
		t.Errorf("%+v", c.Broker.Servers)
	}
}

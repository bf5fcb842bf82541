package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/cmd/jobstream/internal/cli"
	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/handlers/remote"
)

// gateAnswer is JetStream's answer to a request about a consumer.
type gateAnswer struct {
	Error  *jetstream.APIError       `json:"error"`
	Config *jetstream.ConsumerConfig `json:"config"`
}

func gated(t *testing.T, nc *nats.Conn, subject, body string) gateAnswer {
	t.Helper()
	m, err := nc.Request(subject, []byte(body), patience)
	mustDo(t, err)
	var a gateAnswer
	mustDo(t, json.Unmarshal(m.Data, &a))
	return a
}

// TestContractGate asks for consumers that would deliver elsewhere, or belong to others.
func TestContractGate(t *testing.T) {
	t.Parallel()
	h := roles(t, setup{})
	nc := h.login(t, "read")
	const create, durable = "$JS.API.CONSUMER.CREATE.NOTIFICATIONS.", "$JS.API.CONSUMER.DURABLE.CREATE.NOTIFICATIONS."
	admin, js := adminStreams(t, h.nats)
	for _, name := range []string{"others", "kept"} {
		c := jetstream.ConsumerConfig{Durable: name}
		if name == "others" {
			c.Metadata = map[string]string{"jobstream.owner": "backup"}
		}
		_, err := js.CreateConsumer(t.Context(), "NOTIFICATIONS", c)
		mustDo(t, err)
	}
	for _, c := range []struct{ subject, body, refused string }{
		{create + "a", `{"stream_name":"NOTIFICATIONS","config":{"deliver_subject":"jobstream.cancel"}}`, "deliver_subject"},
		{create + "a", `{"stream_name":"NOTIFICATIONS","config":{"Deliver_Subject":"jobstream.cancel"}}`, "deliver_subject"},
		{create + "a", `{"stream_name":"NOTIFICATIONS","CONFIG":{"deliver_subject":"jobstream.cancel"},"config":{}}`, "deliver_subject"},
		{create + "a", `{"stream_name":"NOTIFICATIONS","config":{"deliver_group":"x"}}`, "deliver_subject"},
		{create + "a", `{"stream_name":"NOTIFICATIONS","config":{"direct":true}}`, "direct"},
		{create + "a", `{"stream_name":"JOBS","config":{}}`, "stream_name"},
		{create + "a", `{"stream_name":"NOTIFICATIONS","config":{"max_waiting":100000000}}`, "max_waiting"},
		{create + "a", `{"stream_name":"NOTIFICATIONS","config":{"filter_subjects":["` + strings.Repeat(`job.a","`, 8000) + `job.b"]}}`, "bytes"},
		{create + "a", `[]`, "not that for a consumer"},
		{create + "a", ``, "not that for a consumer"},
		{durable + "a", `{"stream_name":"NOTIFICATIONS","config":{"durable_name":"b"}}`, "durable"},
		{create + "others", `{"stream_name":"NOTIFICATIONS","config":{"durable_name":"others"}}`, "somebody else's"},
		{"$JS.API.CONSUMER.DELETE.NOTIFICATIONS.others", ``, "somebody else's"},
		{"$JS.API.CONSUMER.DELETE.NOTIFICATIONS.*", ``, "no consumer"},
		{create + "*", `{"stream_name":"NOTIFICATIONS","config":{}}`, "no consumer"},
		{create + ">", `{"stream_name":"NOTIFICATIONS","config":{}}`, "no consumer"},
		{create + "b", `{"stream_name":"NOTIFICATIONS","config":{"Metadata":{"jobstream.owner":"manage"}}}`, ""},
		{create + "c.job.completed.>", `{"stream_name":"NOTIFICATIONS","config":{"filter_subject":"job.completed.>"}}`, ""},
		{durable + "d", `{"stream_name":"NOTIFICATIONS","config":{"durable_name":"d","ack_policy":"explicit"}}`, ""},
	} {
		a := gated(t, nc, c.subject, c.body)
		switch {
		case c.refused == "" && a.Error != nil:
			t.Errorf("%s %.100s: %v", c.subject, c.body, a.Error)
		case c.refused == "":
			if got := a.Config.Metadata["jobstream.owner"]; got != "read" {
				t.Errorf("%s belongs to %q", c.subject, got)
			}
		case a.Error == nil || !strings.Contains(strings.ToLower(a.Error.Description), c.refused):
			t.Errorf("%s %.100s: %+v", c.subject, c.body, a.Error)
		}
	}
	for _, name := range []string{"others", "kept"} {
		if _, err := js.Consumer(t.Context(), "NOTIFICATIONS", name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := nc.Request("$JS.API.CONSUMER.MSG.NEXT.NOTIFICATIONS.others", nil, patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("the messages of somebody else's consumer: %v", err)
	}
	// subjects that no client of the gate can ask for, and a principal that does not exist
	var info struct{ Node string }
	mustDo(t, json.Unmarshal(h.do(http.MethodGet, "/info", "", "Authorization", "Bearer "+adminToken).body, &info))
	gate := "gate." + regexp.MustCompile(`[^A-Za-z0-9_-]`).ReplaceAllString(info.Node, "_") + "."
	for _, subject := range []string{"x.y", "x.$JS.API.CONSUMER.CREATE.NOTIFICATIONS", "x.$JS.API.CONSUMER.DURABLE.CREATE.NOTIFICATIONS"} {
		if a := gated(t, admin, gate+subject, "{}"); a.Error == nil {
			t.Errorf("%s is answered without an error", subject)
		}
	}
	_, err := admin.Request("svc.nobody.stats", nil, patience)
	mustDo(t, err)
}

// TestContractGateFlood asks for consumers faster than they can be made. Each request has
// an answer, or a refusal.
func TestContractGateFlood(t *testing.T) {
	t.Parallel()
	h := roles(t, setup{})
	nc := h.login(t, "read")
	const requests = 1500
	answers, err := nc.SubscribeSync(nc.NewInbox())
	mustDo(t, err)
	for i := range requests {
		mustDo(t, nc.PublishRequest(fmt.Sprintf("$JS.API.CONSUMER.DELETE.NOTIFICATIONS.c%d", i), answers.Subject, nil))
	}
	for i := range requests {
		if _, err := answers.NextMsg(patience); err != nil {
			t.Fatalf("after %d answers: %v", i, err)
		}
	}
}

// TestContractOwnTypes: the server's own types, and those that make jobs of others, are
// not for bare messages of whoever may not make all jobs.
func TestContractOwnTypes(t *testing.T) {
	t.Parallel()
	h := roles(t, setup{change: func(c *config.Config) {
		clear(c.Jobs)
		c.Jobs["import"], c.Jobs["export"] = config.JobType{Run: "import"}, config.JobType{Run: "export"}
		c.Server.Auth.Tokens["both"] = &config.Token{SHA256: access.HashOf(secretOf("both")).String(), Scopes: []string{"submit", "read"}}
	}})
	anonymous, err := nats.Connect(h.nats, nats.NoReconnect())
	mustDo(t, err)
	t.Cleanup(anonymous.Close)
	for _, c := range []struct {
		who     string
		nc      *nats.Conn
		subject string
		allowed bool
	}{
		{"anonymous", anonymous, "jobs.jobstream-webhook", false},
		{"anonymous", anonymous, "jobs.jobstream-webhook.1", false},
		{"anonymous", anonymous, "jobs.jobstream-bulk.3", false},
		{"anonymous", anonymous, "jobs.import", true},
		{"anonymous", anonymous, "jobs.nope", true},
		{"submit", h.login(t, "submit"), "jobs.import", false},
		{"submit", h.login(t, "submit"), "jobs.jobstream-bulk", false},
		{"submit", h.login(t, "submit"), "jobs.nope", false},
		{"both", h.login(t, "both"), "jobs.import.2", true},
		{"both", h.login(t, "both"), "jobs.jobstream-bulk", false},
		{"both", h.login(t, "both"), "jobs.jobstream-webhook", false},
	} {
		refused := make(chan struct{}, 1)
		c.nc.SetErrorHandler(func(*nats.Conn, *nats.Subscription, error) { refused <- struct{}{} })
		answers, err := c.nc.SubscribeSync(c.nc.NewInbox())
		mustDo(t, err)
		mustDo(t, c.nc.PublishRequest(c.subject, answers.Subject, []byte(`{}`)))
		mustDo(t, c.nc.FlushTimeout(patience))
		if c.allowed {
			if m, err := answers.NextMsg(patience); err != nil || !strings.Contains(string(m.Data), `"stream":"JOBS"`) {
				t.Errorf("%s %s: %v", c.who, c.subject, err)
			}
			continue
		}
		select {
		case <-refused:
		case <-time.After(patience):
			t.Errorf("%s may publish on %s", c.who, c.subject)
		}
	}
}

// TestContractRevokedWaits: requests that wait end with the token that they came with,
// whether it is taken away or expires. Those of another token go on.
func TestContractRevokedWaits(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tokens.yaml")
	write := func(lines ...string) {
		t.Helper()
		mustDo(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600))
	}
	line := func(name, more string) string {
		return fmt.Sprintf("%s: {sha256: %s, scopes: [read, work]%s}", name, access.HashOf(secretOf(name)), more)
	}
	write(line("stays", ""), line("goes", ""))
	puppet := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"held": puppet}, change: func(c *config.Config) {
		c.Server.Auth.TokensFile = file
		c.Jobs["thumb"] = config.JobType{Run: "remote", Options: &remote.Options{Lease: time.Minute}, Timeout: time.Minute}
	}})
	job := h.submit(`{"type":"held"}`)
	play := puppet.next(t)
	expired := make(chan struct{})
	var expiring string
	for span := 2 * time.Second; ; span *= 2 { // until it is long enough for this machine
		expiring = line("expires", ", expires: "+time.Now().Add(span).UTC().Format(time.RFC3339))
		write(line("stays", ""), line("goes", ""), expiring)
		deadline := time.Now().Add(span)
		var nc *nats.Conn
		var err error
		for nc == nil && time.Now().Before(deadline) {
			nc, err = nats.Connect(h.nats, nats.UserInfo("expires", secretOf("expires")), nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(expired) }))
		}
		if err == nil && nc != nil {
			t.Cleanup(nc.Close)
			break
		}
		if span > patience {
			t.Fatal(err)
		}
	}

	type outcome struct {
		what string
		code int
		err  error
	}
	ended := make(chan outcome, 10)
	begin := func(name, method, path, body string) {
		r, err := http.NewRequestWithContext(t.Context(), method, h.rest+path, strings.NewReader(body))
		mustDo(t, err)
		r.Header.Set("Authorization", "Bearer "+secretOf(name))
		go func() {
			o := outcome{what: name + " " + path}
			answer, err := h.client.Do(r)
			if o.err = err; err == nil {
				o.code = answer.StatusCode
				_, o.err = io.Copy(io.Discard, answer.Body)
				_ = answer.Body.Close()
			}
			ended <- o
		}()
	}
	wait, follow := "/jobs/"+job.ID+"?wait=5m", "/jobs/"+job.ID+"/log?follow=true"
	for _, name := range []string{"goes", "expires"} {
		begin(name, "GET", wait, "")
		begin(name, "GET", follow, "")
		begin(name, "POST", "/leases", `{"types":["thumb"],"worker":"w","wait":"1m"}`)
	}
	begin("stays", "GET", wait, "")
	follower := h.stream("", "Authorization", "Bearer "+secretOf("goes"))
	write(line("stays", ""), expiring)
	for range 6 {
		select {
		case o := <-ended:
			if o.code != http.StatusUnauthorized && o.err == nil || strings.HasPrefix(o.what, "stays") {
				t.Errorf("%s ends with %d, %v", o.what, o.code, o.err)
			}
		case <-time.After(patience):
			t.Fatal("a request goes on without its token")
		}
	}
	select {
	case <-expired:
	case <-time.After(patience):
		t.Error("a NATS client goes on when its token has expired")
	}
	if e := follower.next(); e.name != "closed" || !strings.Contains(e.data, `"reason":"unauthorized"`) || follower.next().name != "end" {
		t.Errorf("whoever follows changes gets %+v", e)
	}
	play.end <- nil
	select {
	case o := <-ended:
		if o.code != http.StatusOK || o.err != nil {
			t.Errorf("%s ends with %d, %v", o.what, o.code, o.err)
		}
	case <-time.After(patience):
		t.Error("the other token's request does not end")
	}
}

// TestContractSecretsInLogs puts tokens into every place where a client might put them by
// mistake. The log has none of them at its most talkative, nor has an answer.
func TestContractSecretsInLogs(t *testing.T) {
	t.Parallel()
	h := roles(t, setup{change: func(c *config.Config) { c.Log.Level = "debug" }})
	const canary = "jst_canary"
	for _, o := range []nats.Option{nats.UserInfo(canary, ""), nats.UserInfo(canary, canary), nats.UserInfo("read", canary), nats.Token(canary)} {
		if nc, err := nats.Connect(h.nats, nats.NoReconnect(), o); err == nil {
			nc.Close()
			t.Error("the canary is admitted")
		}
	}
	for _, header := range []string{"Bearer " + canary, "bearer  " + canary, "Basic " + canary, canary} {
		r := h.do("GET", "/jobs", "", "Authorization", header)
		r.wantProblem(t, http.StatusUnauthorized, "unauthorized")
		if strings.Contains(string(r.body), canary) {
			t.Errorf("%s is answered with %s", header, r.body)
		}
	}
	h.do("GET", "/jobs?token="+canary, "") // no way to log in, and no line of the log has queries
	h.do("GET", "/jobs", "", "Authorization", "Bearer "+secretOf("read"))
	<-h.log.has("http request")
	nc, err := nats.Connect(h.nats, nats.NoReconnect(), nats.UserInfo(secretOf("read"), "")) // alone, in the user's place
	mustDo(t, err)
	mustDo(t, nc.Publish("jobs.email", nil))
	mustDo(t, nc.FlushTimeout(patience))
	nc.Close()
	h.close()
	for _, secret := range []string{canary, secretOf("read")} {
		if line := h.log.line(secret); line != "" {
			t.Errorf("the log has %s", line)
		}
	}
}

// TestOperatorFile: a link in the token's place is replaced, not followed.
func TestOperatorFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	mustDo(t, os.WriteFile(elsewhere, []byte("mine"), 0o644)) //nolint:gosec // others may read it
	mustDo(t, os.Symlink(elsewhere, filepath.Join(dir, cli.OperatorFile)))
	h := open(t, dir, setup{})
	h.close()
	if text, err := os.ReadFile(elsewhere); err != nil || string(text) != "mine" {
		t.Errorf("the file behind the link has %q, %v", text, err)
	}
	info, err := os.Lstat(filepath.Join(dir, cli.OperatorFile))
	mustDo(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("the file has the mode %v", info.Mode())
	}
	if err := writeNew(filepath.Join(dir, cli.OperatorFile), "x"); err == nil {
		t.Error("a file that is there is written")
	}
}

// TestContractSubscriptions: a connection has a bounded number of subscriptions.
func TestContractSubscriptions(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	refused := make(chan error, 1)
	nc, err := nats.Connect(h.nats, nats.NoReconnect(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		select {
		case refused <- err:
		default:
		}
	}))
	mustDo(t, err)
	t.Cleanup(nc.Close)
	messages := make(chan *nats.Msg, 1)
	for i := range 11_000 {
		if _, err := nc.ChanSubscribe(fmt.Sprintf("job.completed.x.%d", i), messages); err != nil {
			break // it has been closed
		}
	}
	select {
	case err := <-refused:
		if !errors.Is(err, nats.ErrMaxSubscriptionsExceeded) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("there is no bound")
	}
	if r := h.do("GET", "/readyz", ""); r.code != http.StatusOK {
		t.Errorf("the server is not ready: %s", r.body)
	}
}

// TestContractForgedMove: a bare message that claims to be a job published again changes
// nothing of that job.
func TestContractForgedMove(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	before := h.submit(`{"type":"report","delay":"1h"}`)
	nc := h.dial()
	for _, subject := range []string{"jobs.report.3", "jobs.report.1", "jobs.email.3"} {
		h.accepted(nc, subject, `{"forged":true}`, "Job-Id", before.ID, "Job-Moved", "1", "Job-Tags", "forged", "Job-Callback-Url", "https://example.com")
	}
	h.await(h.accepted(nc, "jobs.report.3", `{}`), "completed") // so the messages before it have been read
	after := h.job(before.ID)
	if string(after.Payload) != string(before.Payload) || !after.CreatedAt.Equal(before.CreatedAt) || len(after.Tags) != 0 || after.Type != "report" || after.Status != before.Status || after.Seq != before.Seq {
		t.Errorf("the job was %+v, and is %+v", before, after)
	}
}

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/api"
	"jobstream/jobs/jobstest"
)

// roles is a server with a token for each scope, and one for two types alone. The tokens
// are "secret of NAME".
func roles(t *testing.T, s setup) *house {
	t.Helper()
	change := s.change
	s.change = func(c *config.Config) {
		knowRoles(c)
		c.Server.Auth.Tokens["mailer"] = &config.Token{
			SHA256: access.HashOf(secretOf("mailer")).String(), Scopes: []string{"submit"}, Types: []string{"email"},
		}
		if change != nil {
			change(c)
		}
	}
	return open(t, t.TempDir(), s)
}

// knowRoles adds a token for each scope.
func knowRoles(c *config.Config) {
	for _, scope := range access.Scopes() {
		c.Server.Auth.Tokens[string(scope)] = &config.Token{SHA256: access.HashOf(secretOf(string(scope))).String(), Scopes: []string{string(scope)}}
	}
}

func secretOf(name string) string { return "secret of " + name }

// TestContractScopes asks for everything that REST offers with each scope, and with none.
func TestContractScopes(t *testing.T) {
	t.Parallel()
	h := roles(t, setup{change: func(c *config.Config) { c.Server.Auth.Anonymous = []string{} }})
	for _, scope := range access.Scopes() { // they were thought up, so they count here only if they have been used
		h.do(http.MethodGet, "/jobs", "", "Authorization", "Bearer "+secretOf(string(scope)))
	}
	for _, op := range api.Operations() {
		method, path, offered := strings.Cut(op.Route, " ")
		if !offered {
			continue
		}
		path = strings.NewReplacer("{id}", jobs.NewID().String(), "{type}", "nope", "{name}", "nope", "{lease}", "nope").Replace(path)
		if op.Name == "events" {
			path += "?status=nope" // an error ends it
		}
		body := ""
		if method != http.MethodGet {
			body = "{}"
		}
		r := h.do(method, path, body)
		r.wantProblem(t, http.StatusUnauthorized, "unauthorized")
		if got := r.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer ") {
			t.Errorf("%s %s asks for a login by %q", method, path, got)
		}
		if r := h.do(method, path, body, "Authorization", "Bearer nonsense"); r.code != http.StatusUnauthorized && r.code != http.StatusTooManyRequests {
			t.Errorf("%s %s with nonsense: %d %s", method, path, r.code, r.body)
		}
		for _, scope := range access.Scopes() {
			if scope == op.Scope || scope == access.Admin || scope == access.Submit && op.Own || op.Scope == api.Anyone {
				if code := h.code(method, path, body, bearer(secretOf(string(scope)))...); code == http.StatusForbidden || code == http.StatusUnauthorized {
					t.Errorf("%s %s with the scope %s: %d", method, path, scope, code)
				}
				continue
			}
			r := h.do(method, path, body, bearer(secretOf(string(scope)))...)
			if p := r.wantProblem(t, http.StatusForbidden, "forbidden"); !strings.Contains(p.Detail, "the scope "+string(op.Scope)) {
				t.Errorf("%s %s with the scope %s: %s", method, path, scope, p.Detail)
			}
		}
	}
	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		if r := h.do(http.MethodGet, path, ""); r.code != http.StatusOK {
			t.Errorf("%s is answered with %d", path, r.code)
		}
	}
}

// TestContractTargets: the scope of a submission is that of what its type does, wherever
// the submission stands.
func TestContractTargets(t *testing.T) {
	t.Parallel()
	h := roles(t, setup{change: func(c *config.Config) { c.Jobs["import"] = config.JobType{Run: "import"} }})
	as := func(name string) []string { return []string{"Authorization", "Bearer " + secretOf(name)} }
	mail := `{"type":"email","payload":` + letter + `}`
	for _, c := range []struct {
		who, method, path, body, want string // want is part of the refusal; "" = it is done
	}{
		{"submit", "POST", "/jobs", mail, ""},
		{"mailer", "POST", "/jobs", mail, ""},
		{"mailer", "POST", "/jobs/batch", `{"jobs":[` + mail + `,` + mail + `]}`, ""},
		{"mailer", "POST", "/jobs", `{"type":"report"}`, `of email only, not of "report"`},
		{"mailer", "POST", "/jobs/batch", `{"jobs":[` + mail + `,{"type":"email2"}]}`, `of email only, not of "email2"`},
		{"submit", "POST", "/jobs", `{"type":"export"}`, `"export" need the scope read`},
		{"submit", "POST", "/jobs", `{"type":"cleanup","payload":{"older_than":"0s"}}`, `"cleanup" need the scope manage`},
		{"submit", "POST", "/jobs", `{"type":"jobstream-bulk","payload":{"action":"delete","all":true}}`, `"jobstream-bulk" need the scope manage`},
		{"submit", "POST", "/jobs/batch", `{"jobs":[` + mail + `,{"type":"export"}]}`, `"export" need the scope read`},
		{"submit", "POST", "/jobs", `{"type":"import","payload":{"type":"export"}}`, `"export" need the scope read`},
		{"manage", "POST", "/schedules", `{"name":"a","every":"1h","type":"export"}`, "the scope submit"},
		{"manage", "PUT", "/schedules/a", `{"every":"1h","type":"export"}`, "the scope submit"},
		{"admin", "POST", "/schedules", `{"name":"a","every":"1h","type":"export"}`, ""},
		{"manage", "POST", "/schedules/a/run", ``, "the scope submit"},
	} {
		r := h.do(c.method, c.path, c.body, as(c.who)...)
		switch {
		case c.want == "" && r.code >= 300:
			t.Errorf("%s %s %s %s: %d %s", c.who, c.method, c.path, c.body, r.code, r.body)
		case c.want != "":
			if p := r.wantProblem(t, http.StatusForbidden, "forbidden"); !strings.Contains(p.Detail, c.want) {
				t.Errorf("%s %s %s %s: %s", c.who, c.method, c.path, c.body, p.Detail)
			}
		}
	}
	// an idempotency key is the principal's own, and the same at both doors
	first := readJob(t, h.do("POST", "/jobs", mail, append(as("submit"), "Idempotency-Key", "k")...).body)
	other := readJob(t, h.do("POST", "/jobs", mail, append(as("mailer"), "Idempotency-Key", "k")...).body)
	again := readJob(t, h.do("POST", "/jobs", mail, append(as("submit"), "Idempotency-Key", "k")...).body)
	nc := h.login(t, "submit")
	m, err := keyed(nc, "submit", mail, "k")
	mustDo(t, err)
	if first.ID == other.ID || first.ID != again.ID || readJob(t, m.Data).ID != first.ID {
		t.Errorf("the key means %s, %s, %s and %s", first.ID, other.ID, again.ID, m.Data)
	}
}

// login connects to the NATS port with the token of a role.
func (h *house) login(t *testing.T, name string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(h.nats, nats.UserInfo(name, secretOf(name)), nats.NoReconnect())
	mustDo(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// TestContractNATSLogin: a token comes as the password of its name, or alone.
func TestContractNATSLogin(t *testing.T) {
	t.Parallel()
	h := roles(t, setup{change: func(c *config.Config) { c.Server.Auth.Anonymous = []string{} }})
	host := strings.TrimPrefix(h.nats, "nats://")
	for how, want := range map[string]bool{
		"nats://" + host: false,
		"nats://read:" + "secret%20of%20read@" + host:            true,
		"nats://submit:" + "secret%20of%20read@" + host:          false,
		"nats://" + "secret%20of%20read@" + host:                 true,
		"nats://nonsense@" + host:                                false,
		"nats://read:nonsense@" + host:                           false,
		"nats://anonymous:@" + host:                              false,
		"nats://admin:" + strings.Repeat("x", 5000) + "@" + host: false,
		"nats://tests:" + adminToken + "@" + host:                true,
		"nats://" + adminToken + "@" + host:                      true,
		"nats://read:" + adminToken + "@" + host:                 false,
	} {
		nc, err := nats.Connect(how, nats.NoReconnect())
		if (err == nil) != want {
			t.Errorf("%.60s: %v", how, err)
		}
		if err == nil {
			nc.Close()
		}
	}
}

// TestContractNATSTool types the commands of the nats tool as each role. A refusal must
// come as one, and change nothing.
func TestContractNATSTool(t *testing.T) {
	t.Parallel()
	tool := jobstest.Tool(t, "nats")
	h := roles(t, setup{})
	try := func(who string, timeout time.Duration, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*timeout) // some go on after a refusal
		defer cancel()
		args = append([]string{"--server", h.nats, "--timeout", timeout.String()}, args...)
		if who != access.Anonymous {
			args = append([]string{"--user", who, "--password", secretOf(who)}, args...)
		}
		cmd := exec.CommandContext(ctx, tool, args...)
		cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	run := func(who string, args ...string) (string, error) { return try(who, patience, args...) }
	job := h.await(h.submit(`{"type":"report"}`).ID, "completed")
	everybody := []string{"anonymous", "submit", "read", "manage", "work"}
	commands := []struct {
		command string
		allowed string // the roles
		says    string // to them
	}{
		{`req jobstream.submit {"type":"email","payload":` + letter + `}`, "anonymous submit", `"status":"pending"`},
		{`req jobs.email ` + letter, "anonymous submit", `"stream":"JOBS"`},
		{`req jobs.export.1 {}`, "anonymous", `"stream":"JOBS"`},
		{`req jobs.cleanup {"older_than":"1d"}`, "anonymous", `"stream":"JOBS"`},
		{`req jobstream.get {"id":"` + job.ID + `"}`, "anonymous read", `"status":"completed"`},
		{`req jobstream.stats {}`, "anonymous read", `"active_workers"`},
		{`req jobstream.pause {"type":"export"}`, "anonymous manage", `"paused":true`},
		{`req jobstream.resume {"type":"export"}`, "anonymous manage", `"paused":false`},
		{`req jobstream.log_level {"level":"debug"}`, "", ""},
		{`micro ls`, "anonymous read", "jobstream"},
		{`micro stats jobstream`, "anonymous read", "submit"},
		{`stream info JOBS`, "anonymous read", "jobs.>"},
		{`stream ls`, "anonymous read", "NOTIFICATIONS"},
		{`consumer ls JOBS`, "anonymous read", "email-3"},
		{`consumer add NOTIFICATIONS of-WHO --pull --filter job.completed.> --defaults`, "anonymous read", "of-"},
		{`consumer next NOTIFICATIONS of-WHO`, "anonymous read", job.ID},
		{`consumer rm -f NOTIFICATIONS of-WHO`, "anonymous read", ""},

		{`stream purge -f JOBS`, "", ""},
		{`stream rm -f NOTIFICATIONS`, "", ""},
		{`stream edit -f JOBS --max-msgs 1`, "", ""},
		{`stream add EVIL --subjects evil.> --defaults`, "", ""},
		{`stream get JOBS 1`, "", ""},
		{`stream rmm -f STATUS 1`, "", ""},
		{`consumer add NOTIFICATIONS evil --target jobs.email --filter job.> --ack none --defaults`, "", ""},
		{`consumer add JOBS evil --pull --defaults`, "", ""},
		{`consumer rm -f JOBS email-3`, "", ""},
		{`consumer next JOBS email-3`, "", ""},
		{`req status.completed.email.x {}`, "", ""},
		{`req job.completed.email.x {}`, "", ""},
		{`req svc.admin.pause {"type":"email"}`, "", ""},
		{`req gate.read.$JS.API.CONSUMER.DELETE.JOBS.email-3 {}`, "", ""},
		{`req $SYS.REQ.SERVER.PING {}`, "", ""},
		{`sub > --count 1`, "", ""},
		{`sub jobs.> --count 1`, "", ""},
		{`sub status.> --count 1`, "", ""},
		{`reply jobstream.submit {}`, "", ""},
	}
	var all sync.WaitGroup
	for _, who := range everybody {
		all.Go(func() {
			for _, c := range commands {
				command := strings.ReplaceAll(c.command, "WHO", who)
				allowed := slices.Contains(strings.Fields(c.allowed), who)
				timeout := time.Second // of a request that nobody answers
				if allowed {
					timeout = patience
				}
				out, err := try(who, timeout, fields(command)...)
				refused := err != nil || strings.Contains(out, "ermissions") || strings.Contains(out, `"code":"forbidden"`) || strings.Contains(out, `"code":"not_found"`) || strings.Contains(out, "Delete failed") || strings.Contains(out, "No results")
				if allowed && (err != nil || !strings.Contains(out, c.says)) || !allowed && !refused {
					t.Errorf("%s: nats %s: %v\n%s", who, command, err, out)
				}
			}
		})
	}
	all.Wait()
	if out, err := run("admin", "stream", "purge", "-f", "STATUS"); err != nil {
		t.Errorf("admin: %v\n%s", err, out)
	}
	// somebody else's consumer
	if out, err := run("read", fields("consumer add NOTIFICATIONS own --pull --filter job.> --defaults")...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, command := range []string{"consumer next NOTIFICATIONS own", "consumer rm -f NOTIFICATIONS own", "consumer add NOTIFICATIONS own --pull --filter job.> --defaults"} {
		if out, err := try("anonymous", time.Second, fields(command)...); err == nil && !strings.Contains(out, "Delete failed") {
			t.Errorf("anonymous: nats %s\n%s", command, out)
		}
	}
	if out, err := run("read", "consumer", "next", "NOTIFICATIONS", "own"); err != nil || !strings.Contains(out, job.ID) {
		t.Errorf("its owner: %v\n%s", err, out)
	}
}

// fields splits a command at spaces, but not within braces.
func fields(command string) (all []string) {
	depth, start := 0, 0
	for i, c := range command + " " {
		switch {
		case c == '{':
			depth++
		case c == '}':
			depth--
		case c == ' ' && depth == 0:
			if i > start {
				all = append(all, command[start:i])
			}
			start = i + 1
		}
	}
	return all
}

// TestContractTokensFile changes the file of tokens while it is used: a token that goes is
// refused at both doors, and its clients are cut off. A mistake changes nothing.
func TestContractTokensFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tokens.yaml")
	write := func(lines ...string) {
		t.Helper()
		mustDo(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600))
	}
	line := func(name, scopes string) string {
		return fmt.Sprintf("%s: {sha256: %s, scopes: [%s]}", name, access.HashOf(secretOf(name)), scopes)
	}
	write(line("stays", "read"), line("goes", "read"))
	h := open(t, t.TempDir(), setup{change: func(c *config.Config) { c.Server.Auth.TokensFile = file }})
	status := func(name string) int { return h.do("GET", "/jobs", "", "Authorization", "Bearer "+secretOf(name)).code }
	stays, goes := h.login(t, "stays"), h.login(t, "goes")
	if status("stays") != 200 || status("goes") != 200 || status("comes") != 401 {
		t.Fatal("the tokens of the file do not count")
	}
	write(line("stays", "read"), line("comes", "read, nonsense"))
	select {
	case <-h.log.has("the tokens stay as they were"):
	case <-time.After(patience):
		t.Fatal("the mistake is not logged")
	}
	if status("stays") != 200 || status("goes") != 200 {
		t.Error("a mistake changed something")
	}
	gone := make(chan struct{})
	goes.SetClosedHandler(func(*nats.Conn) { close(gone) })
	write(line("stays", "read"), line("comes", "read"))
	select {
	case <-gone:
	case <-time.After(patience):
		t.Fatal("its client is not cut off")
	}
	if status("stays") != 200 || status("goes") != 401 || status("comes") != 200 {
		t.Error("the file's tokens do not count")
	}
	if err := stays.FlushTimeout(patience); err != nil {
		t.Errorf("the other client: %v", err)
	}
}

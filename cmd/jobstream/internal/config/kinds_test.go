package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers"
	"jobstream/jobs/setting"
)

// tool has options of every sort.
type tool struct {
	command []string
	env     map[string]string
	user    string
	as      string
	linger  time.Duration
	token   string
	headers map[string]string
	keys    []string
}

func (o *tool) Settings() []setting.Setting {
	return []setting.Setting{
		setting.Texts("command", &o.command),
		setting.Map("env", &o.env),
		setting.Text("user", &o.user),
		setting.OneOf("as", &o.as, "group", "single"),
		setting.Duration("linger", &o.linger, 0, time.Hour),
		setting.Secret(setting.Text("login.token", &o.token)),
		setting.Secret(setting.Map("login.headers", &o.headers)),
		setting.Secret(setting.OneOrMore("login.keys", &o.keys)),
	}
}

func (o *tool) Check(_ string, fail func(path, text string)) {
	if len(o.command) == 0 {
		fail("command", "is required")
	}
}

func (o *tool) Grace() time.Duration { return o.linger }

var withTool = append(handlers.Kinds(), handlers.With("tool", func() *tool { return &tool{as: "group", linger: 5 * time.Second} },
	func(_ *handlers.Server, _ *tool) (jobs.Handler, error) { return nil, errors.New("never made here") }))

const toolYAML = `
jobs:
  backup:
    run: tool
    command: [pg_dump, "-d", main]
    env: {PATH: "/bin", "A.B": "c: d", empty: ""}
    linger: 30s
    login: {token: hunter2, headers: {Authorization: hunter2}, keys: hunter2}
  other: {run: tool, command: [a], user: me, as: single}
  email: {}
`

func TestOptionsOfAKind(t *testing.T) {
	c, err := parse("config.yaml", []byte(toolYAML), withTool, []string{"JOBSTREAM_JOBS_OTHER_LINGER=7s"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]handlers.Options{
		"backup": &tool{
			command: []string{"pg_dump", "-d", "main"}, as: "group", linger: 30 * time.Second,
			env:   map[string]string{"PATH": "/bin", "A.B": "c: d", "empty": ""},
			token: "hunter2", headers: map[string]string{"Authorization": "hunter2"}, keys: []string{"hunter2"},
		},
		"other": &tool{command: []string{"a"}, user: "me", as: "single", linger: 7 * time.Second},
		"email": nil,
	} {
		if got := c.Jobs[name].Options; !reflect.DeepEqual(got, want) {
			t.Errorf("%s has %+v, not %+v", name, got, want)
		}
	}
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hunter2") {
		t.Errorf("a secret is shown:\n%s", text)
	}
	secret := c.Jobs["backup"].Options.(*tool)
	secret.token, secret.headers, secret.keys = mask, map[string]string{"Authorization": mask}, []string{mask}
	sameAgain(t, "with options", c)
}

// TestTheRunFromTheEnvironment sets the run of a type, which decides its keys.
func TestTheRunFromTheEnvironment(t *testing.T) {
	c, err := parse("config.yaml", []byte("jobs: {email: {command: [a]}}"), withTool, []string{"JOBSTREAM_JOBS_EMAIL_RUN=tool"})
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := c.Jobs["email"].Options.(*tool); !ok || len(o.command) != 1 {
		t.Errorf("got %+v", c.Jobs["email"])
	}
}

// TestTheRunOfAShippedType sets it for a shipped type.
func TestTheRunOfAShippedType(t *testing.T) {
	for file, yaml := range map[string]string{"": "", "config.yaml": "log: {level: warn}"} {
		_, err := parse(file, []byte(yaml), withTool, []string{"JOBSTREAM_JOBS_EMAIL_RUN=tool"})
		if want := "jobs.email.command: is required"; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("with %q the error is %v, want %s", yaml, err, want)
		}
	}
}

// TestKindsShareNoKeys compares the keys of each kind with those that every type has.
func TestKindsShareNoKeys(t *testing.T) {
	for _, kind := range withTool {
		seen := make(map[string]bool)
		for _, k := range (namedType{"x", newType(kind)}).keys(nil) {
			if seen[k.Path] {
				t.Errorf("%s: %s is there twice", kind.Name, k.Path)
			}
			seen[k.Path] = true
		}
	}
}

func TestOptionProblems(t *testing.T) {
	tests := []struct{ yaml, env, want string }{
		{"jobs:\n  a:\n    run: tool\n", "", "jobs.a.command: is required (config.yaml line 2)"},
		{"jobs:\n  a:\n    run: tool\n    command:\n", "", "jobs.a.command: is required (config.yaml line 4)"},
		{"jobs: {tool: {command: ls}}", "", `jobs.tool.command: "ls" is not a list of texts, like [one, two] (a number needs quotes) (config.yaml line 1)`},
		{"jobs: {tool: {command: [a, 1]}}", "", `jobs.tool.command: a list with 1 in it is not a list of texts, like [one, two] (a number needs quotes) (config.yaml line 1)`},
		{"jobs: {tool: {command: [a], env: [a]}}", "", `jobs.tool.env: a list is not a section of names with texts (a number needs quotes) (config.yaml line 1)`},
		{"jobs: {tool: {command: [a], env: {A: 1}}}", "", `jobs.tool.env: a section with 1 in it is not a section of names with texts (a number needs quotes) (config.yaml line 1)`},
		{"jobs: {tool: {command: [a], login: {headers: {A: [x]}}}}", "", `jobs.tool.login.headers: the value is not a section of names with texts (a number needs quotes) (config.yaml line 1)`},
		{"jobs: {tool: {command: [a], login: {keys: 1}}}", "", `jobs.tool.login.keys: the value is not text or a list of texts (a number needs quotes) (config.yaml line 1)`},
		{"jobs: {tool: {command: [a], linger: 2h}}", "", `jobs.tool.linger: "2h" is not seconds or a duration like 90s, 5m, 12h or 30d, from 0s to 1h (config.yaml line 1)`},
		{"jobs: {tool: {command: [a], liner: 2}}", "", "jobs.tool.liner: is not a known key; did you mean jobs.tool.linger? (config.yaml line 1)"},
		{"jobs: {tool: {command: [a], login: {tokn: a}}}", "", "jobs.tool.login.tokn: is not a known key; did you mean jobs.tool.login.token? (config.yaml line 1)"},
		{"jobs: {email: {command: [a]}}", "", "jobs.email.command: is not a known key; jobs.email has run, description, schema, retry_count, timeout, max_workers, concurrency_per_key, rate, burst, backoff, inputs (config.yaml line 1)"},
		{"jobs: {tool: {command: [a]}}", "JOBS_TOOL_LINGER=x", `jobs.tool.linger: "x" is not seconds or a duration like 90s, 5m, 12h or 30d, from 0s to 1h (from JOBSTREAM_JOBS_TOOL_LINGER)`},
		{"jobs: {tool: {command: [a]}}", "JOBS_TOOL_COMMAND=x", "JOBSTREAM_JOBS_TOOL_COMMAND: is not a known variable: lists are set in the file only"},
		{"jobs: {tool: {command: [a]}}", "JOBS_TOOL_ENV_PATH=x", "JOBSTREAM_JOBS_TOOL_ENV_PATH: is not a known variable: sections of names are set in the file only"},
		{"jobs: {x: {}}", "", "jobs.x: says nothing about what runs it; set jobs.x.run to one of email, export, cleanup, report, import, exec, nats, http, remote, tool (config.yaml line 1)"},
		{"jobs: {x: {run: tol}}", "", `jobs.x.run: "tol" is not one of email, export, cleanup, report, import, exec, nats, http, remote, tool (config.yaml line 1)`},
		{"jobs: {}", "", "jobs: has no type in it; name at least one, or leave the section out for email, export, cleanup, report (config.yaml line 1)"},
	}
	for _, tt := range tests {
		_, err := parse("config.yaml", []byte(tt.yaml), withTool, []string{"JOBSTREAM_" + tt.env})
		if tt.env == "" {
			_, err = parse("config.yaml", []byte(tt.yaml), withTool, nil)
		}
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s with %q says\n%v\nnot\n%s", tt.yaml, tt.env, err, tt.want)
		}
	}
}

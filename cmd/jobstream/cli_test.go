package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/alecthomas/kong"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// apiDescription is what the tests of the commands read of /openapi.json.
type apiDescription struct {
	Paths map[string]map[string]struct {
		Parameters []struct{ Name, In string }
	}
	Components struct {
		Schemas map[string]struct{ Properties map[string]any }
	}
}

func (h *house) apiDescription() (d apiDescription) {
	h.t.Helper()
	mustDo(h.t, json.Unmarshal(h.do(http.MethodGet, "/openapi.json", "").body, &d))
	return d
}

// operation finds the operation of a request; "" = it is not described. undescribed are
// the query parameters that it does not have.
func (d *apiDescription) operation(r *http.Request) (name string, undescribed []string) {
	for path, methods := range d.Paths {
		pattern := regexp.MustCompile(`\\\{[^}]*\\\}`).ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`)
		o, has := methods[strings.ToLower(r.Method)]
		if !has || !regexp.MustCompile("^"+pattern+"$").MatchString(r.URL.EscapedPath()) {
			continue
		}
		if name != "" && strings.Contains(path, "{") {
			continue // /jobs/counts rather than /jobs/{id}
		}
		name, undescribed = r.Method+" "+path, nil
		for q := range r.URL.Query() {
			if !slices.ContainsFunc(o.Parameters, func(p struct{ Name, In string }) bool { return p.In == "query" && p.Name == q }) {
				undescribed = append(undescribed, q)
			}
		}
	}
	return name, undescribed
}

// TestCommandsAreDescribed: the commands make no request that /openapi.json does not
// describe, and their requests and the answers are as it describes them.
func TestCommandsAreDescribed(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{
		"fine": jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil }),
		"broken": jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) {
			return jobs.Result{}, jobs.Permanent(errors.New("no"))
		}),
	}})
	d := h.apiDescription()
	to, err := url.Parse(h.rest)
	mustDo(t, err)
	proxy := httputil.NewSingleHostReverseProxy(to)
	transport := &http.Transport{}
	proxy.Transport, proxy.FlushInterval = &described{t, transport}, -1
	var mu sync.Mutex
	used := map[string]bool{}
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, undescribed := d.operation(r)
		if name == "" || len(undescribed) > 0 {
			t.Errorf("%s %s is not described; parameters %q are not", r.Method, r.URL, undescribed)
		}
		mu.Lock()
		used[name] = true
		mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	defer transport.CloseIdleConnections()
	defer between.Close()
	enter := func(want int, args ...string) {
		t.Helper()
		var errors strings.Builder
		if code := run(t.Context(), args, []string{"JOBSTREAM_URL=" + between.URL}, io.Discard, &errors); code != want {
			t.Errorf("%q ends with %d, want %d: %s", args, code, want, errors.String())
		}
	}
	h.do(http.MethodPost, "/schedules", `{"name":"s","every":"1h","type":"fine"}`)
	for range 2 {
		enter(exitFailed, "submit", "broken", "--wait", "--retry-count=0")
	}
	enter(exitOK, "submit", "fine", "--wait", "--tag=a", "--tag=b", "--priority=1", "--unique-key=u", "--concurrency-key=k", "--ttl=1h",
		"--timeout=5s", "--deadline=1h", "--idempotency-key=i", "-p", "{}")
	enter(exitOK, "submit", "fine", "--delay=1h", "--expires-at=2100-01-01T00:00:00Z")
	enter(exitOK, "submit", "fine", "--run-at=2100-01-01T00:00:00Z")
	for _, form := range []string{"table", "json"} {
		for _, args := range [][]string{
			{"jobs", "--waiting", "--order=asc", "--order-by=created", "--limit=2"},
			{"jobs", "--status=failed", "--type=broken", "--tag=x", "--priority=3", "--created-by=me", "--fingerprint=0123456789abcdef", "--schedule=s", "--concurrency-key=k", "--unique-key=u"},
			{"jobs", "--error=no", "--payload=x", "-q", "x", "--created-after=1h", "--created-before=2100-01-01", "--started-after=1h", "--started-before=1m", "--ended-after=1h", "--ended-before=1m", "--id=0123"},
			{"job", "1"},
			{"job", "1", "--events"},
			{"log", "1", "-f", "--attempt=1", "--tail=3"},
			{"types"},
			{"types", "fine"},
			{"pause", "fine"},
			{"resume", "fine"},
			{"pause", "--workers"},
			{"resume", "--workers"},
			{"schedules"},
			{"schedules", "s"},
			{"schedules", "pause", "s"},
			{"schedules", "resume", "s"},
			{"schedules", "run", "s"},
			{"failures", "--type=broken", "--order-by=count", "--limit=3"},
			{"stats"},
			{"log-level"},
			{"retry", "--type=broken", "--priority=3", "--dry-run"},
			{"retry", "--status=failed", "--yes"},
		} {
			enter(exitOK, append(args, "-o", form)...)
		}
	}
	enter(exitOK, "run", "4")
	enter(exitOK, "cancel", "5", "--reason=none")
	enter(exitOK, "retry", "5")
	enter(exitOK, "delete", "3")
	enter(exitOK, "schedules", "delete", "s")
	for _, words := range []string{"job", "jobs --tag", "submit", "schedules run", "retry --fingerprint", "cancel", "cancel 0123"} {
		enter(exitOK, append(append([]string{"__complete", "--"}, strings.Fields(words)...), "")...)
	}
	for _, args := range [][]string{{"log-level", "info"}, {"backup", filepath.Join(t.TempDir(), "b.tar")}, {"doctor"}} {
		enter(exitOK, append(args, "--token", adminToken)...)
	}
	enter(exitBroken, "reload", "--token", adminToken) // this server has no configuration to read again
	enter(exitOK, "demo", "--for=1s", "--rate=50", "--type=fine")
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan int)
	go func() {
		ended <- run(ctx, []string{"tail", "--type=fine", "--status=completed"}, []string{"JOBSTREAM_URL=" + between.URL}, in, io.Discard)
	}()
	waitUntil(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return used["GET /events"]
	})
	go func() { _, _ = h.try(ctx, http.MethodPost, "/jobs", `{"type":"fine","delay":"1s"}`) }()
	line := make([]byte, 4096)
	n, err := out.Read(line)
	mustDo(t, err)
	if !strings.HasPrefix(string(line[:n]), `{"event":"job.completed","job":{"id":`) {
		t.Errorf("tail prints %q", line[:n])
	}
	cancel()
	if code := <-ended; code != exitOK {
		t.Errorf("tail ends with %d", code)
	}
	for _, want := range []string{"POST /jobs", "GET /jobs/{id}", "POST /jobs/bulk", "GET /tags", "DELETE /jobs/{id}", "POST /jobs/{id}/run", "GET /failures", "PUT /log", "GET /backup", "GET /doctor", "POST /reload", "POST /jobs/batch"} {
		if !used[want] {
			t.Errorf("no command has used %s: %v", want, used)
		}
	}
}

// TestFlagsAreParameters: jobs has a flag for each parameter of GET /jobs, and submit one
// for each field of a submission.
func TestFlagsAreParameters(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	d := h.apiDescription()
	parser, err := kong.New(&commands{})
	mustDo(t, err)
	flags := func(command string) (all []string) {
		for _, c := range parser.Model.Children {
			if c.Name != command {
				continue
			}
			for _, f := range c.Flags {
				all = append(all, f.Name)
			}
			for _, p := range c.Positional {
				all = append(all, p.Name)
			}
		}
		return all
	}
	for _, c := range []struct {
		command string
		names   []string
		other   map[string]string // names of flags that differ
	}{
		{"jobs", nil, map[string]string{"include": "waiting"}},
		{"submit", nil, map[string]string{"inputs": "input", "tags": "tag"}},
		{"tail", nil, map[string]string{"digest": "count", "last_event_id": "count"}}, // it does these by itself
		{"failures", nil, nil},
	} {
		switch c.command {
		case "submit":
			for name := range d.Components.Schemas["Submission"].Properties {
				c.names = append(c.names, name)
			}
		default:
			path := map[string]string{"jobs": "/jobs", "tail": "/events", "failures": "/failures"}[c.command]
			for _, p := range d.Paths[path]["get"].Parameters {
				if p.In == "query" {
					c.names = append(c.names, p.Name)
				}
			}
		}
		if len(c.names) < 4 {
			t.Fatalf("%s: only %q are described", c.command, c.names)
		}
		for _, name := range c.names {
			flag := strings.ReplaceAll(name, "_", "-")
			if other := c.other[name]; other != "" {
				flag = other
			}
			if !slices.Contains(flags(c.command), flag) {
				t.Errorf("%s has no --%s", c.command, flag)
			}
		}
	}
}

// TestCompletion: what stands at a place, with the types and ids of the server.
func TestCompletion(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{
		"fine": jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil }),
	}})
	h.do(http.MethodPost, "/jobs", `{"type":"fine","tags":["north","$(reboot)"]}`)
	h.do(http.MethodGet, "/jobs/1?wait=60s", "")
	h.do(http.MethodPost, "/jobs", `{"type":"fine","delay":"1h"}`)
	for _, c := range []struct{ words, want string }{
		{"su", "submit"},
		{"submit f", "fine"},
		{"submit --prio", "--priority"},
		{"jobs --status can", "cancelled"},
		{"jobs --type=x --type f", "fine"},
		{"jobs --tag ", "north"},
		{"job ", "1 2"},
		{"run ", "2"},
		{"delete ", "1"},
		{"completion ", "bash zsh fish"},
		{"schedules pa", "pause"},
		{"jobs --order ", "desc asc"},
		{"nothing here ", ""},
		{"job --url http://127.0.0.1:1 ", ""},
		{"types --output ", "auto table json"},
		{"log-level ", "debug info warn error"},
	} {
		var out strings.Builder
		args := append([]string{"__complete", "--"}, strings.Split(c.words, " ")...)
		if code := run(t.Context(), args, []string{"JOBSTREAM_URL=" + h.rest}, &out, io.Discard); code != exitOK {
			t.Errorf("%q ends with %d", c.words, code)
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			word, _, _ := strings.Cut(line, "\t")
			got = append(got, word)
		}
		if fmt.Sprint(got) != fmt.Sprint(strings.Fields(c.want)) {
			t.Errorf("%q may go on with %q, want %q", c.words, got, c.want)
		}
	}
}

// TestCompletionInBash: the script for bash offers the types and the jobs of the server.
func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	bash := jobstest.Tool(t, "bash")
	bin, err := built()
	mustDo(t, err)
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"fine": jobs.HandlerFunc(nothing)}})
	h.submit(`{"type":"fine","delay":"1h"}`)
	for words, want := range map[string]string{"submit f": "fine", "run ''": "1", "log-level wa": "warn", "jobs --sta": "--status --started-after --started-before"} {
		script := `source <(jobstream completion bash); COMP_WORDS=(jobstream ` + words + `); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _jobstream; echo "${COMPREPLY[*]}"`
		cmd := exec.CommandContext(t.Context(), bash, "--norc", "-c", script)
		cmd.Env = append(cleanEnviron(), "JOBSTREAM_URL="+h.rest, "PATH="+filepath.Dir(bin)+string(os.PathListSeparator)+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("after %q bash offers %q, %v, want %q", words, got, err, want)
		}
	}
}

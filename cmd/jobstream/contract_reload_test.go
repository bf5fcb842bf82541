package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"jobstream/cmd/jobstream/internal/cli"
	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/jobs"
	"jobstream/jobs/handlers"
)

// reloadHouse is a whole program with a configuration that a test edits.
type reloadHouse struct {
	*house
	file string
}

// openReload starts the program with this configuration.
func openReload(t *testing.T, text string) *reloadHouse {
	t.Helper()
	return openReloadIn(t, t.TempDir(), text)
}

// openReloadIn starts it with the configuration in this folder.
func openReloadIn(t *testing.T, dir, text string) *reloadHouse {
	t.Helper()
	file := filepath.Join(dir, "config.yaml")
	mustDo(t, os.WriteFile(file, []byte(text), 0o600))
	ctx, cancel := context.WithCancel(context.Background())
	h := &reloadHouse{newHouse(t, cancel), file}
	env := append(cleanEnviron(), "JOBSTREAM_SERVER_PORT=0", "JOBSTREAM_BROKER_PORT=-1", "JOBSTREAM_SERVER_AUTH_TOKENS_FILE="+tokensFile(h.t))
	args := []string{"serve", "--config", file, "--data", t.TempDir()}
	go func() {
		if code := run(ctx, args, env, io.Discard, h.log); code != 0 {
			h.ended <- fmt.Sprintf("exit code %d", code)
		}
		close(h.ended)
	}()
	h.awaitReady()
	return h
}

// reload edits the file and has it taken up by the command. It returns what that prints.
func (h *reloadHouse) reload(text string) (code int, out string) {
	h.t.Helper()
	mustDo(h.t, os.WriteFile(h.file, []byte(text), 0o600))
	var both bytes.Buffer
	code = run(h.t.Context(), []string{"reload", "-o", "table"}, []string{"JOBSTREAM_URL=" + h.rest + "/", "JOBSTREAM_TOKEN=" + adminToken}, &both, &both)
	return code, both.String()
}

func (h *reloadHouse) wantReload(text, want string) {
	h.t.Helper()
	if code, out := h.reload(text); code != 0 || out != want {
		h.t.Fatalf("the reload ends with %d and %q, want %q", code, out, want)
	}
}

// TestContractReload edits what a type may have. A pause stays, and so does a bound that
// was set by hand, unless it was edited.
func TestContractReload(t *testing.T) {
	t.Parallel()
	const kept = "  kept: {run: exec, command: [sh, -c, 'sleep 1000']}\n"
	h := openReload(t, "jobs:\n"+kept+"  work: {run: exec, command: [cat], max_workers: 5, retry_count: 1}\n")
	running := h.submit(`{"type":"kept"}`)
	h.await(running.ID, "processing")
	h.do(http.MethodPost, "/types/work/pause", "")
	h.do(http.MethodPut, "/workers", `{"types":{"work":{"max_workers":2,"concurrency_per_key":3,"rate":"7/s"}}}`)
	paused := h.submit(`{"type":"work","payload":1}`)

	h.wantReload("jobs:\n"+kept+"  work: {run: exec, command: [wc, -c], max_workers: 5, retry_count: 4, description: It counts., rate: 5/s}\n", "changed: work\n")
	if typ := h.jobType(http.MethodGet, "work"); !typ.Paused || typ.MaxWorkers != 2 || typ.RetryCount != 4 || typ.ConcurrencyPerKey != 3 || typ.Rate != "5/s" || typ.Sources["concurrency_per_key"] != "live" || typ.Sources["rate"] != "config" {
		t.Errorf("the changed type is %+v", typ)
	}
	if r := h.do(http.MethodGet, "/types/work", ""); !strings.Contains(string(r.body), `"runs":"wc -c"`) || !strings.Contains(string(r.body), "It counts.") {
		t.Errorf("the changed type is shown as %s", r.body)
	}
	h.wantReload("jobs:\n"+kept+"  work: {run: exec, command: [wc, -c], max_workers: 5, retry_count: 4, description: It counts., rate: 5/s}\n", "no job type has changed\n")
	h.wantReload("jobs: {work: {run: exec, command: [cat], max_workers: 3}}\n", "changed: work\nremoved: kept\n")
	if typ := h.jobType(http.MethodGet, "work"); typ.MaxWorkers != 3 {
		t.Errorf("an edited bound is %d", typ.MaxWorkers)
	}
	h.do(http.MethodPost, "/jobs", `{"type":"kept"}`).wantProblem(t, http.StatusUnprocessableEntity, "unknown_type")
	if j := h.job(running.ID); j.Status != "processing" {
		t.Errorf("the job of a removed type is %s", j.Status)
	}
	h.do(http.MethodPost, "/jobs/"+running.ID+"/cancel", "")
	h.await(running.ID, "cancelled")

	h.wantReload("jobs: {kept: {run: report}}\n", "added: kept\nremoved: work\n")
	h.await(h.submit(`{"type":"kept"}`).ID, "completed")
	if r := h.do(http.MethodGet, "/jobs/"+paused.ID, ""); !strings.Contains(string(r.body), "is not configured") {
		t.Errorf("a job without its type is %s", r.body)
	}
	h.wantReload("jobs: {work: {run: exec, command: [cat]}}\n", "added: work\nremoved: kept\n")
	if typ := h.jobType(http.MethodGet, "work"); !typ.Paused {
		t.Error("the pause of a type that was removed is forgotten")
	}
	h.do(http.MethodPost, "/types/work/resume", "")
	if j := h.await(paused.ID, "completed"); string(j.Result) != "1" {
		t.Errorf("the job that was paused has the result %s", j.Result)
	}
	h.close()
}

// TestContractReloadSecrets: a secret that has another value is taken up, and one that is
// the same changes nothing.
func TestContractReloadSecrets(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	mustDo(t, os.WriteFile(secret, []byte("first"), 0o600))
	text := "jobs: {tell: {run: exec, command: [sh, -c, 'printf %s $TOKEN'], env: {TOKEN: '${file:" + secret + "}'}}}\n"
	h := openReload(t, text)
	h.wantReload(text, "no job type has changed\n")
	mustDo(t, os.WriteFile(secret, []byte("second"), 0o600))
	h.wantReload(text, "changed: tell\n")
	if j := h.await(h.submit(`{"type":"tell"}`).ID, "completed"); string(j.Result) != `"second"` {
		t.Errorf("the program has the secret %s", j.Result)
	}
	mustDo(t, os.Remove(secret))
	if code, out := h.reload(text); code != exitUsage || !strings.Contains(out, "jobs.tell.env.TOKEN: ") {
		t.Errorf("without the secret the reload ends with %d and %q", code, out)
	}
	h.await(h.submit(`{"type":"tell"}`).ID, "completed")
	h.close()
}

// TestContractReloadKeepsTheRest: nothing but types is taken up, and what is named for a
// restart is not half of it.
func TestContractReloadKeepsTheRest(t *testing.T) {
	t.Parallel()
	h := openReload(t, "jobs: {a: {run: report}}\nschedules: {nightly: {cron: '@daily', type: a}}\n")
	h.wantReload("jobs: {a: {run: report}, b: {run: report}}\nworker: {job_timeout: 7s, max_workers: 3}\nlog: {level: debug}\n",
		"added: b\ntaken up: log.level\nneeds a restart: worker.max_workers, worker.job_timeout, schedules\n")
	for _, name := range []string{"a", "b"} {
		if typ := h.jobType(http.MethodGet, name); typ.Timeout != 300 {
			t.Errorf("%s has the timeout %v", name, typ.Timeout)
		}
	}
	if n := h.stats().MaxWorkers; n != 10 {
		t.Errorf("there are %d workers", n)
	}
	if code, out := h.reload("jobs: {b: {run: report}}\nschedules: {nightly: {cron: '@daily', type: a}}\n"); code != exitUsage || !strings.Contains(out, `schedules.nightly.type: "a" is not a job type`) {
		t.Errorf("a schedule without its type ends with %d and %q", code, out)
	}
	h.wantReload("jobs: {b: {run: report}}\n", "removed: a\ntaken up: log.level\nneeds a restart: schedules\n")
	if !strings.Contains(h.log.String(), `level=WARN msg="some changes of the configuration need a restart" keys=[schedules]`) {
		t.Errorf("the log does not name what needs a restart:\n%s", h.log)
	}
	h.close()
}

// TestContractReloadUnderLoad removes a type while jobs of it come in and run, and puts
// it back, many times. What was accepted runs, once.
func TestContractReloadUnderLoad(t *testing.T) {
	t.Parallel()
	const with, without = "jobs: {a: {run: exec, command: [cat]}, b: {run: exec, command: [cat], retry_count: %d}}\n", "jobs: {a: {run: exec, command: [cat]}}\n"
	h := openReload(t, fmt.Sprintf(with, 0))
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var mu sync.Mutex
	var accepted []string
	refused := 0
	for i := range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				r, err := h.try(t.Context(), http.MethodPost, "/jobs", fmt.Sprintf(`{"type":%q,"payload":1}`, "ab"[i%2:i%2+1])) //nolint:contextcheck // the end of ctx must not cut a request off
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				switch {
				case r.code == http.StatusAccepted:
					accepted = append(accepted, readJob(t, r.body).ID)
				case r.code == http.StatusUnprocessableEntity && bytes.Contains(r.body, []byte("unknown_type")):
					refused++
				default:
					t.Errorf("a submission gives %d %s", r.code, r.body)
				}
				mu.Unlock()
			}
		})
	}
	count := func() (all, no int) {
		mu.Lock()
		defer mu.Unlock()
		return len(accepted), refused
	}
	for i := range 10 {
		_, before := count()
		h.wantReload(without, "removed: b\n")
		waitUntil(t, func() bool { _, no := count(); return no > before })
		all, _ := count()
		h.wantReload(fmt.Sprintf(with, i), "added: b\n")
		waitUntil(t, func() bool { now, _ := count(); return now > all+8 })
	}
	stop()
	clients.Wait()
	for _, id := range accepted {
		h.await(id, "completed")
		if _, kinds := h.events(id); kinds != "submitted started completed" {
			t.Errorf("job %s: %s", id, kinds)
		}
	}
	h.close()
}

// TestReloadAddress: the command finds the server without being told more than its
// configuration says, even if that has mistakes.
func TestReloadAddress(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	for _, c := range []struct{ text, url, env, want, wrong string }{
		{"", "", "", "http://127.0.0.1:8080", ""},
		{"server: {port: 81}", "http://there:1", "JOBSTREAM_URL=http://elsewhere", "http://there:1", ""},
		{"server: {port: 81}", "", "JOBSTREAM_URL=http://elsewhere", "http://elsewhere", ""},
		{"server: {port: 81}", "", "JOBSTREAM_SERVER_PORT=82", "http://127.0.0.1:82", ""},
		{"server: {port: 81, host: 0.0.0.0, insecure: true}\njobs: {x: {run: exec}}", "", "", "http://127.0.0.1:81", ""},
		{"server: {host: '::', insecure: true}", "", "", "http://[::1]:8080", ""},
		{"server: {port: 81, tls: {cert: a.pem, key: a.pem}}", "", "", "https://127.0.0.1:81", ""},
		{"server: {port: 0}", "", "", "", "name its address with --url"},
		{"server: {port: x}\nnonsense: 1", "", "", "", `server.port: "x" is not a whole number`},
		{"[", "", "", "", "not YAML"},
	} {
		mustDo(t, os.WriteFile(file, []byte(c.text), 0o600))
		got, err := (&cli.ServerFlags{ConfigFlag: configFlag{File: file}, URL: c.url}).Base(&program{Environ: []string{c.env}})
		if got != c.want || (err != nil) != (c.wrong != "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%q, %q and %q give %q, %v", c.text, c.url, c.env, got, err)
		}
	}
}

// TestReloadAnswers are those of servers that are none, or not ready.
func TestReloadAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code int
		body string
		want int
		says string
	}{
		{503, `{"detail":"try again in a moment"}`, exitBroken, "jobstream: try again in a moment\n"},
		{404, `<html>`, exitBroken, "jobstream: the server answers 404 Not Found\n"},
		{200, `<html>`, exitBroken, "is no server of this version"},
		{422, `{"detail":"two problems","errors":[{"detail":"one"},{"detail":"another"}]}`, exitUsage, "two problems\none\nanother\n"},
	} {
		s := serveOnce(t, c.code, c.body)
		var out bytes.Buffer
		if code := run(t.Context(), []string{"reload", "--url", s}, nil, &out, &out); code != c.want || !strings.Contains(out.String(), c.says) {
			t.Errorf("%d %s ends with %d and %q", c.code, c.body, code, out.String())
		}
	}
}

// samples has a type of each kind that has options, with as many of them as there are.
var samples = map[string]string{
	"exec":   `command: [cat, "{{.payload.x | default 1}}"], sandbox: {write: ["{{.dir}}"]}, env: {A: b}, pass_env: [PATH], user: ""`,
	"http":   `url: "http://127.0.0.1:1/{{.payload.x}}"`,
	"nats":   `subject: a.b`,
	"remote": `lease: 7s`,
}

// TestUnchangedTypes: a type that is read again is the same value, whatever its kind.
// With another bound it keeps its handler.
func TestUnchangedTypes(t *testing.T) {
	t.Parallel()
	text := "jobs:\n"
	for _, k := range handlers.Kinds() {
		options := samples[k.Name]
		if k.Options != nil && options == "" {
			t.Errorf("there is no sample of the kind %s", k.Name)
			continue
		}
		text += fmt.Sprintf("  %s-type: {%s}\n", k.Name, strings.Join(slices.DeleteFunc([]string{"run: " + k.Name, "rate: 5/s", "schema: {type: object}", options}, func(s string) bool { return s == "" }), ", "))
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	made := func(m *typeMaker, text string) []*jobs.Type {
		mustDo(t, os.WriteFile(file, []byte(text), 0o600))
		c, err := config.Load(file, handlers.Kinds(), nil)
		mustDo(t, err)
		types, err := m.make(c)
		mustDo(t, err)
		return types
	}
	c := config.Default(handlers.Kinds())
	m := &typeMaker{tools: handlerServer(c, node.FoldersIn(t.TempDir()), &node.Tools{}, nil)}
	first := made(m, text)
	if again := made(m, text); !slices.Equal(first, again) {
		t.Error("types that have not changed are new ones")
	}
	for i, typ := range made(m, strings.ReplaceAll(text, "5/s", "6/s")) {
		if typ == first[i] || typ.Rate == first[i].Rate {
			t.Errorf("%s has not changed", typ.Name)
		}
		if typ.Remote && typ.Handler == nil && first[i].Handler == nil {
			continue
		}
		if h := reflect.ValueOf(typ.Handler); h.Kind() != reflect.Pointer || h.Pointer() != reflect.ValueOf(first[i].Handler).Pointer() {
			t.Errorf("%s has another handler", typ.Name)
		}
	}
}

// serveOnce is the address of a server with one answer.
func serveOnce(t *testing.T, code int, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

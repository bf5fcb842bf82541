package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs/handlers"
)

// configured starts a server with this section jobs.
func configured(t *testing.T, types string) *house {
	t.Helper()
	return configuredIn(t, t.TempDir(), types, "")
}

// configuredIn is configured on a data folder, with the section callbacks of more.
func configuredIn(t *testing.T, dir, types, more string) *house {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	mustDo(t, os.WriteFile(file, []byte(more+"jobs:\n"+types), 0o600))
	read, err := config.Load(file, handlers.Kinds(), nil)
	mustDo(t, err)
	return open(t, dir, setup{change: func(c *config.Config) { c.Jobs, c.Callbacks = read.Jobs, read.Callbacks }})
}

// TestContractExec runs a program that three lines of configuration make a type.
func TestContractExec(t *testing.T) {
	t.Parallel()
	h := configured(t, `
  greet:
    run: exec
    command: [printf, "Hello, %s!", "{{.payload.name}}"]
    env: {TOKEN: "${env:PATH}"}
`)
	j := h.await(h.submit(`{"type":"greet","payload":{"name":"world; rm -rf /"}}`).ID, "completed")
	if string(j.Result) != `"Hello, world; rm -rf /!"` {
		t.Errorf("the result is %s", j.Result)
	}
	r := h.do(http.MethodPost, "/jobs", `{"type":"greet","payload":{"nam":"x"}}`)
	if r.code != http.StatusUnprocessableEntity || !strings.Contains(string(r.body), `"pointer":"/payload/name"`) {
		t.Errorf("a payload without the field gives %d %s", r.code, r.body)
	}
	if r := h.do(http.MethodPost, "/jobs", `{"type":"greet","payload":{"name":"--help"}}`); r.code != http.StatusUnprocessableEntity {
		t.Errorf("an option gives %d %s", r.code, r.body)
	}
	var typ struct{ Run, Runs string }
	mustDo(t, json.Unmarshal(h.do(http.MethodGet, "/types/greet", "").body, &typ))
	if typ.Run != "exec" || typ.Runs != "printf \"Hello, %s!\" {{.payload.name}}" {
		t.Errorf("the type runs %+v", typ)
	}
	j = h.await(h.accepted(h.dial(), "jobs.greet", `{"nam":"x"}`), "failed")
	if !strings.Contains(j.Error, "/payload/name") {
		t.Errorf("a bare message fails with %q", j.Error)
	}
}

// TestContractTry is the type for trying things out of README's tour.
func TestContractTry(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../jobs/examples/tour.yaml")
	mustDo(t, err)
	_, types, ok := strings.Cut(string(text), "\njobs:\n")
	if !ok {
		t.Fatal("tour.yaml has no types")
	}
	h := configured(t, strings.NewReplacer("sleep 1", "sleep 0.15", "base: 3s", "base: 0.01s").Replace(types))
	id := h.submit(`{"type":"try"}`).ID
	j := h.await(id, "completed")
	if string(j.Result) != `{"attempts":3}` || len(j.Errors) != 2 || j.Errors[0].Error != "exit status 1: no luck yet" {
		t.Errorf("it ended with %s and %+v", j.Result, j.Errors)
	}
	all, _ := h.events(id)
	if !slices.ContainsFunc(all, func(e event) bool { return e.Kind == "progress" && e.Message == "step 1" }) {
		t.Errorf("its history is %+v", all)
	}
}

package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/jobs/handlers"
)

// thumbnails is a type with a schema, and a template that shares its decoding.
const thumbnails = `
  thumbnail:
    run: exec
    description: Scales a picture
    command: ["true", "{{.payload.url}}", "{{.payload.size}}"]
    schema:
      type: object
      required: [url, size]
      additionalProperties: false
      properties:
        url: {type: string, format: uri}
        size: {type: string, pattern: "^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$"}
        quality: {type: integer, minimum: 1, maximum: 100}
        tags: {type: array, items: {type: string}, maxItems: 2}
  mail:
    run: email
    schema: {properties: {to: {pattern: "@example\\.com$"}}}
`

// TestContractSchema sends payloads that do not match to every door.
func TestContractSchema(t *testing.T) {
	t.Parallel()
	h := configured(t, thumbnails)
	nc := h.dial()
	const good = `{"url":"https://example.com/a.png","size":"10x10","quality":100.0}`
	h.await(h.submit(`{"type":"thumbnail","payload":%s}`, good).ID, "completed")
	h.await(h.accepted(nc, "jobs.thumbnail", good), "completed")

	for _, tt := range []struct{ typ, payload, want string }{
		{"thumbnail", `{}`, "/payload/size is required; /payload/url is required"},
		{"thumbnail", `null`, "/payload must be an object, not null"},
		{
			"thumbnail", `{"url":"a.png","size":"-write x","quality":0,"tags":["a",2,"c"],"colour":1}`,
			"/payload/colour is not a known field; /payload/quality must be at least 1; /payload/size does not match ^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$; " +
				"/payload/tags must have at most 2 entries, not 3; /payload/tags/1 must be a string, not a number; " +
				"/payload/url must be a URI with its scheme, like https://example.com/a",
		},
		{"thumbnail", `{"url":"a:b","size":"1x1","size":"2x2"}`, "/payload/size is given twice"},
		{"mail", `{"to":"ada@example.org","body":"x"}`, `/payload/to does not match @example\.com$`},
		{"mail", `{"to":"ada@example.com"}`, "/payload/body is required, or html"}, // by the handler
	} {
		entry := `{"type":"` + tt.typ + `","payload":` + tt.payload + `}`
		for door, p := range map[string]*problem{
			"REST":         h.do(http.MethodPost, "/jobs", entry).wantProblem(t, http.StatusUnprocessableEntity, "invalid_request"),
			"a batch":      h.do(http.MethodPost, "/jobs/batch", `{"jobs":[`+entry+`]}`).wantProblem(t, http.StatusUnprocessableEntity, "invalid_request"),
			"the service":  serviceProblem(t, h.call(nc, "submit", entry).Data),
			"the schedule": h.do(http.MethodPost, "/schedules", `{"name":"s","every":"1h",`+entry[1:]).wantProblem(t, http.StatusUnprocessableEntity, "invalid_request"),
		} {
			var got []string
			for _, f := range p.Errors {
				got = append(got, strings.TrimPrefix(f.Pointer, "/jobs/0")+" "+f.Detail)
			}
			if s := strings.Join(got, "; "); s != tt.want {
				t.Errorf("%s: %s gives\n%s\nnot\n%s", door, tt.payload, s, tt.want)
			}
		}
		j := h.await(h.accepted(nc, "jobs."+tt.typ, tt.payload), "failed")
		for part := range strings.SplitSeq(tt.want, "; ") {
			pointer, detail, _ := strings.Cut(part, " ")
			if !strings.Contains(j.Error, pointer+": "+detail) {
				t.Errorf("a bare %s fails with %q, without %s", tt.payload, j.Error, part)
			}
		}
	}
}

// serviceProblem reads a problem of the service.
func serviceProblem(t *testing.T, body []byte) *problem {
	t.Helper()
	var p problem
	mustDo(t, json.Unmarshal(body, &p))
	return &p
}

// TestContractSchemaIsShown by GET /types/{type}, and not in the list.
func TestContractSchemaIsShown(t *testing.T) {
	t.Parallel()
	h := configured(t, thumbnails)
	var shown struct {
		Description string
		Schema      struct{ Required []string }
	}
	mustDo(t, json.Unmarshal(h.do(http.MethodGet, "/types/thumbnail", "").body, &shown))
	if shown.Description != "Scales a picture" || !slices.Equal(shown.Schema.Required, []string{"url", "size"}) {
		t.Errorf("got %+v", shown)
	}
	if list := string(h.do(http.MethodGet, "/types", "").body); strings.Contains(list, `"schema"`) || !strings.Contains(list, "Scales a picture") {
		t.Errorf("the list is %s", list)
	}
}

// TestScheduleAgainstSchema stops the start with the key of what does not match.
func TestScheduleAgainstSchema(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	mustDo(t, os.WriteFile(file, []byte("jobs:\n"+thumbnails+`
schedules:
  nightly: {cron: "@daily", type: thumbnail, payload: {url: "a:b", size: [1]}}
`), 0o600))
	c, err := config.Load(file, handlers.Kinds(), nil)
	mustDo(t, err)
	_, err = (&typeMaker{tools: handlerServer(c, node.FoldersIn(t.TempDir()), &node.Tools{}, nil)}).make(c)
	var usage *usageError
	if want := "schedules.nightly.payload.size: must be a string, not a list"; !errors.As(err, &usage) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestStoredJobsAreNotChecked when the schema of their type has become another.
func TestStoredJobsAreNotChecked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	types := func(schema string) setup {
		file := filepath.Join(t.TempDir(), "config.yaml")
		mustDo(t, os.WriteFile(file, []byte("jobs: {echo: {run: exec, command: [cat], schema: "+schema+"}}"), 0o600))
		read, err := config.Load(file, handlers.Kinds(), nil)
		mustDo(t, err)
		return setup{change: func(c *config.Config) { c.Jobs = read.Jobs }}
	}
	h := open(t, dir, types("{type: integer}"))
	h.do(http.MethodPost, "/types/echo/pause", "")
	id := h.submit(`{"type":"echo","payload":5}`).ID
	h.close()
	h = open(t, dir, types("{type: string}"))
	h.do(http.MethodPost, "/types/echo/resume", "")
	if j := h.await(id, "completed"); string(j.Result) != "5" {
		t.Errorf("it ended with %s", j.Result)
	}
	h.do(http.MethodPost, "/jobs", `{"type":"echo","payload":5}`).wantProblem(t, http.StatusUnprocessableEntity, "invalid_request")
}

// TestContractReloadSchema edits the file of a schema, and one that it leads to, while the
// server runs.
func TestContractReloadSchema(t *testing.T) {
	t.Parallel()
	const text = "jobs: {work: {run: exec, command: [cat], schema: work.json}, other: {run: exec, command: [cat]}}\n"
	dir := t.TempDir()
	edit := func(name, text string) { mustDo(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)) }
	edit("work.json", `{"$ref":"part.json"}`)
	edit("part.json", `{"type":"integer"}`)
	h := openReloadIn(t, dir, text)
	refused := func(payload string) bool {
		return h.do(http.MethodPost, "/jobs", `{"type":"work","payload":`+payload+`}`).code == http.StatusUnprocessableEntity
	}
	wants := func(payload, other string) {
		t.Helper()
		if refused(payload) || !refused(other) {
			t.Errorf("%s is refused, or %s is not", payload, other)
		}
	}
	wants(`1`, `"x"`)
	h.wantReload(text, "no job type has changed\n")
	edit("part.json", `{"type":"string"}`)
	wants(`1`, `"x"`)
	h.wantReload(text, "changed: work\n")
	wants(`"x"`, `1`)
	edit("work.json", `{"type":"nothing"}`)
	if code, out := h.reload(text); code == 0 || !strings.Contains(out, "jobs.work.schema") {
		t.Errorf("a broken schema ends the reload with %d and %q", code, out)
	}
	wants(`"x"`, `1`)
	edit("work.json", `{"type":"null"}`)
	h.wantReload(text, "changed: work\n")
	wants(`null`, `"x"`)
}

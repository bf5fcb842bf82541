package template_test

import (
	"encoding/json"
	"net/url"
	"testing"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/template"
)

var address = template.Language{
	Makes: "a URL", For: "the URL", Roots: []string{"payload", "job"}, Max: 100, Escape: template.EscapeURL,
}

// TestEscapeURL fills what a payload has in a URL: it stays one segment of the path and one
// value of the query.
func TestEscapeURL(t *testing.T) {
	a, err := address.Parse(`http://h/a/{{.payload.id}}/b?q={{.payload.id}}&n={{.payload.n}}`)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringN(0, 3, 9).Draw(t, "id")
		payload, err := json.Marshal(map[string]any{"id": id, "n": json.Number("1e2")})
		if err != nil {
			t.Fatal(err)
		}
		d, err := template.NewData(jobs.NewPayload(payload), new(jobs.Job), 1)
		if err != nil {
			t.Fatal(err)
		}
		s, err := a.Render(d)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		if u.Host != "h" || u.Path != "/a/"+id+"/b" || len(q) != 2 || q.Get("q") != id || q.Get("n") != "1e2" || u.Fragment != "" {
			t.Fatalf("%q makes %s", id, s)
		}
	})
	d, err := template.NewData(jobs.NewPayload(json.RawMessage(`{"id":"twenty letters, and many more of them","n":1}`)), new(jobs.Job), 1)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := a.Render(d); err == nil || err.Error() != "/payload/id: makes a URL of more than 100 bytes" {
		t.Errorf("%q, %v", s, err)
	}
}

// TestParse refuses fields that the language does not have.
func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"{{.dir}}":     "names .dir, which does not exist; known are .payload, .job",
		"{{.job.key}}": "names .job.key, which does not exist; known are id, type, priority, attempt, tags, created_at",
		"{{.payload":   ":1: unclosed action",
		"plain":        "",
	} {
		_, err := address.Parse(text)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s gives %q, want %q", text, got, want)
		}
	}
}

package apidoc_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"jobstream/jobs/api"
	"jobstream/jobs/apidoc"
)

// documents are all that this package makes.
func documents(t *testing.T) map[string][]byte {
	t.Helper()
	o := apidoc.Options{Version: "v1.2.3", Operations: api.Operations()}
	return map[string][]byte{"openapi": apidoc.OpenAPI(o), "asyncapi": apidoc.AsyncAPI(o)}
}

// TestReferencesLead follows all references within the documents.
func TestReferencesLead(t *testing.T) {
	for name, text := range documents(t) {
		var doc any
		if err := json.Unmarshal(text, &doc); err != nil {
			t.Fatal(err)
		}
		n := 0
		references(doc, func(ref string) {
			n++
			at := doc
			for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
				of, _ := at.(map[string]any)
				at = of[part]
			}
			if at == nil {
				t.Errorf("%s: %s leads nowhere", name, ref)
			}
		})
		if n < 50 {
			t.Errorf("%s has only %d references", name, n)
		}
	}
}

// references calls yield with each $ref in v.
func references(v any, yield func(string)) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			references(e, yield)
		}
	case map[string]any:
		if ref, is := v["$ref"].(string); is {
			yield(ref)
		}
		for _, e := range v {
			references(e, yield)
		}
	}
}

// TestOpenAndClosed: what clients send may have known fields only; answers may get more.
func TestOpenAndClosed(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				More any `json:"additionalProperties"`
			}
		}
	}
	if err := json.Unmarshal(documents(t)["openapi"], &doc); err != nil {
		t.Fatal(err)
	}
	for name, more := range map[string]any{"Submission": false, "Filter": false, "Job": nil, "Stats": nil} {
		if got := doc.Components.Schemas[name].More; got != more {
			t.Errorf("%s says %v about more fields, want %v", name, got, more)
		}
	}
}

// TestSubjects compares the channels with the subjects that the reference of NATS names.
func TestSubjects(t *testing.T) {
	var doc struct {
		Channels map[string]struct{ Address string }
	}
	if err := json.Unmarshal(documents(t)["asyncapi"], &doc); err != nil {
		t.Fatal(err)
	}
	var described []string
	for _, c := range doc.Channels {
		if c.Address != "" {
			described = append(described, c.Address)
		}
	}
	text, err := os.ReadFile("../../broker/README.md")
	if err != nil {
		t.Fatal(err)
	}
	// what the table of scopes writes with a wildcard
	named := map[string]bool{"jobstream.log.{type}.{id}": true, "job.{status}": true, "job.{status}.{type}.{id}": true}
	for _, m := range regexp.MustCompile("`((?:jobs?|jobstream)\\.[a-z_.<>-]+)`").FindAllSubmatch(text, -1) {
		subject := strings.NewReplacer("<", "{", ">", "}").Replace(string(m[1]))
		switch parts := strings.Split(subject, "."); {
		case parts[0] == "job", subject == "jobstream.{name}", strings.HasSuffix(subject, ".}"), strings.HasSuffix(subject, "{verb}"), strings.HasPrefix(subject, "jobstream.job."):
			continue
		}
		named[subject] = true
	}
	for subject := range named {
		if !slices.Contains(described, subject) {
			t.Errorf("%s is named, but not described", subject)
		}
	}
	for _, subject := range described {
		if !named[subject] {
			t.Errorf("%s is described, but the reference does not name it", subject)
		}
	}
}

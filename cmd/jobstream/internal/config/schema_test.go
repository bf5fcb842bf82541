package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jobstream/jobs/handlers"
)

// TestSchemaProblems are schemas that stop the start, with the key and the line of what is
// wrong.
func TestSchemaProblems(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	outside := filepath.Join(t.TempDir(), "outside.json")
	write(t, outside, `{"type":"object"}`)
	write(t, "good.json", `{"a word for others":true,"properties":{"size":{"$ref":"parts/size.json"}}}`)
	write(t, "broken.json", `{"type":`)
	write(t, "wrong.json", `{"properties":{"size":{"type":"text"}}}`)
	write(t, "leads-out.json", `{"$ref":"../outside.json"}`)
	write(t, "twice.json", `{"type":"object","type":"string"}`)
	write(t, "huge.json", strings.Repeat(" ", 256<<10)+"{}")
	if err := os.Mkdir("parts", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, "parts/size.json", `{"type":"string"}`)
	if err := os.Symlink(outside, "link.json"); err != nil {
		t.Fatal(err)
	}
	const program = "jobs:\n  x:\n    run: exec\n    command: [ls, '{{.payload.size}}']\n"
	for _, tt := range []struct{ yaml, want string }{
		{"jobs: {email: {schema: good.json, description: sends}}", ""},
		{"jobs: {email: {schema: " + outside + "}}", ""},
		{"jobs: {email: {schema:, description: }}", ""},
		{"jobs: {email: {schema: none.json}}", "jobs.email.schema: none.json: no such file or directory (config.yaml line 1)"},
		{"jobs: {email: {schema: broken.json}}", "jobs.email.schema: broken.json: the schema is not JSON: unexpected end of JSON input (at byte 8) (config.yaml line 1)"},
		{"jobs: {email: {schema: wrong.json}}", `jobs.email.schema: wrong.json at /properties/size/type must be one of "array", "boolean", "integer", "null", "number", "object", "string" (config.yaml line 1)`},
		{"jobs: {email: {schema: leads-out.json}}", "jobs.email.schema: leads-out.json refers to file://" + filepath.Dir(dir) + "/outside.json: only files below " + dir + " are read (config.yaml line 1)"},
		{"jobs: {email: {schema: {$ref: link.json}}}", "jobs.email.schema: refers to link.json: link.json: path escapes from parent (config.yaml line 1)"},
		{"jobs: {email: {schema: twice.json}}", "jobs.email.schema: twice.json: /type: is given twice (config.yaml line 1)"},
		{"jobs: {email: {schema: huge.json}}", "jobs.email.schema: huge.json is larger than 256 KiB (config.yaml line 1)"},
		{"jobs: {email: {schema: {$ref: 'good.json#/x'}}}", "jobs.email.schema: refers to good.json#/x, which does not exist (config.yaml line 1)"},
		{"jobs:\n  email:\n    schema:\n      properties:\n        size:\n          pattern: '(?=x)'\n", "jobs.email.schema.properties.size.pattern: is no pattern that can be used: error parsing regexp: invalid or unsupported Perl syntax: `(?=` (config.yaml line 6)"},
		{"jobs:\n  email:\n    schema:\n      $defs: {a: {minimum: '1'}}\n", `jobs.email.schema."$defs".a.minimum: must be a number, not a string (config.yaml line 4)`},
		{"jobs: {email: {schema: {minimum: .inf}}}", "jobs.email.schema.minimum: +Inf is not a number that JSON has (config.yaml line 1)"},
		{"jobs: {email: {schema: 5}}", "jobs.email.schema: 5 is not a JSON Schema, written as a section, or the path of a file with one (config.yaml line 1)"},
		{"jobs: {email: {schema: [a]}}", "jobs.email.schema: a list is not a JSON Schema, written as a section, or the path of a file with one (config.yaml line 1)"},
		{"jobs: {email: {description: [a]}}", "jobs.email.description: a list is not text of at most 4096 bytes (a number needs quotes) (config.yaml line 1)"},
		// templates
		{program + "    schema: {properties: {size: true}}\n", ""},
		{program + "    schema: {type: object}\n", ""},
		{program + "    schema: good.json\n", ""},
		{program + "    schema: {properties: {sise: true, url: true}}\n", "jobs.x.command[1]: names .payload.size, which the schema does not have; known are sise, url (config.yaml line 4)"},
		{program + "    stdin: /text\n    schema: {properties: {size: true}, additionalProperties: false}\n", "jobs.x.stdin: names .payload.text, which the schema does not have; known are size (config.yaml line 5)"},
		{program + "    schema: {properties: {size: true}}\n    inputs: {csv: {}}\n    stdin: input:csv\n", ""},
		{program + "    inputs: {csv: {}}\n    stdin: input:tsv\n", `jobs.x.stdin: names the input "tsv", which is not among the type's inputs (config.yaml line 6)`},
		{
			"jobs: {x: {run: exec, command: [ls, '{{.inputs.image.path}}']}}",
			`jobs.x.command[1]: names the input "image", which is not among the type's inputs (config.yaml line 1)`,
		},
		{
			"jobs:\n  x:\n    run: http\n    url: 'http://127.0.0.1/{{.payload.id}}'\n    schema: {properties: {size: true}}\n",
			"jobs.x.url: names .payload.id, which the schema does not have; known are size (config.yaml line 4)",
		},
	} {
		write(t, "config.yaml", tt.yaml)
		c, err := Load("", handlers.Kinds(), nil)
		var problems Problems
		switch {
		case tt.want == "" && err == nil:
			if text, err := c.YAML(); err != nil || !strings.Contains(string(text), "schema: ") {
				t.Errorf("%v\n%s", err, text)
			}
			continue
		case err == nil || !errors.As(err, &problems) || err.Error() != tt.want:
			t.Errorf("%s says\n%v\nnot\n%s", tt.yaml, err, tt.want)
		}
	}
}

// TestSchemaFromTheEnvironment is refused.
func TestSchemaFromTheEnvironment(t *testing.T) {
	_, err := parse("config.yaml", nil, handlers.Kinds(), []string{"JOBSTREAM_JOBS_EMAIL_SCHEMA=a.json"})
	if want := "JOBSTREAM_JOBS_EMAIL_SCHEMA: is not a known variable: sections of names are set in the file only"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

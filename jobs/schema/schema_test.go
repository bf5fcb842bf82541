package schema_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/schema"
)

// compile makes a schema of its text.
func compile(t testing.TB, text string) *schema.Schema {
	t.Helper()
	s, err := schema.Source{Inline: text}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wrong are the problems of a payload, one per line.
func wrong(s *schema.Schema, payload string) string {
	err := s.Check(jobs.NewPayload(json.RawMessage(payload)))
	if err == nil {
		return ""
	}
	var e *jobs.Error
	if !errors.As(err, &e) {
		return "not an error of jobs: " + err.Error()
	}
	var lines []string
	for _, f := range e.Fields {
		lines = append(lines, f.Pointer+" "+f.Detail)
	}
	return strings.Join(lines, "\n")
}

func TestProblems(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ schema, payload, want string }{
		{`{"type":"object"}`, `{}`, ""},
		{`true`, `[1]`, ""},
		{`false`, `1`, "/payload is not allowed"},
		{`{"type":"object"}`, ``, "/payload must be an object, not null"},
		{`{"type":"object","required":["url"]}`, `{}`, "/payload/url is required"},
		{`{"required":["b","a"]}`, `{}`, "/payload/a is required\n/payload/b is required"},
		{`{"properties":{"a":{"properties":{"b":{"type":"integer"}}}}}`, `{"a":{"b":1.5}}`, "/payload/a/b must be a whole number, not a number"},
		{`{"properties":{"a":{"type":["string","null"]}}}`, `{"a":[]}`, "/payload/a must be null or a string, not a list"},
		{`{"properties":{"a/b~c":{"type":"boolean"}}}`, `{"a/b~c":"x"}`, "/payload/a~1b~0c must be true or false, not a string"},
		{`{"items":{"type":"string"}}`, `["a",1,"b",null]`, "/payload/1 must be a string, not a number\n/payload/3 must be a string, not null"},
		{`{"properties":{"a":true},"additionalProperties":false}`, `{"a":1,"b":2,"c":3}`, "/payload/b is not a known field\n/payload/c is not a known field"},
		{`{"properties":{"a":true},"unevaluatedProperties":false}`, `{"a":1,"b":2}`, "/payload/b is not allowed"},
		{`{"enum":["a",1,null]}`, `"b"`, `/payload must be one of "a", 1, null`},
		{`{"enum":["a"]}`, `"b"`, `/payload must be "a"`},
		{`{"const":{"a":[1]}}`, `1`, `/payload must be {"a":[1]}`},
		{`{"properties":{"size":{"type":"string","pattern":"^[0-9]+x[0-9]+$"}}}`, `{"size":"-write x"}`, "/payload/size does not match ^[0-9]+x[0-9]+$"},
		{`{"pattern":"^[a-z]+$"}`, `"a\n"`, "/payload does not match ^[a-z]+$"},
		{`{"minLength":2}`, `"é"`, "/payload must have at least 2 characters, not 1"},
		{`{"maxLength":1}`, `"ab"`, "/payload must have at most 1 character, not 2"},
		{`{"minItems":2}`, `[1]`, "/payload must have at least 2 entries, not 1"},
		{`{"maxItems":1}`, `[1,2]`, "/payload must have at most 1 entry, not 2"},
		{`{"uniqueItems":true}`, `[1,"1",1.0]`, "/payload has the same entry twice, at 0 and 2"},
		{`{"minProperties":1}`, `{}`, "/payload must have at least 1 field, not 0"},
		{`{"maxProperties":1}`, `{"a":1,"b":1}`, "/payload must have at most 1 field, not 2"},
		{`{"minimum":0.1}`, `0`, "/payload must be at least 0.1"},
		{`{"maximum":9007199254740993}`, `9007199254740994`, "/payload must be at most 9007199254740993"},
		{`{"maximum":9007199254740993}`, `9007199254740993`, ""},
		{`{"exclusiveMinimum":1e2}`, `100`, "/payload must be more than 100"},
		{`{"exclusiveMaximum":1}`, `1.0`, "/payload must be less than 1"},
		{`{"multipleOf":0.01}`, `0.07`, ""},
		{`{"multipleOf":0.01}`, `0.075`, "/payload must be a multiple of 0.01"},
		{`{"type":"integer"}`, `1e3`, ""},
		{`{"type":"integer"}`, `12345678901234567890123456789012345678901234567890`, ""},
		{`{"contains":{"const":1}}`, `[2]`, "/payload has no entry of the kind that must be there"},
		{`{"contains":{"const":1},"minContains":2}`, `[1]`, "/payload must have at least 2 entries of the kind that must be there, not 1"},
		{`{"contains":{"const":1},"maxContains":1}`, `[1,1]`, "/payload must have at most 1 entries of the kind that must be there, not 2"},
		{`{"dependentRequired":{"card":["address"]}}`, `{"card":1}`, "/payload/address is required beside card"},
		{`{"not":{"type":"string"}}`, `"x"`, "/payload is what the schema excludes by not"},
		{`{"if":{"required":["a"]},"then":{"required":["b"]}}`, `{"a":1}`, "/payload/b is required"},
		{`{"propertyNames":{"pattern":"^[a-z]+$"}}`, `{"A":1}`, "/payload/A is no name that is allowed here: it does not match ^[a-z]+$"},
		{
			`{"additionalProperties":{"propertyNames":{"maxLength":1}}}`, `{"a":{"xx":1},"b":{"yy":1},"c":{"z":1}}`,
			"/payload/a/xx is no name that is allowed here: it must have at most 1 character, not 2\n/payload/b/yy is no name that is allowed here: it must have at most 1 character, not 2",
		},
		{`{"$ref":"#/$defs/a","$defs":{"a":{"properties":{"b":{"type":"null"}}}}}`, `{"b":1}`, "/payload/b must be null, not a number"},
		// alternatives
		{`{"anyOf":[{"type":"string"},{"type":"array"}]}`, `1`, "/payload must be a string or a list, not a number"},
		{`{"anyOf":[{"type":"object","required":["url"]},{"type":"null"}]}`, `{}`, "/payload/url is required"},
		{`{"oneOf":[{"required":["url"]},{"required":["file"]}]}`, `{}`, "/payload fits none of the alternatives: /url is required; or /file is required"},
		{`{"properties":{"in":{"oneOf":[{"required":["url"]},{"required":["file"]}]}}}`, `{"in":{}}`, "/payload/in fits none of the alternatives: /url is required; or /file is required"},
		{`{"oneOf":[{"required":["url"]},{"required":["file"]}]}`, `{"url":1,"file":2}`, "/payload fits the alternatives 1 and 2 of oneOf, and must fit one"},
		{
			`{"oneOf":[{"properties":{"kind":{"const":"a"}},"required":["kind","x"]},{"properties":{"kind":{"const":"b"}},"required":["kind","y"]}]}`,
			`{"kind":"b"}`, "/payload/y is required",
		},
		// formats
		{`{"format":"date"}`, `"2026-02-30"`, "/payload must be a date like 2026-11-30"},
		{`{"format":"date"}`, `"2028-02-29"`, ""},
		{`{"format":"date-time"}`, `"2026-11-30 14:00"`, "/payload must be a moment like 2026-11-30T14:00:00Z"},
		{`{"format":"date-time"}`, `"2026-11-30T14:00:00+01:00"`, ""},
		{`{"format":"email"}`, `"ada"`, "/payload must be a mail address like ada@example.com"},
		{`{"format":"uri"}`, `"/a"`, "/payload must be a URI with its scheme, like https://example.com/a"},
		{`{"format":"uuid"}`, `"0198a3c1"`, "/payload must be a UUID like 0198a3c1-6d7e-7c3f-8a52-3f1d2c4b5a69"},
		{`{"format":"ipv4"}`, `"1.2.3"`, "/payload is not of the format ipv4: expected four decimals"},
		{`{"format":"of-my-own"}`, `"x"`, ""},
		{`{"format":"date"}`, `5`, ""},
		// what is ambiguous or expensive
		{`{"type":"object"}`, `{"a":{"b":1,"b":2}}`, "/payload/a/b is given twice"},
		{`{"type":"object"}`, `{"a":":\"{:","b":[{"c":1},{"c":1}]}`, ""},
		{`{}`, `{"a":[1e401]}`, "/payload/a/0 is a number that is not compared: at most 400 characters, and an exponent from -400 to 400"},
		{`{"properties":{"type":{"x-form":"select"},"requierd":true},"default":{"mode":1},"x-a":1}`, `{}`, ""},
		{`{}`, `1e-99999999999999999999`, "/payload is a number that is not compared: at most 400 characters, and an exponent from -400 to 400"},
		{`{"minimum":1}`, `1E+400`, ""},
		{`{}`, `1` + strings.Repeat("0", 400), "/payload is a number that is not compared: at most 400 characters, and an exponent from -400 to 400"},
		{`{"additionalProperties":{"additionalProperties":false}}`, `{"` + strings.Repeat("x", 2000) + `":{"a":1}}`, "/payload is not a known field"},
	} {
		s := compile(t, tt.schema)
		if got := wrong(s, tt.payload); got != tt.want {
			t.Errorf("%s of %.100s:\n%s\nwant\n%s", tt.schema, tt.payload, got, tt.want)
		}
	}
}

// TestMany has more problems than are named.
func TestMany(t *testing.T) {
	t.Parallel()
	s := compile(t, `{"items":{"type":"string"}}`)
	got := strings.Split(wrong(s, "["+strings.Repeat("1,", 99)+"1]"), "\n")
	if len(got) != 21 || got[0] != "/payload/0 must be a string, not a number" || got[20] != "/payload has 80 more problems" {
		t.Errorf("got %d: %q", len(got), got)
	}
	values := "[" + strings.Repeat(`"a",`, 100_000)
	if got := wrong(s, values+`"a"]`); got != "" {
		t.Error(got)
	}
	if got := wrong(s, values+`1]`); got != "/payload does not match the schema of the type, and has too many values to say where" {
		t.Error(got)
	}
}

// TestSources are schemas that cannot be used.
func TestSources(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{`{"type":"strin"}`, `/type: must be one of "array", "boolean", "integer", "null", "number", "object", "string"`},
		{`{"properties":{"size":{"pattern":"(?=x)"}}}`, "/properties/size/pattern: is no pattern that can be used: error parsing regexp: invalid or unsupported Perl syntax: `(?=`"},
		{`{"patternProperties":{"(":true}}`, "/patternProperties/(: is no name that is allowed here: it is no pattern that can be used: error parsing regexp: missing closing ): `(`"},
		{`{"minimum":"1"}`, "/minimum: must be a number, not a string"},
		{`{"required":"a"}`, "/required: must be a list, not a string"},
		{`{"properties":{"a":5}}`, "/properties/a: must be true or false or an object, not a number"},
		{`{"$ref":"#/$defs/x"}`, ": refers to #/$defs/x, which does not exist"},
		{`{"$ref":"#x"}`, ": refers to #x, which does not exist"},
		{`{"$ref":"https://example.com/a.json"}`, ": refers to https://example.com/a.json: only files beside the configuration are read"},
		{`{"$ref":"http://127.0.0.1:1/a.json#/x"}`, ": refers to http://127.0.0.1:1/a.json: only files beside the configuration are read"},
		{`{"$schema":"https://example.com/own"}`, ": refers to https://example.com/own: only files beside the configuration are read"},
		{`{"properties":{"a":{"anyOf":[true,{"requierd":["x"]}]}}}`, "/properties/a/anyOf/1/requierd: is no keyword of JSON Schema; those of your own begin with x-"},
		{`{"additionalProperites":false}`, "/additionalProperites: is no keyword of JSON Schema; those of your own begin with x-"},
		{`[]`, ": must be an object, as JSON Schema has it"},
		{`{"default":1e999}`, ": /default: is a number that is not compared: at most 400 characters, and an exponent from -400 to 400"},
	} {
		_, err := schema.Source{Inline: tt.text}.Compile()
		var p *schema.Problem
		if !errors.As(err, &p) || p.Error() != tt.want {
			t.Errorf("%s says\n%v\nwant\n%s", tt.text, err, tt.want)
		}
	}
}

// TestConcurrentChecks checks by one schema from many goroutines.
func TestConcurrentChecks(t *testing.T) {
	t.Parallel()
	s := compile(t, four)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 100 {
				if got := wrong(s, fits); got != "" {
					t.Error(got)
				}
				if got, want := wrong(s, fmt.Sprintf(`{"url":"a:b","size":"1x1","n%d":1}`, i)), fmt.Sprintf("/payload/n%d is not a known field", i); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
		})
	}
	all.Wait()
}

package schema_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/schema"
	"jobstream/jobs/strict"
)

// FuzzCheck compiles any schema and checks any payload. Neither may crash, and each problem
// has a pointer in the payload or to what it lacks.
func FuzzCheck(f *testing.F) {
	f.Add(four, fits)
	f.Add(four, `{"url":5,"size":[{"a":1e999}],"size":"x"}`)
	f.Add(`{"anyOf":[{"type":"object","required":["a"]},{"items":{"$ref":"#"},"uniqueItems":true}],"propertyNames":{"maxLength":1}}`, `[[{"ab":[]}]]`)
	f.Add(`{"$defs":{"n":{"$dynamicAnchor":"n","properties":{"next":{"$dynamicRef":"#n"}},"unevaluatedProperties":false}},"$ref":"#/$defs/n"}`, `{"next":{"next":{"x":1}}}`)
	f.Add(`{"minimum":1e400,"multipleOf":1e-400,"not":{"const":1},"contains":{"format":"date"}}`, `["2026-13-01",0.1e-3]`)
	f.Fuzz(func(t *testing.T, text, payload string) {
		if len(text) > 4096 || len(payload) > 4096 {
			return
		}
		s, err := schema.Source{Inline: text, Folder: t.TempDir()}.Compile()
		if err != nil {
			var p *schema.Problem
			if !errors.As(err, &p) {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		if strict.Check([]byte(payload)) != nil || strict.TooDeep([]byte(payload)) {
			return // the doors refuse it
		}
		err = s.Check(jobs.NewPayload(json.RawMessage(payload)))
		if err == nil {
			return
		}
		var e *jobs.Error
		if !errors.As(err, &e) || len(e.Fields) == 0 || len(e.Fields) > 21 {
			t.Fatalf("%v", err)
		}
		for _, field := range e.Fields {
			if !strings.HasPrefix(field.Pointer, "/payload") || field.Detail == "" {
				t.Fatalf("%+v", field)
			}
		}
		again := s.Check(jobs.NewPayload(json.RawMessage(payload)))
		var other *jobs.Error
		if !errors.As(again, &other) || !slices.Equal(e.Fields, other.Fields) {
			t.Fatalf("%+v, then %+v", e.Fields, other.Fields)
		}
	})
}

package schema_test

import (
	"strings"
	"testing"
)

// TestLacks asks for fields that templates name.
func TestLacks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ schema, field, want string }{
		{`{}`, "a", ""},
		{`true`, "a.b", ""},
		{`false`, "a", ".payload.a, which the schema does not have"},
		{`{"type":"object"}`, "a", ""},
		{`{"type":"string"}`, "a", ".payload.a, which the schema does not have"},
		{`{"properties":{"a":true,"b":true}}`, "c", ".payload.c, which the schema does not have; known are a, b"},
		{`{"properties":{"a":true}}`, "a.b.c", ""},
		{`{"properties":{"a":{"properties":{"b":true}}}}`, "a.c", ".payload.a.c, which the schema does not have; known are b"},
		{`{"properties":{"a":{"type":"string"}}}`, "a.b", ".payload.a.b, which the schema does not have"},
		{`{"properties":{"a":{"type":["object","null"]}}}`, "a.b", ""},
		{`{"properties":{"a":{"type":"array"}}}`, "a.0", ""},
		{`{"properties":{"a":true},"additionalProperties":true}`, "b", ""},
		{`{"properties":{"a":true},"additionalProperties":{"type":"string"}}`, "b", ""},
		{`{"properties":{"a":true},"additionalProperties":false}`, "b", ".payload.b, which the schema does not have; known are a"},
		{`{"properties":{"a":true},"unevaluatedProperties":false}`, "b", ".payload.b, which the schema does not have; known are a"},
		{`{"additionalProperties":false}`, "b", ".payload.b, which the schema does not have"},
		{`{"patternProperties":{"^x-":true},"additionalProperties":false}`, "x-a", ""},
		{`{"patternProperties":{"^x-":true},"additionalProperties":false}`, "a", ".payload.a, which the schema does not have"},
		{`{"$ref":"#/$defs/a","$defs":{"a":{"properties":{"b":true}}}}`, "b", ""},
		{`{"$ref":"#/$defs/a","$defs":{"a":{"properties":{"b":true}}}}`, "c", ".payload.c, which the schema does not have; known are b"},
		{`{"properties":{"a":true},"allOf":[{"properties":{"b":true}}]}`, "b", ""},
		{`{"properties":{"a":true},"additionalProperties":false,"allOf":[{"properties":{"b":true}}]}`, "b", ".payload.b, which the schema does not have; known are a"},
		{`{"oneOf":[{"properties":{"a":true}},{"properties":{"b":true}}]}`, "b", ""},
		{`{"oneOf":[{"properties":{"a":true}},{"properties":{"b":true}}]}`, "c", ".payload.c, which the schema does not have; known are a, b"},
		{`{"oneOf":[{"properties":{"a":true}},{}]}`, "c", ""},
		{`{"anyOf":[{"type":"object"},{"type":"null"}]}`, "c", ""},
		{`{"oneOf":[{"properties":{"a":true},"additionalProperties":false},{"properties":{"b":true}}]}`, "b", ""},
		{`{"properties":{"a":true},"if":{"required":["a"]},"then":{"properties":{"b":true}}}`, "b", ""},
		{`{"properties":{"a":true},"dependentSchemas":{"a":{"properties":{"b":true}}}}`, "b", ""},
		{`{"properties":{"a":{"$ref":"#"},"b":true}}`, "a.a.a.b", ""},
		{`{"properties":{"a":{"$ref":"#"}}}`, "a.a.c", ".payload.a.a.c, which the schema does not have; known are a"},
	} {
		if got := compile(t, tt.schema).Lacks(strings.Split(tt.field, ".")); got != tt.want {
			t.Errorf("%s of %s: %q, want %q", tt.field, tt.schema, got, tt.want)
		}
	}
}

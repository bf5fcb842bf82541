//go:build unix

package exec

import (
	"encoding/json"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/schema"
)

// withSchema is a type whose schema has four properties, two of which its command has.
func withSchema(t testing.TB) *jobs.Type {
	t.Helper()
	s, err := schema.Source{Inline: `{"type":"object","additionalProperties":false,"required":["url","size"],"properties":{
		"url":{"type":"string","format":"uri"},"size":{"type":"string","pattern":"^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$"},
		"quality":{"type":"integer","minimum":1,"maximum":100},"day":{"type":"string","format":"date"}}}`}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	h, _ := handler(t, map[string]any{"command": []string{"true", "{{.payload.url}}", "{{.payload.size}}"}})
	return &jobs.Type{Name: "thumbnail", Handler: h, Schema: s}
}

const thumbnail = `{"url":"https://example.com/pictures/4711.png","size":"640x480","quality":85,"day":"2026-11-30"}`

// TestOneDecoding compares what a schema and a command take to check a payload together with
// what they take alone: the payload is decoded once.
func TestOneDecoding(t *testing.T) {
	typ := withSchema(t)
	allocs := func(f func()) float64 { return testing.AllocsPerRun(100, f) }
	check := func(c jobs.Checker) float64 {
		return allocs(func() {
			if err := c.Check(jobs.NewPayload(json.RawMessage(thumbnail))); err != nil {
				t.Fatal(err)
			}
		})
	}
	decoding := allocs(func() {
		if _, err := jobs.NewPayload(json.RawMessage(thumbnail)).Value(); err != nil {
			t.Fatal(err)
		}
	})
	both := allocs(func() {
		if err := typ.Check(json.RawMessage(thumbnail)); err != nil {
			t.Fatal(err)
		}
	})
	if alone := check(typ.Schema) + check(typ.Handler.(jobs.Checker)); decoding < 5 || both > alone-decoding/2 { // pools of the libraries make it vary
		t.Errorf("both take %v allocations, alone they take %v, and decoding %v of them", both, alone, decoding)
	}
}

// BenchmarkDoor checks a payload as the doors do.
func BenchmarkDoor(b *testing.B) {
	typ := withSchema(b)
	bare := &jobs.Type{Name: "thumbnail", Handler: typ.Handler}
	for name, typ := range map[string]*jobs.Type{"schema": typ, "templates alone": bare} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := typ.Check(json.RawMessage(thumbnail)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

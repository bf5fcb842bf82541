package schema_test

import (
	"encoding/json"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/schema"
)

// four is a schema of four properties, as a type of a program has it.
const four = `{"type":"object","additionalProperties":false,"required":["url","size"],"properties":{
	"url":{"type":"string","format":"uri"},"size":{"type":"string","pattern":"^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$"},
	"quality":{"type":"integer","minimum":1,"maximum":100},"day":{"type":"string","format":"date"}}}`

const fits = `{"url":"https://example.com/pictures/4711.png","size":"640x480","quality":85,"day":"2026-11-30"}`

func BenchmarkCheck(b *testing.B) {
	s := compile(b, four)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Check(jobs.NewPayload(json.RawMessage(fits))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := (schema.Source{Inline: four}).Compile(); err != nil {
			b.Fatal(err)
		}
	}
}

package handlers_test

import (
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/handlers/bulk"
	"jobstream/jobs/handlers/cleanup"
	"jobstream/jobs/handlers/export"
	"jobstream/jobs/handlers/importer"
	"jobstream/jobs/handlers/internal/handlertest"
	"jobstream/jobs/handlers/report"
	"jobstream/jobs/strict"
)

// FuzzPayloads gives the built-in handlers any payload that a door lets through. What is
// wrong has a pointer into the payload. What is accepted runs.
func FuzzPayloads(f *testing.F) {
	for _, p := range []string{
		`null`, `{}`, `[]`, `{"format":"csv","filters":{"status":["failed"],"from":"2026-01-01","to":"2027-01-01"},"fields":["id","status","payload.a"],"bom":true,"delimiter":";"}`,
		`{"format":"jsonl","timezone":"Europe/Berlin"}`, `{"date":"2026-11-30","format":"html"}`, `{"from":"2026-01-01","to":"2025-01-01"}`,
		`{"older_than":"30d","status":["completed"]}`, `{"older_than":"-1s"}`, `{"action":"delete","all":true}`, `{"action":"retry","ids":["x"],"dry_run":true}`,
		`{"type":"email","payload":{"to":"{{.row.a}}"},"columns":{"a":"number"},"delimiter":"\t","header":["a","b"]}`, `{"type":1,"payload":"{{"}`,
	} {
		for which := range uint8(5) {
			f.Add(which, []byte(p))
		}
	}
	now := jobs.Now()
	list := func() []*jobs.Job { return handlertest.Synthetic(7, 30, now, 3600e9) }
	f.Fuzz(func(t *testing.T, which uint8, payload []byte) {
		if strict.Check(payload) != nil || strict.TooDeep(payload) {
			return // the doors refuse it
		}
		tr := handlertest.NewTracker(list()...)
		h := []interface {
			jobs.Handler
			jobs.Checker
		}{
			export.New(tr), report.New(tr), cleanup.New(tr, jobs.NewArtifactDir(t.TempDir(), 0)),
			bulk.New(tr, nil), importer.New(nil),
		}[which%5]
		err := h.Check(jobs.NewPayload(payload))
		if err == nil && which%5 < 3 {
			if _, err := h.Handle(t.Context(), handlertest.NewTask(t, string(payload)).Task); err != nil {
				t.Fatalf("%T accepts %q, and then: %v", h, payload, err)
			}
			return
		}
		if err == nil {
			return
		}
		e, ok := jobs.AsError(err)
		if !ok || e.Kind != jobs.InvalidRequest || len(e.Fields) == 0 {
			t.Fatalf("%T: %q: %#v", h, payload, err)
		}
		for _, field := range e.Fields {
			if field.Pointer != "/payload" && !strings.HasPrefix(field.Pointer, "/payload/") || field.Detail == "" {
				t.Fatalf("%T: %q: %+v", h, payload, field)
			}
		}
	})
}

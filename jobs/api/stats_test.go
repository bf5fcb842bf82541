package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"jobstream/jobs/api"
)

func TestStatsJSON(t *testing.T) {
	s := api.Stats{ActiveWorkers: 7, MaxWorkers: 10, CompletedJobs: 156}
	b := s.AppendJSON([]byte("x"))
	if b[0] != 'x' {
		t.Fatal("AppendJSON does not append")
	}
	var got map[string]any
	if err := json.Unmarshal(b[1:], &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"active_workers", "workers", "max_workers", "utilisation", "queued_jobs", "scheduled_jobs", "completed_jobs", "failed_jobs",
		"cancelled_jobs", "retrying_jobs", "uptime_seconds", "queue_size", "oldest_seconds", "last_minute", "node", "types",
	} {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	if types, ok := got["types"].(map[string]any); !ok || len(types) != 0 {
		t.Errorf("types is %v, want an empty object", got["types"])
	}
	s.Types = map[string]api.TypeStats{"email": {MaxWorkers: 2}}
	if b := string(s.AppendJSON(nil)); !strings.Contains(b, `"email":{"active_workers":0,"max_workers":2,`) {
		t.Errorf("types are missing in %s", b)
	}
}

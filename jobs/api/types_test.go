package api_test

import (
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/figures"
)

func TestTypeInfoJSON(t *testing.T) {
	rate, err := jobs.ParseRate("100/m")
	if err != nil {
		t.Fatal(err)
	}
	full := api.TypeInfo{
		Type: &jobs.Type{
			Name: "email", RetryCount: 3, Timeout: 90 * time.Second, MaxWorkers: 9, Rate: rate, ConcurrencyPerKey: 2,
			Backoff: jobs.Backoff{Kind: jobs.Linear, Base: 1500 * time.Millisecond, Max: time.Minute, Jitter: 0.5},
		},
		MaxWorkers: 4, ActiveWorkers: 2, Paused: true, PausedBy: "ann", PausedAt: jobs.Time(time.Second), Depth: [jobs.NumStatus]int{0, 1, 2, 3, 4, 5, 6, 7},
		Backlog: api.Backlog{
			OldestSeconds: 1.5, Reasons: map[string]int{jobs.WaitTypePaused: 2},
			LastMinute: figures.Period{Done: 60, Run: &figures.Percentiles{P50: 0.1, P95: 0.2, P99: 0.3}},
		},
		Priorities: [jobs.LowestPriority + 1]figures.Depth{2: {Jobs: 2}},
	}
	bare := api.TypeInfo{Type: &jobs.Type{Name: "x"}}
	got := string(api.AppendTypesJSON(nil, []api.TypeInfo{full, bare}))
	want := `{"types":[{"name":"email","paused":true,"paused_by":"ann","paused_at":"1970-01-01T00:00:01Z","active_workers":2,"max_workers":4,` +
		`"depth":{"scheduled":1,"pending":2,"processing":3,"retrying":4},"oldest_seconds":1.5,"waiting_reasons":{"type_paused":2},` +
		`"last_minute":{"done":60,"run":{"p50":0.1,"p95":0.2,"p99":0.3}},"priorities":{"1":{"waiting":0,"oldest_seconds":0},` +
		`"2":{"waiting":2,"oldest_seconds":0},"3":{"waiting":0,"oldest_seconds":0},` +
		`"4":{"waiting":0,"oldest_seconds":0},"5":{"waiting":0,"oldest_seconds":0}},"retry_count":3,"timeout":90,"rate":"100/m","burst":1,` +
		`"concurrency_per_key":2,"backoff":{"kind":"linear","base":1.5,"max":60,"jitter":0.5},"sources":{"max_workers":"live","rate":"config","burst":"config","concurrency_per_key":"config"}},` +
		`{"name":"x","paused":false,"active_workers":0,"max_workers":0,` +
		`"depth":{"scheduled":0,"pending":0,"processing":0,"retrying":0},"oldest_seconds":0,"last_minute":{},` +
		`"priorities":{"1":{"waiting":0,"oldest_seconds":0},"2":{"waiting":0,"oldest_seconds":0},` +
		`"3":{"waiting":0,"oldest_seconds":0},"4":{"waiting":0,"oldest_seconds":0},` +
		`"5":{"waiting":0,"oldest_seconds":0}},"retry_count":0,"timeout":0,` +
		`"concurrency_per_key":1,"backoff":{"kind":"","base":0,"max":0,"jitter":0},"sources":{"max_workers":"config","rate":"config","burst":"config","concurrency_per_key":"config"}}]}`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := string(api.AppendTypesJSON(nil, nil)); got != `{"types":[]}` {
		t.Errorf("no types: %s", got)
	}
}

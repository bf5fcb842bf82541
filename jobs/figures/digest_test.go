package figures_test

import (
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/figures"
)

func TestBoard(t *testing.T) {
	t.Parallel()
	var b figures.Board
	none, next := b.Latest()
	if none != nil {
		t.Fatalf("a digest before the first: %s", none)
	}
	at := time.Date(2026, 11, 30, 12, 0, 1, 0, time.UTC)
	b.Put(&figures.Digest{
		At: at, Seconds: 1, Total: figures.Figures{Period: figures.Period{In: 3}, Waiting: 2, OldestSeconds: 0.25},
		Types: map[string]figures.Recent{"email": {
			Figures: figures.Figures{Period: figures.Period{In: 3, Run: &figures.Percentiles{P50: 0.001, P95: 0.01, P99: 0.1}}, Waiting: 2, OldestSeconds: 0.25},
			Paused:  true, Reasons: map[string]int{jobs.WaitTypePaused: 2},
		}},
		Workers: figures.Workers{Busy: 1, Max: 10, Utilisation: 0.5},
		Sample:  []figures.Change{{Seq: 7, Type: "email", Status: "failed", At: at, Error: "no"}}, Skipped: 4,
	})
	select {
	case <-next:
	case <-time.After(time.Minute):
		t.Fatal("nobody was notified of the digest")
	}
	got, next := b.Latest()
	want := `{"at":"2026-11-30T12:00:01Z","seconds":1,"total":{"in":3,"waiting":2,"oldest_seconds":0.25},` +
		`"types":{"email":{"in":3,"run":{"p50":0.001,"p95":0.01,"p99":0.1},"waiting":2,"oldest_seconds":0.25,"paused":true,"waiting_reasons":{"type_paused":2}}},` +
		`"workers":{"busy":1,"max":10,"utilisation":0.5},"node":{"disk_free_bytes":0,"commit_ms":0},` +
		`"sample":[{"id":"00000000-0000-0000-0000-000000000000","seq":7,"type":"email","status":"failed","at":"2026-11-30T12:00:01Z","error":"no"}],"skipped":4}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if again, same := b.Latest(); &again[0] != &got[0] || same != next {
		t.Error("the same digest was encoded twice")
	}
	select {
	case <-next:
		t.Error("notified of a digest that is not there")
	default:
	}
}

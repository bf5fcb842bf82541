package jobs_test

import (
	"testing"
	"time"

	"jobstream/jobs"
)

// TestWaited goes through lives of jobs, and compares how long their last start came after
// the moment at which it was due.
func TestWaited(t *testing.T) {
	t.Parallel()
	const created = jobs.Time(1_700_000_000_000_000_000)
	at := func(s int) jobs.Time { return created.Add(time.Duration(s) * time.Second) }
	entry := func(kind jobs.Kind, s int) jobs.HistoryEntry { return jobs.HistoryEntry{Kind: kind, At: at(s)} }
	due := func(kind jobs.Kind, s, then int) jobs.HistoryEntry {
		return jobs.HistoryEntry{Kind: kind, At: at(s), Due: at(then)}
	}
	submitted, started := entry(jobs.KindSubmitted, 0), func(s int) jobs.HistoryEntry { return entry(jobs.KindStarted, s) }
	for _, c := range []struct {
		name    string
		terms   *jobs.Terms
		history []jobs.HistoryEntry
		want    int // seconds; below 0 = unknown
		since   int // and from when on it would wait now
	}{
		{"not started", nil, []jobs.HistoryEntry{submitted}, -1, 0},
		{"at once", nil, []jobs.HistoryEntry{submitted, started(2)}, 2, 2},
		{"delayed", &jobs.Terms{RunAt: at(60)}, []jobs.HistoryEntry{submitted, entry(jobs.KindQueued, 61), started(63)}, 3, 63},
		{"delayed, and not queued yet", &jobs.Terms{RunAt: at(60)}, []jobs.HistoryEntry{submitted}, -1, 60},
		{"brought forward", &jobs.Terms{RunAt: at(60)}, []jobs.HistoryEntry{submitted, entry(jobs.KindQueued, 10), started(11)}, 1, 11},
		{"of a schedule that was late", &jobs.Terms{ScheduledFor: at(-30)}, []jobs.HistoryEntry{submitted, started(5)}, 5, 5},
		{"after a backoff", nil, []jobs.HistoryEntry{submitted, started(1), due(jobs.KindRetrying, 2, 10), started(14)}, 4, 14},
		{"in a backoff", nil, []jobs.HistoryEntry{submitted, started(1), due(jobs.KindRetrying, 2, 10)}, 1, 10},
		{"snoozed", nil, []jobs.HistoryEntry{submitted, started(1), due(jobs.KindSnoozed, 2, 30), entry(jobs.KindQueued, 31), started(33)}, 3, 33},
		{"given back", nil, []jobs.HistoryEntry{submitted, started(1), entry(jobs.KindProgress, 2), entry(jobs.KindReleased, 3), started(7)}, 4, 7},
		{"lost its worker", nil, []jobs.HistoryEntry{submitted, started(1), entry(jobs.KindLost, 20), started(25)}, 5, 25},
		{"retried by hand", nil, []jobs.HistoryEntry{submitted, started(1), entry(jobs.KindFailed, 2), entry(jobs.KindRerun, 100), started(101)}, 1, 101},
		{"delayed, started, and retried by hand later", &jobs.Terms{}, []jobs.HistoryEntry{submitted, entry(jobs.KindQueued, 60), started(62)}, 2, 62},
		{"put off by hand", nil, []jobs.HistoryEntry{submitted, due(jobs.KindRevised, 1, 40), entry(jobs.KindQueued, 41), started(43)}, 3, 43},
		{"a retry put off by hand", nil, []jobs.HistoryEntry{submitted, started(1), due(jobs.KindRetrying, 2, 10), due(jobs.KindRevised, 3, 40), started(42)}, 2, 42},
		{"changed by hand", nil, []jobs.HistoryEntry{submitted, entry(jobs.KindRevised, 7), started(9)}, 9, 9},
		{"two clocks", nil, []jobs.HistoryEntry{submitted, started(-1)}, 0, -1},
		{"ended", nil, []jobs.HistoryEntry{submitted, started(3), entry(jobs.KindProgress, 4), entry(jobs.KindCompleted, 5)}, 3, 5},
	} {
		j := &jobs.Job{CreatedAt: created, Terms: c.terms, History: c.history}
		got, ok := j.Waited()
		if ok != (c.want >= 0) || ok && got != time.Duration(c.want)*time.Second {
			t.Errorf("%s: waited %v, %v; want %d s", c.name, got, ok, c.want)
		}
		if since := j.WaitsSince(); since != at(c.since) {
			t.Errorf("%s: waits since %d s, want %d", c.name, since.Sub(created)/time.Second, c.since)
		}
	}
}

package history

import (
	"testing"
	"time"

	"jobstream/jobs"
)

func TestSpansOfAJob(t *testing.T) {
	const created = jobs.Time(1_700_000_000_000_000_000)
	at := func(d time.Duration) jobs.Time { return created.Add(d * time.Second) }
	started := func(attempt int, d time.Duration) jobs.HistoryEntry {
		return jobs.HistoryEntry{Kind: jobs.KindStarted, Attempt: attempt, At: at(d)}
	}
	const none = -1
	for _, c := range []struct {
		name      string
		job       jobs.Job
		wait, run time.Duration // seconds
	}{
		{"waiting", jobs.Job{Status: jobs.Pending}, none, none},
		{"running", jobs.Job{Status: jobs.Processing, Attempt: 1, StartedAt: at(2)}, 2, none},
		{"completed", jobs.Job{Status: jobs.Completed, Attempt: 1, StartedAt: at(2), EndedAt: at(5)}, 2, 3},
		{"second attempt", jobs.Job{
			Status: jobs.Completed, Attempt: 2, Failures: 1, StartedAt: at(10), EndedAt: at(11),
			History: []jobs.HistoryEntry{{Kind: jobs.KindSubmitted}, started(1, 2), started(2, 10)},
		}, 2, 1},
		{"start forgotten", jobs.Job{Status: jobs.Completed, Attempt: 2, StartedAt: at(10), EndedAt: at(11)}, none, 1},
		{"only a later start known", jobs.Job{
			Status: jobs.Failed, Attempt: 9, Failures: 9, StartedAt: at(10), EndedAt: at(11),
			History: []jobs.HistoryEntry{started(9, 10)},
		}, none, 1},
		{"refused", jobs.Job{Status: jobs.Failed, EndedAt: at(0)}, none, none},
		{"cancelled while waiting", jobs.Job{Status: jobs.Cancelled, EndedAt: at(9)}, none, none},
		{"cancelled between attempts", jobs.Job{Status: jobs.Cancelled, Attempt: 1, Failures: 1, StartedAt: at(1), EndedAt: at(9)}, 1, none},
		{"cancelled while running", jobs.Job{Status: jobs.Cancelled, Attempt: 1, StartedAt: at(1), EndedAt: at(9)}, 1, 8},
		{"put off", jobs.Job{Status: jobs.Completed, Attempt: 1, Run: 1, StartedAt: at(90), EndedAt: at(95), Terms: &jobs.Terms{RunAt: at(88)}}, 2, 5},
		{"of a schedule", jobs.Job{Status: jobs.Completed, Attempt: 1, Run: 1, StartedAt: at(3), EndedAt: at(5), Terms: &jobs.Terms{ScheduledFor: at(-10)}}, 3, 2},
		{"clocks at odds", jobs.Job{Status: jobs.Completed, Attempt: 1, StartedAt: at(-1), EndedAt: at(-2)}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.job.CreatedAt = created
			for what, f := range map[string]struct {
				measure func(*jobs.Job) (time.Duration, bool)
				want    time.Duration
			}{"wait": {Wait, c.wait}, "run": {RunTime, c.run}} {
				got, ok := f.measure(&c.job)
				if ok != (f.want != none) || ok && got != f.want*time.Second {
					t.Errorf("%s: %v, %v; want %d s", what, got, ok, f.want)
				}
			}
		})
	}
}

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		done, total int64
		want        int
	}{{0, 0, 0}, {5, 0, 0}, {-5, 10, 0}, {1, 3, 33}, {10, 10, 99}, {20, 10, 99}, {1 << 62, 1 << 62, 99}} {
		if got := Percent(c.done, c.total); got != c.want {
			t.Errorf("Percent(%d, %d) = %d, want %d", c.done, c.total, got, c.want)
		}
	}
}

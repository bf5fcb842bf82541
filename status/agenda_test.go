package status

import (
	"context"
	"slices"
	"strings"
	"testing"

	"jobstream/jobs"
)

func later(seq uint64, runAt int) *jobs.Message {
	return with(seq, jobs.Terms{RunAt: epoch.Add(seconds(runAt))})
}

// Due lists what is due by a moment, and says when there will be more.
func TestDue(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	tr.folds([]*jobs.Message{later(1, 300), later(2, 100), message(3), later(4, 200), later(5, 100), later(6, 3)})
	tr.states("scheduled due", "scheduled due", "pending", "scheduled due", "scheduled due", "pending")
	tr.everywhere(func() {
		for _, tt := range []struct {
			now              int
			limit, scheduled int
			due              []uint64
			next             int
		}{
			{now: 99, limit: 10, scheduled: 10, next: 100},
			{now: 100, limit: 10, scheduled: 10, due: []uint64{2, 5}, next: 200},
			{now: 250, limit: 10, scheduled: 10, due: []uint64{2, 5, 4}, next: 300},
			{now: 250, limit: 1, scheduled: 10, due: []uint64{2}, next: 300},
			{now: 250, limit: 10, scheduled: 2, due: []uint64{2, 5}, next: 300},
			{now: 250, limit: 10, scheduled: 0, next: 300},
			{now: 300, limit: 10, scheduled: 10, due: []uint64{2, 5, 4, 1}},
		} {
			due, next, err := tr.Due(epoch.Add(seconds(tt.now)), tt.limit, tt.scheduled)
			want := jobs.Time(0)
			if tt.next != 0 {
				want = epoch.Add(seconds(tt.next))
			}
			if err != nil || !slices.Equal(keysOf(due), tt.due) || next != want {
				t.Errorf("%+v: %v, next %v, %v", tt, keysOf(due), next, err)
			}
		}
	})
	if n, scheduled := tr.Totals(); n != 2 || scheduled != 4 {
		t.Errorf("%d unfinished, %d scheduled", n, scheduled)
	}
}

// Jobs that count as unfinished do not wait behind scheduled ones, however many
// of these are due.
func TestDueUnfinishedFirst(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	var ms []*jobs.Message
	for seq := range uint64(20) {
		ms = append(ms, later(seq+1, 50))
	}
	tr.folds(append(ms, keyed(21, "email", "k", 3), message(22)))
	at := epoch.Add(seconds(60))
	tr.folds(nil, of(jobs.KindRetrying, tr.find(21), at))
	tr.cancels(22)
	tr.retries(22)
	due, next, err := tr.Due(at, 5, 0)
	if err != nil || !slices.Equal(keysOf(due), []uint64{22}) || next != at.Add(seconds(10)) {
		t.Fatalf("%v, next %v, %v", keysOf(due), next, err)
	}
	due, next, err = tr.Due(next, 5, 1)
	if err != nil || !slices.Equal(keysOf(due), []uint64{22, 21, 1}) || next != 0 {
		t.Fatalf("%v, next %v, %v", keysOf(due), next, err)
	}
}

// A scheduled job becomes a pending one with its message, never before its time,
// and once.
func TestRelease(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	c := tr.receives(later(1, 100))
	runAt := epoch.Add(seconds(100))
	if c.Due() != runAt || c.Load.Scheduled != 1 || c.Load.Unfinished != 0 || c.Load.Queued != 0 {
		t.Fatalf("%+v", c)
	}
	if floor, n := tr.Floor(); floor != 2 || n != 0 {
		t.Errorf("floor %d, %d in the queue", floor, n)
	}
	early := again(tr.find(1), 2, runAt-1)
	if c := tr.receives(early); len(slices.Collect(c.Submitted())) != 0 {
		t.Errorf("an early copy: %+v", slices.Collect(c.Submitted()))
	}
	tr.everywhere(func() { tr.states("scheduled due") })
	c = tr.receives(again(tr.find(1), 3, runAt))
	if len(slices.Collect(c.Submitted())) != 1 || c.Load.Unfinished != 1 || c.Load.Scheduled != 0 || c.Load.Queued != 1 {
		t.Fatalf("%+v", c)
	}
	tr.everywhere(func() {
		tr.states("pending")
		if j := tr.find(1); j.Seq != 3 || j.DueAt != 0 || j.History[len(j.History)-1].Kind != jobs.KindQueued {
			t.Errorf("%+v", j)
		}
		if floor, n := tr.Floor(); floor != 3 || n != 1 {
			t.Errorf("floor %d, %d in the queue", floor, n)
		}
		if due := tr.dueKeys(runAt); len(due) != 0 {
			t.Errorf("still due: %v", due)
		}
	})
	// One that its handler puts off is not let in by a copy of before.
	at := runAt.Add(seconds(1))
	copied := again(tr.find(1), 4, at)
	tr.folds(nil, of(jobs.KindSnoozed, tr.find(1), at))
	tr.receives(copied)
	tr.everywhere(func() { tr.states("scheduled due") })
	tr.receives(again(tr.find(1), 5, tr.find(1).DueAt))
	tr.everywhere(func() { tr.states("pending") })
	if j := tr.find(1); j.Attempt != 1 || j.Failures != 0 {
		t.Errorf("a snooze used up an attempt: %+v", j)
	}
	tr.folds(nil, of(jobs.KindCompleted, tr.find(1), at.Add(seconds(100))))
	tr.receives(again(tr.find(1), 6, at.Add(seconds(200))))
	tr.everywhere(func() { tr.states("completed") })
	if n, scheduled := tr.Totals(); n != 0 || scheduled != 0 {
		t.Errorf("%d unfinished, %d scheduled", n, scheduled)
	}
}

// A copy of its message that comes after a job was cancelled and deleted does not
// bring it back.
func TestReleaseOfADeletedJob(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	tr.receives(later(1, 100))
	copied := again(tr.find(1), 2, epoch.Add(seconds(100)))
	tr.cancels(1)
	if n := tr.deletes(1); n != 1 {
		t.Fatalf("deleted %d", n)
	}
	if c := tr.receives(copied); len(slices.Collect(c.Submitted())) != 0 {
		t.Errorf("%+v", slices.Collect(c.Submitted())[0])
	}
	tr.none(1)
	tr.none(2)
	tr.verify()
	// What was not deleted just now is taken for what it says: it may be of a time
	// before the tracker.
	other := message(3)
	other.Moved, other.CreatedAt = true, epoch
	if c := tr.receives(other); len(slices.Collect(c.Submitted())) != 1 {
		t.Errorf("%+v", c)
	}
	tr.verify()
}

// Expire ends what has not started, or not ended, in time.
func TestExpire(t *testing.T) {
	t.Parallel()
	const at = 1000
	limit := epoch.Add(seconds(at))
	for name, tt := range map[string]struct {
		terms  jobs.Terms
		before func(tr *tracker)
		want   string
		error  string
	}{
		"pending":                      {terms: jobs.Terms{ExpiresAt: limit}, want: "cancelled", error: jobs.ExpiredReason},
		"scheduled":                    {terms: jobs.Terms{RunAt: limit - 1, ExpiresAt: limit}, want: "cancelled", error: jobs.ExpiredReason},
		"started":                      {terms: jobs.Terms{ExpiresAt: limit}, before: startsFirst, want: "processing"},
		"released before":              {terms: jobs.Terms{ExpiresAt: limit}, before: releasesFirst, want: "pending"},
		"deadline of one that waits":   {terms: jobs.Terms{Deadline: limit}, want: "failed", error: jobs.DeadlineReason},
		"deadline of one that runs":    {terms: jobs.Terms{Deadline: limit}, before: startsFirst, want: "processing"},
		"deadline of one that retries": {terms: jobs.Terms{Deadline: limit}, before: failsFirst, want: "failed", error: jobs.DeadlineReason},
		"deadline of one that snoozes": {terms: jobs.Terms{Deadline: limit}, before: snoozesFirst, want: "failed", error: jobs.DeadlineReason},
		"both, not started":            {terms: jobs.Terms{ExpiresAt: limit, Deadline: limit + 1}, want: "cancelled", error: jobs.ExpiredReason},
		"both, retrying":               {terms: jobs.Terms{ExpiresAt: limit - 1, Deadline: limit}, before: failsFirst, want: "failed", error: jobs.DeadlineReason},
		"of a held one": {terms: jobs.Terms{ExpiresAt: limit, ConcurrencyKey: "k"}, before: func(tr *tracker) {
			tr.states("pending held")
		}, want: "cancelled", error: jobs.ExpiredReason},
	} {
		t.Run(name, func(t *testing.T) {
			tr := byHand(t)
			if strings.Contains(name, "held") {
				tr.receives(keyed(100, "email", "k", 3))
			}
			m := with(tr.Positions().Jobs+1, tt.terms)
			m.At = epoch.Add(1)
			c := tr.receives(m)
			key := m.Seq
			if want := min(orLate(tt.terms.RunAt), orLate(tt.terms.ExpiresAt), orLate(tt.terms.Deadline)); c.Due() != want {
				t.Errorf("to be looked at %v, want %v", c.Due(), want)
			}
			if key == 1 && tt.before != nil {
				tt.before(tr)
			}
			first := tr.find(key).LimitAt()
			if next, c := tr.expires(limit - 2); len(slices.Collect(c.Ended())) != 0 || next != first {
				t.Errorf("before its time: next %v, want %v; %+v", next, first, slices.Collect(c.Ended()))
			}
			_, c = tr.expires(limit.Add(startGrace))
			if ended := tt.error != ""; (len(slices.Collect(c.Ended())) == 1) != ended {
				t.Fatalf("ended: %+v", slices.Collect(c.Ended()))
			}
			tr.everywhere(func() {
				j := tr.find(key)
				if j.Status.String() != tt.want || !strings.HasPrefix(j.Error, tt.error) {
					t.Fatalf("%s: %s", j.Status, j.Error)
				}
				if next, c := tr.expires(limit.Add(startGrace) + 2); len(slices.Collect(c.Ended())) != 0 || next != 0 {
					t.Errorf("again: next %v, %+v", next, slices.Collect(c.Ended()))
				}
			})
		})
	}
}

func orLate(at jobs.Time) jobs.Time {
	if at == 0 {
		return 1 << 62
	}
	return at
}

func startsFirst(tr *tracker) {
	tr.folds(nil, of(jobs.KindStarted, tr.find(1), epoch.Add(seconds(10))))
}

func releasesFirst(tr *tracker) {
	startsFirst(tr)
	tr.folds(nil, of(jobs.KindReleased, tr.find(1), epoch.Add(seconds(11))))
}

func failsFirst(tr *tracker) {
	tr.folds(nil, of(jobs.KindRetrying, tr.find(1), epoch.Add(seconds(10))))
}

func snoozesFirst(tr *tracker) {
	tr.folds(nil, of(jobs.KindSnoozed, tr.find(1), epoch.Add(seconds(10))))
}

// A job that started just before its expiry has started, though word of that
// comes after it.
func TestExpireWaitsForWord(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	limit := epoch.Add(seconds(1000))
	tr.receives(with(1, jobs.Terms{ExpiresAt: limit}), with(2, jobs.Terms{ExpiresAt: limit}), with(3, jobs.Terms{ExpiresAt: limit + 5}))
	if next, c := tr.expires(limit + 1); len(slices.Collect(c.Ended())) != 0 || next != limit+5 {
		t.Fatalf("ended %v, next %v", keysOf(slices.Collect(c.Ended())), next)
	}
	if next, c := tr.expires(limit + 6); len(slices.Collect(c.Ended())) != 0 || next != limit.Add(startGrace) {
		t.Fatalf("ended %v, next %v", keysOf(slices.Collect(c.Ended())), next)
	}
	tr.folds(nil, of(jobs.KindStarted, tr.find(1), limit-1))
	tr.expires(limit.Add(startGrace) + 5)
	tr.everywhere(func() { tr.states("processing", "cancelled", "cancelled") })
}

// An attempt that ends after its job's deadline makes somebody look.
func TestExpireAfterAnAttempt(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	limit := epoch.Add(seconds(1000))
	tr.receives(with(1, jobs.Terms{Deadline: limit}))
	startsFirst(tr)
	if next, _ := tr.expires(limit); next != 0 {
		t.Fatalf("next %v", next)
	}
	j := tr.find(1)
	e := of(jobs.KindRetrying, j, limit+1)
	e.StartedAt = j.StartedAt
	if c := tr.folds(nil, e); c.Due() == 0 || c.Due() > limit {
		t.Errorf("to be looked at %v", c.Due())
	}
	tr.expires(limit + 1)
	tr.everywhere(func() { tr.states("failed") })
}

// Very many that expire at once take several calls.
func TestExpireInBatches(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	limit := epoch.Add(seconds(9000))
	for seq := uint64(0); seq < overdueBatch+10; {
		var ms []*jobs.Message
		for range 1000 {
			if seq++; seq > overdueBatch+10 {
				break
			}
			m := with(seq, jobs.Terms{ExpiresAt: limit})
			m.At = epoch.Add(1)
			ms = append(ms, m)
		}
		tr.folds(ms)
	}
	for _, want := range []struct {
		ended int
		next  jobs.Time
	}{{overdueBatch, limit}, {10, 0}, {0, 0}} {
		if next, c := tr.expires(limit.Add(startGrace)); len(slices.Collect(c.Ended())) != want.ended || next != want.next {
			t.Fatalf("ended %d, next %v; want %+v", len(slices.Collect(c.Ended())), next, want)
		}
	}
	if n, _ := tr.Totals(); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// Unfinished is what has to be in JOBS, and nothing else.
func TestUnfinishedIsWhatIsInTheQueue(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	tr.folds([]*jobs.Message{message(1), later(2, 100), keyed(3, "email", "k", 3), keyed(4, "email", "k", 3), message(5), message(6)})
	tr.cancels(5, 6)
	tr.retries(6)
	tr.everywhere(func() {
		tr.states("pending", "scheduled due", "pending turn", "pending held", "cancelled", "pending due")
		var got []uint64
		tr.must(tr.Unfinished(context.Background(), func(some []*jobs.Job) error { got = append(got, keysOf(some)...); return nil }))
		if !slices.Equal(got, []uint64{1, 3}) {
			t.Errorf("%v", got)
		}
		got = nil
		tr.must(tr.Queued(context.Background(), func(_ jobs.Lane, seq uint64) { got = append(got, seq) }))
		if !slices.Equal(got, []uint64{1, 3}) {
			t.Errorf("queued: %v", got)
		}
		if n, scheduled := tr.Totals(); n != 4 || scheduled != 1 {
			t.Errorf("%d unfinished, %d scheduled", n, scheduled)
		}
		if some, highest := tr.Live([]uint64{2, 4, 5, 6}); some || highest != 3 {
			t.Errorf("live: %v, %d", some, highest)
		}
	})
}

package schedule_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

func TestFiresOnTheGrid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig()
		time.Sleep(300 * time.Millisecond)
		g.create(t, `{"name":"a","every":"1s","type":"report","overlap":"queue"}`)
		g.create(t, `{"name":"b","cron":"*/2 * * * * *","type":"report","overlap":"queue","payload":{"x":1}}`)
		g.refuse = func(*jobs.Message) error { time.Sleep(30 * time.Millisecond); return nil } // a slow commit
		g.run(t)
		defer g.stop()
		pass(4 * time.Second)
		wantFires(t, g, "a", "1.3s", "2.3s", "3.3s")
		wantFires(t, g, "b", "2s", "4s")
		pass(5*time.Minute - 4*time.Second)
		if n := len(g.fires("a", g.begin)); n != 299 {
			t.Errorf("in five minutes a was fired %d times", n)
		}
		for _, j := range g.made {
			if late := j.CreatedAt.Sub(j.Terms.ScheduledFor); late != 30*time.Millisecond {
				t.Fatalf("%s's job for %s was made %s late", j.Terms.Schedule, j.Terms.ScheduledFor, late)
			}
		}
		e := g.get("b")
		if string(e.Payload) != `{"x":1}` || e.LastJob != schedule.FireID("b", e.Done) || e.LastRunAt != e.Done.Add(30*time.Millisecond) {
			t.Errorf("b is %+v", e)
		}
		if g.writes != 2 { // for the two new schedules
			t.Errorf("beside the jobs there were %d writes", g.writes)
		}
	})
}

func TestOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig()
		g.create(t, `{"name":"skip","every":"10s","type":"report"}`)
		g.create(t, `{"name":"queue","every":"10s","type":"report","overlap":"queue"}`)
		g.run(t)
		defer g.stop()
		pass(31 * time.Second)
		wantFires(t, g, "skip", "10s")
		wantFires(t, g, "queue", "10s", "20s", "30s")
		if e := g.get("skip"); e.Skipped != 2 || e.Done != g.begin.Add(30*time.Second) {
			t.Errorf("%d times were skipped, up to %s", e.Skipped, e.Done)
		}
		g.end()
		pass(10 * time.Second)
		wantFires(t, g, "skip", "10s", "40s")
		if e := g.get("queue"); e.Skipped != 0 {
			t.Errorf("%d times of the queuing schedule were skipped", e.Skipped)
		}
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig()
		g.create(t, `{"name":"one","every":"1m","type":"report","overlap":"queue"}`)
		g.create(t, `{"name":"none","every":"1m","type":"report","overlap":"queue","catch_up":"none"}`)
		g.create(t, `{"name":"paused","every":"1m","type":"report","paused":true}`)
		g.run(t)
		pass(90 * time.Second)
		g.stop()
		pass(5 * time.Minute)
		g.renew()
		g.run(t)
		pass(time.Second)
		wantFires(t, g, "one", "1m", "6m")
		wantFires(t, g, "none", "1m")
		// and again at once, with nothing missing
		g.stop()
		g.renew()
		g.run(t)
		defer g.stop()
		pass(time.Minute)
		wantFires(t, g, "one", "1m", "6m", "7m")
		wantFires(t, g, "none", "1m", "7m")
		wantFires(t, g, "paused")
	})
}

// A process may die after the job was stored, or its tracker may be unable to answer.
// Then the same time is fired again under the same id.
func TestNeverTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig()
		g.create(t, `{"name":"a","every":"10s","type":"report","overlap":"queue"}`)
		g.forget = true
		g.run(t)
		pass(11 * time.Second)
		g.stop()
		wantFires(t, g, "a", "10s")
		if e := g.get("a"); e.Done != g.begin.Add(10*time.Second) || e.LastJob != g.made[0].ID {
			t.Errorf("a is %+v", e.State)
		}
		e := *g.get("a")
		e.Done = g.begin // as if that had not been written
		g.entries["a"] = &e
		g.renew()
		g.run(t)
		defer g.stop()
		pass(time.Second)
		wantFires(t, g, "a", "10s")
		if g.submits != 2 || g.get("a").Done != g.begin.Add(10*time.Second) {
			t.Errorf("%d submissions, done up to %s", g.submits, g.get("a").Done)
		}
		pass(10 * time.Second)
		wantFires(t, g, "a", "10s", "20s")
	})
}

func TestRetriesWithoutBlockingOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig()
		g.create(t, `{"name":"sick","every":"10s","type":"report","overlap":"queue"}`)
		g.create(t, `{"name":"well","every":"10s","type":"report","overlap":"queue"}`)
		var broken atomic.Bool
		broken.Store(true)
		g.refuse = func(m *jobs.Message) error {
			if m.Terms.Schedule == "sick" && broken.Load() {
				return errBroken
			}
			return nil
		}
		g.run(t)
		defer g.stop()
		pass(25 * time.Second)
		wantFires(t, g, "sick")
		wantFires(t, g, "well", "10s", "20s")
		if e := g.get("sick"); e.Done != g.begin {
			t.Errorf("done up to %s without a job", e.Done)
		}
		broken.Store(false)
		pass(5 * time.Second)
		wantFires(t, g, "sick", "10s", "20s", "30s")
		// an outage of hours does not end in a flood
		broken.Store(true)
		pass(2 * time.Hour)
		broken.Store(false)
		pass(9 * time.Second)
		n := len(g.fires("sick", g.begin))
		if n < 3+1+6 || n > 3+1+8 {
			t.Errorf("after two hours %d jobs were made", n)
		}
	})
}

func TestHopeless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig()
		g.create(t, `{"name":"a","every":"10s","type":"report"}`)
		g.refuse = func(*jobs.Message) error {
			return &jobs.Error{Kind: jobs.PayloadTooLarge, Detail: "too large for the broker"}
		}
		g.run(t)
		pass(25 * time.Second)
		g.stop()
		if e := g.get("a"); g.submits != 2 || e.Done != g.begin.Add(20*time.Second) || e.LastRunAt != 0 {
			t.Errorf("%d submissions, %+v", g.submits, e.State)
		}
		if n := strings.Count(g.log.String(), "too large for the broker"); n != 2 {
			t.Errorf("it is logged %d times", n)
		}
	})
}

func TestChangesAreHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		g := newRig()
		g.run(t)
		defer g.stop()
		pass(2 * time.Hour) // without any schedule
		g.begin = jobs.Now()
		g.create(t, `{"name":"a","every":"10s","type":"report","overlap":"queue"}`)
		pass(15 * time.Second)
		wantFires(t, g, "a", "10s")
		if _, err := g.book.Pause(ctx, "rest", "a"); err != nil {
			t.Fatal(err)
		}
		pass(20 * time.Second)
		if e, err := g.book.Resume(ctx, "rest", "a"); err != nil || e.NextRunAt(g.now()) != g.begin.Add(40*time.Second) {
			t.Fatal(e, err)
		}
		pass(10 * time.Second)
		wantFires(t, g, "a", "10s", "40s")
		s, err := schedule.ParseSpec([]byte(`{"name":"a","every":"7s","type":"report","overlap":"queue"}`))
		if err != nil {
			t.Fatal(err)
		}
		if _, created, err := g.book.Put(ctx, "rest", s); created || err != nil {
			t.Fatal(created, err)
		}
		pass(8 * time.Second)
		wantFires(t, g, "a", "10s", "40s", "52s")
		if err := g.book.Delete(ctx, "rest", "a"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		wantFires(t, g, "a", "10s", "40s", "52s")
		g.create(t, `{"name":"a","every":"10s","type":"report","overlap":"queue"}`)
		pass(10 * time.Second)
		wantFires(t, g, "a", "10s", "40s", "52s", "2m3s")
	})
}

// A change counts even during a look at the old state.
func TestChangedWhileItIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig()
		g.slow = 100 * time.Millisecond
		g.run(t)
		defer g.stop()
		g.create(t, `{"name":"a","every":"1h","type":"report"}`)
		pass(50 * time.Millisecond) // it has been read
		if _, _, err := g.book.Put(t.Context(), "rest", spec(t, `{"name":"a","every":"10s","type":"report"}`)); err != nil {
			t.Fatal(err)
		}
		pass(11 * time.Second)
		wantFires(t, g, "a", "10.05s")
	})
}

func TestRemovedWhileItIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig()
		g.create(t, `{"name":"a","every":"10s","type":"report"}`)
		g.refuse = func(*jobs.Message) error { return errBroken }
		g.run(t)
		defer g.stop()
		pass(11 * time.Second)
		if err := g.book.Delete(t.Context(), "rest", "a"); err != nil {
			t.Fatal(err)
		}
		n := g.submits
		pass(time.Minute)
		if g.submits != n || n == 0 {
			t.Errorf("%d tries, then %d", n, g.submits)
		}
	})
}

func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig()
		g.create(t, `{"name":"one","every":"10m","type":"report","overlap":"queue"}`)
		g.create(t, `{"name":"none","every":"10m","type":"report","overlap":"queue","catch_up":"none"}`)
		g.create(t, `{"name":"often","every":"1s","type":"report","overlap":"queue"}`)
		g.run(t)
		defer g.stop()
		pass(601 * time.Second)
		wantFires(t, g, "one", "10m")
		n := len(g.fires("often", g.begin))
		g.jump(-8 * time.Minute) // the wall clock shows 2:01
		pass(8 * time.Minute)    // and 10:01 again
		wantFires(t, g, "one", "10m")
		wantFires(t, g, "none", "10m")
		if m := len(g.fires("often", g.begin)); m > n+1 { // 10:01 itself may have come
			t.Errorf("%d seconds were fired again", m-n)
		}
		pass(10 * time.Minute)
		wantFires(t, g, "one", "10m", "20m")
		n = len(g.fires("often", g.begin))
		g.jump(35 * time.Minute) // 55:01
		pass(time.Second)
		wantFires(t, g, "one", "10m", "20m", "50m")
		wantFires(t, g, "none", "10m", "20m")
		if m := len(g.fires("often", g.begin)); m > n+3 {
			t.Errorf("after a jump %d seconds were fired", m-n)
		}
		pass(5 * time.Minute)
		wantFires(t, g, "one", "10m", "20m", "50m", "1h0m0s")
		wantFires(t, g, "none", "10m", "20m", "1h0m0s")
	})
}

// A time that was missed, and comes again because the clock was put back, is no longer
// missed.
func TestClockGoesBackBehindTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig()
		g.create(t, `{"name":"none","every":"10m","type":"report","catch_up":"none"}`)
		pass(15 * time.Minute) // the first ones are missed
		g.run(t)
		defer g.stop()
		pass(time.Minute)
		wantFires(t, g, "none")
		g.jump(-8 * time.Minute)
		pass(3 * time.Minute)
		wantFires(t, g, "none", "10m")
		pass(10 * time.Minute)
		g.end()
		wantFires(t, g, "none", "10m")
		if e := g.get("none"); e.Skipped != 1 {
			t.Errorf("%d times were skipped", e.Skipped)
		}
	})
}

func TestStoreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig()
		g.create(t, `{"name":"a","every":"10s","type":"report"}`)
		g.run(t)
		pass(5 * time.Second)
		g.tracker.mu.Lock()
		g.storeErr = errBroken
		g.tracker.mu.Unlock()
		pass(6 * time.Second)
		g.tracker.mu.Lock()
		g.storeErr = nil
		g.tracker.mu.Unlock()
		pass(5 * time.Second)
		wantFires(t, g, "a", "10s")
		g.stop()
		g.storeErr = errBroken
		if err := g.runner.Run(t.Context()); err == nil {
			t.Error("a runner without a store runs")
		}
	})
}

// Thousands of schedules fire at once, and again.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig()
		const n = 3000
		for i := range n {
			g.create(t, fmt.Sprintf(`{"name":"s%d","cron":"0 * * * * *","type":"report","overlap":"queue"}`, i))
		}
		g.refuse = func(*jobs.Message) error { time.Sleep(10 * time.Millisecond); return nil }
		g.run(t)
		defer g.stop()
		pass(3*time.Minute + time.Second)
		if len(g.made) != 3*n {
			t.Fatalf("%d jobs", len(g.made))
		}
		for _, j := range g.made {
			if late := j.CreatedAt.Sub(j.Terms.ScheduledFor); late != 10*time.Millisecond {
				t.Fatalf("%s's job for %s was made %s late", j.Terms.Schedule, j.Terms.ScheduledFor, late)
			}
		}
	})
}

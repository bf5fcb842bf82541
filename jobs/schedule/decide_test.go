package schedule_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

func TestDecide(t *testing.T) {
	const z = "2026-11-23 "
	tests := []struct {
		name             string
		done, since, now string // hourly
		change           func(e *schedule.Entry)
		busy             bool
		deed             schedule.Deed
		at               string
	}{
		{"before its time", z + "10:00:00", z + "10:00:00", "2026-11-23T10:59:59.999999999Z", nil, false, schedule.Wait, z + "11:00:00"},
		{"at its time", z + "10:00:00", z + "10:00:00", z + "11:00:00", nil, false, schedule.Fire, z + "11:00:00"},
		{"late", z + "10:00:00", z + "10:00:00", z + "11:00:40", nil, false, schedule.Fire, z + "11:00:00"},
		{"paused", z + "10:00:00", z + "10:00:00", z + "11:00:00", func(e *schedule.Entry) { e.Paused = true }, false, schedule.Wait, ""},
		{"busy", z + "10:00:00", z + "10:00:00", z + "11:00:00", nil, true, schedule.Pass, z + "11:00:00"},
		{"busy, queue", z + "10:00:00", z + "10:00:00", z + "11:00:00", func(e *schedule.Entry) { e.Overlap = schedule.Queue }, true, schedule.Fire, z + "11:00:00"},
		{"down for hours", z + "10:00:00", z + "15:30:00", z + "15:30:00", nil, false, schedule.Fire, z + "15:00:00"},
		{"down for hours, busy", z + "10:00:00", z + "15:30:00", z + "15:30:00", nil, true, schedule.Pass, z + "15:00:00"},
		{"down for hours, none", z + "10:00:00", z + "15:30:00", z + "15:30:00", func(e *schedule.Entry) { e.CatchUp = schedule.None }, false, schedule.Wait, z + "16:00:00"},
		{"down until the hour, none", z + "10:00:00", z + "15:00:00", z + "15:00:00", func(e *schedule.Entry) { e.CatchUp = schedule.None }, false, schedule.Fire, z + "15:00:00"},
		{"after a missed one was fired", z + "15:00:00", z + "15:30:00", z + "15:30:00", nil, false, schedule.Wait, z + "16:00:00"},
		{"stuck for hours", z + "10:00:00", z + "10:00:00", z + "15:30:00", nil, false, schedule.Fire, z + "15:00:00"},
		{"put back", z + "10:00:00", z + "08:30:00", z + "08:30:00", nil, false, schedule.Wait, z + "11:00:00"},
		{"watching since later", z + "10:00:00", z + "12:30:00", z + "11:30:00", nil, false, schedule.Fire, z + "11:00:00"},
	}
	for _, tt := range tests {
		e := &schedule.Entry{
			Spec:  schedule.Spec{Name: "a", Cron: "@hourly", Timezone: "UTC", Overlap: schedule.Skip, CatchUp: schedule.One},
			State: schedule.State{Done: at(t, tt.done)},
		}
		if tt.change != nil {
			tt.change(e)
		}
		p, err := e.Plan()
		if err != nil {
			t.Fatal(err)
		}
		want := schedule.Decision{Deed: tt.deed}
		if tt.at != "" {
			want.At = at(t, tt.at)
		}
		got := schedule.Decide(p, e, schedule.Moment{Now: at(t, tt.now), Since: at(t, tt.since), Busy: tt.busy})
		if got != want {
			t.Errorf("%s: %v %s, not %v %s", tt.name, got.Deed, got.At, want.Deed, want.At)
		}
	}
}

// The model leads a schedule through time that passes, jumps and stands still. It
// compares the fate of every time with the policies.
func TestDecideIsTheModels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		begin := at(t, "2026-10-24T12:00:00Z") // Berlin's clocks go back in the night
		e := &schedule.Entry{
			Spec: schedule.Spec{
				Name: "a", Timezone: "Europe/Berlin",
				Overlap: rapid.SampledFrom([]schedule.Overlap{schedule.Skip, schedule.Queue}).Draw(t, "overlap"),
				CatchUp: rapid.SampledFrom([]schedule.CatchUp{schedule.One, schedule.None}).Draw(t, "catch up"),
			},
			State: schedule.State{Anchor: begin, Done: begin},
		}
		if rapid.Bool().Draw(t, "by the clock") {
			e.Cron = rapid.SampledFrom([]string{"*/5 * * * *", "30 2 * * *", "0,30 1-4 * * *", "*/20 * * * * *", "@hourly"}).Draw(t, "cron")
		} else {
			e.Every = time.Duration(rapid.IntRange(1, 5000).Draw(t, "every")) * time.Second
		}
		p, err := e.Plan()
		if err != nil {
			t.Fatal(err)
		}

		// all times, up to the farthest moment of the clock
		var all []jobs.Time
		end := begin.Add(4 * 24 * time.Hour)
		for x := p.Next(begin); x < end && x != 0; x = p.Next(x) {
			all = append(all, x)
		}
		dealt := make(map[jobs.Time]bool)
		now, since, busy := begin, begin, false
		highest := jobs.Time(0) // the last time that was dealt with
		for step := range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, fmt.Sprint("what ", step)) {
			case 0: // a restart or a forward jump: nobody watched the clock
				now = now.Add(time.Duration(rapid.IntRange(1, 6*3600).Draw(t, "gap")) * time.Second)
				since = now
			case 1: // a jump back
				now = max(begin, now.Add(-time.Duration(rapid.IntRange(1, 6*3600).Draw(t, "back"))*time.Second))
				since = min(since, now)
			case 2:
				busy = !busy
			default: // the next time, or somewhere before it
				next := p.Next(now)
				now = min(next, now.Add(time.Duration(rapid.IntRange(1, 30).Draw(t, "on"))*time.Second))
			}
			if now >= end {
				return
			}
			// the result of the policies
			var missed, onTime []jobs.Time
			for _, x := range all {
				switch {
				case x <= highest || x > now:
				case x < since || now.Sub(x) > time.Minute:
					missed = append(missed, x)
				default:
					onTime = append(onTime, x)
				}
			}
			want := onTime
			if len(missed) > 0 && e.CatchUp == schedule.One {
				want = append(missed[len(missed)-1:], onTime...)
			}
			for _, x := range want {
				got := schedule.Decide(p, e, schedule.Moment{Now: now, Since: since, Busy: busy})
				deed := schedule.Fire
				if busy && e.Overlap == schedule.Skip {
					deed = schedule.Pass
				}
				if got != (schedule.Decision{Deed: deed, At: x}) {
					t.Fatalf("at %s, watching since %s, done up to %s: %v %s, not %v %s", now, since, e.Done, got.Deed, got.At, deed, x)
				}
				if dealt[x] || x > now {
					t.Fatalf("%s is dealt with at %s, a second time or too early", x, now)
				}
				dealt[x] = true
				highest = x
				c := *e
				c.Done = x
				e = &c
			}
			got := schedule.Decide(p, e, schedule.Moment{Now: now, Since: since, Busy: busy})
			if got.Deed != schedule.Wait || got.At <= now || got.At != p.Next(max(now, e.Done)) {
				t.Fatalf("at %s, when all is done: %v %s", now, got.Deed, got.At)
			}
		}
	})
}

package schedule_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

// tester is the common part of *testing.T and *rapid.T.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

func at(t tester, text string) jobs.Time {
	t.Helper()
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05"} {
		if u, err := time.Parse(layout, text); err == nil {
			return jobs.TimeOf(u)
		}
	}
	t.Fatalf("%q is no time", text)
	return 0
}

func plan(t testing.TB, cron, zone string) *schedule.Plan {
	t.Helper()
	p, err := schedule.NewPlan(&schedule.Spec{Cron: cron, Timezone: zone}, 0)
	if err != nil {
		t.Fatalf("%q in %s: %v", cron, zone, err)
	}
	return p
}

// Times are readings of the wall clock in the zone.
func TestCronTimes(t *testing.T) {
	tests := []struct{ cron, zone, after, want string }{
		{"*/15 * * * *", "UTC", "2026-01-01 00:00:00", "2026-01-01 00:15:00 00:30:00 00:45:00 01:00:00"},
		{"*/20 * * * * *", "UTC", "2026-01-01 00:00:59", "2026-01-01 00:01:00 00:01:20 00:01:40 00:02:00"},
		{"@daily", "UTC", "2026-12-30 00:00:00", "2026-12-31 00:00:00 2027-01-01 00:00:00"},
		{"@hourly", "Asia/Kathmandu", "2026-12-31 22:10:00", "2026-12-31 23:00:00 2027-01-01 00:00:00"},
		{"@weekly", "UTC", "2026-11-23 00:00:00", "2026-11-29 00:00:00 2026-12-06 00:00:00"},
		{"@monthly", "UTC", "2026-11-23 00:00:00", "2026-12-01 00:00:00 2027-01-01 00:00:00"},
		{"@yearly", "UTC", "2026-11-23 00:00:00", "2027-01-01 00:00:00 2028-01-01 00:00:00"},
		{"0 0 29 2 *", "UTC", "2096-02-29 00:00:00", "2104-02-29 00:00:00 2108-02-29 00:00:00"},
		{"0 0 29 2 1", "UTC", "2026-11-23 00:00:00", "2027-02-01 00:00:00 2027-02-08 00:00:00"},
		{"0 0 13 * 5", "UTC", "2026-11-09 00:00:00", "2026-11-13 00:00:00 2026-11-20 00:00:00"},
		{"0 0 * * 7", "UTC", "2026-11-23 00:00:00", "2026-11-29 00:00:00 2026-12-06 00:00:00"},
		{"0 0 * * 5-7", "UTC", "2026-11-23 00:00:00", "2026-11-27 00:00:00 2026-11-28 00:00:00 2026-11-29 00:00:00 2026-12-04 00:00:00"},
		{"0 0 * * 1-7/3", "UTC", "2026-11-23 00:00:00", "2026-11-26 00:00:00 2026-11-29 00:00:00 2026-11-30 00:00:00"},
		{"0 0 31 * *", "UTC", "2026-01-31 00:00:00", "2026-03-31 00:00:00 2026-05-31 00:00:00"},
		{"30 17 * * *", "America/New_York", "2026-11-23 17:30:00", "2026-11-24 17:30:00"},

		// put forward from 02:00 to 03:00
		{"30 2 * * *", "Europe/Berlin", "2026-03-28 02:30:00", "2026-03-29 03:00:00 2026-03-30 02:30:00"},
		{"*/10 2 * * *", "Europe/Berlin", "2026-03-28 02:50:00", "2026-03-29 03:00:00 2026-03-30 02:00:00"},
		{"0 2,3 * * *", "Europe/Berlin", "2026-03-28 03:00:00", "2026-03-29 03:00:00 2026-03-30 02:00:00"},
		{"0 3 * * *", "Europe/Berlin", "2026-03-28 03:00:00", "2026-03-29 03:00:00 2026-03-30 03:00:00"},
		{"30 * * * *", "Europe/Berlin", "2026-03-29 00:30:00", "2026-03-29 01:30:00 03:30:00 04:30:00"},
		{"0 */2 * * *", "Europe/Berlin", "2026-03-29 00:00:00", "2026-03-29 04:00:00 06:00:00"},
		{"30 2 30 3 *", "Europe/Berlin", "2026-03-28 00:00:00", "2026-03-30 02:30:00"},
		// put back from 03:00 to 02:00
		{"30 2 * * *", "Europe/Berlin", "2026-10-24 02:30:00", "2026-10-25 02:30:00 2026-10-26 02:30:00"},
		{"0 3 * * *", "Europe/Berlin", "2026-10-24 03:00:00", "2026-10-25 03:00:00 2026-10-26 03:00:00"},
		{"30 * * * *", "Europe/Berlin", "2026-10-25 00:30:00", "2026-10-25 01:30:00 02:30:00 02:30:00 03:30:00"},
		// put forward from 00:00 to 01:00, and back at 00:00 to 23:00
		{"0 0 * * *", "America/Sao_Paulo", "2018-11-03 00:00:00", "2018-11-04 01:00:00 2018-11-05 00:00:00"},
		{"30 23 * * *", "America/Sao_Paulo", "2018-02-16 23:30:00", "2018-02-17 23:30:00 2018-02-18 23:30:00"},
		// half an hour, from 02:00 to 02:30
		{"15 2 * * *", "Australia/Lord_Howe", "2026-10-03 02:15:00", "2026-10-04 02:30:00 2026-10-05 02:15:00"},
		// a day that never was
		{"0 12 * * *", "Pacific/Apia", "2011-12-29 12:00:00", "2011-12-31 00:00:00 2011-12-31 12:00:00 2012-01-01 12:00:00"},
	}
	for _, tt := range tests {
		loc, err := time.LoadLocation(tt.zone)
		if err != nil {
			t.Fatal(err)
		}
		first, err := time.ParseInLocation(time.DateTime, tt.after, loc)
		if err != nil {
			t.Fatal(err)
		}
		p, x := plan(t, tt.cron, tt.zone), jobs.TimeOf(first)
		var got []string
		day := ""
		for range strings.Count(tt.want, ":") / 2 {
			x = p.Next(x)
			got = append(got, x.Std().In(loc).Format(time.DateTime))
		}
		var want []string
		for _, w := range strings.Fields(tt.want) {
			if strings.Contains(w, "-") {
				day = w
			} else {
				want = append(want, day+" "+w)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q in %s after %s:\n%v, not\n%v", tt.cron, tt.zone, tt.after, got, want)
		}
	}
}

func TestGrid(t *testing.T) {
	anchor := at(t, "2026-01-01T00:00:00.123456789Z")
	for _, s := range []*schedule.Spec{
		{Every: 90 * time.Second, Timezone: "UTC"},
		{Cron: "@every 90s", Timezone: "UTC"},
		{Cron: "@every 1m30s", Timezone: "Europe/Berlin"},
	} {
		p, err := schedule.NewPlan(s, anchor)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			after time.Duration // from the anchor; so is next
			next  time.Duration
		}{
			{-time.Hour, 90 * time.Second},
			{-1, 90 * time.Second},
			{0, 90 * time.Second},
			{90*time.Second - 1, 90 * time.Second},
			{90 * time.Second, 180 * time.Second},
			{1000 * 90 * time.Second, 1001 * 90 * time.Second},
		} {
			if got := p.Next(anchor.Add(tt.after)).Sub(anchor); got != tt.next {
				t.Errorf("%s: after %s comes %s, not %s", s.Cron, tt.after, got, tt.next)
			}
		}
	}
}

func TestNextComesToAnEnd(t *testing.T) {
	last := at(t, "2261-12-31 23:59:59")
	if got := plan(t, "0 0 29 2 *", "UTC").Next(last); got != 0 {
		t.Errorf("after the year 2261 comes %s", got)
	}
	if got := plan(t, "0 0 * * *", "America/New_York").Next(last.Add(100*24*time.Hour + 12*time.Hour)); got != 0 {
		t.Errorf("after the end of time comes %s", got)
	}
}

func TestLatest(t *testing.T) {
	daily := plan(t, "0 3 * * *", "UTC")
	seconds := plan(t, "* * * * * *", "UTC")
	for _, tt := range []struct {
		p                  *schedule.Plan
		after, until, want string
	}{
		{daily, "2026-01-01 00:00:00", "2026-06-01 00:00:00", "2026-05-31 03:00:00"},
		{daily, "2026-01-01 00:00:00", "2026-06-01 03:00:00", "2026-06-01 03:00:00"},
		{daily, "2026-01-01 03:00:00", "2026-01-02 02:59:59", ""},
		{daily, "2026-01-01 00:00:00", "2026-01-01 00:00:00", ""},
		{seconds, "2000-01-01 00:00:00", "2026-06-01T10:11:12.9Z", "2026-06-01 10:11:12"},
	} {
		want := jobs.Time(0)
		if tt.want != "" {
			want = at(t, tt.want)
		}
		if got := tt.p.Latest(at(t, tt.after), at(t, tt.until)); got != want {
			t.Errorf("the latest from %s to %s is %s, not %s", tt.after, tt.until, got, want)
		}
	}
}

// wall is a model of a cron that looks at the wall clock every second, like the real
// ones. A fixed hour matches every reading that the clock shows for the first time. It
// also matches all skipped readings together, once.
type wall struct {
	fields [6][]int // second … day of the week; nil = *
	wild   bool
}

func (w *wall) matches(t time.Time) bool {
	for i, v := range []int{t.Second(), t.Minute(), t.Hour(), t.Day(), int(t.Month()), int(t.Weekday())} {
		if i != 3 && i != 5 && !w.has(i, v) {
			return false
		}
	}
	dom, dow := w.has(3, t.Day()), w.has(5, int(t.Weekday()))
	if w.fields[3] != nil && w.fields[5] != nil {
		return dom || dow
	}
	return dom && dow
}

func (w *wall) has(i, v int) bool { return w.fields[i] == nil || slices.Contains(w.fields[i], v) }

// times are all times from one moment to another.
func (w *wall) times(loc *time.Location, from, to time.Time) (all []jobs.Time) {
	reading := func(t time.Time) int64 { _, offset := t.In(loc).Zone(); return t.Unix() + int64(offset) }
	highest := reading(from.Add(-time.Second))
	before := highest
	for t := from; t.Before(to); t = t.Add(time.Second) {
		now := reading(t)
		match := w.matches(time.Unix(now, 0).UTC())
		if !w.wild {
			match = match && now > highest
			for left := before + 1; left < now && !match; left++ {
				match = left > highest && w.matches(time.Unix(left, 0).UTC())
			}
		}
		if match {
			all = append(all, jobs.TimeOf(t))
		}
		before, highest = now, max(highest, now)
	}
	return all
}

// shifts are moments at which clocks are changed, and their zones.
var shifts = []struct{ zone, at string }{
	{"Europe/Berlin", "2026-03-29T01:00:00Z"},
	{"Europe/Berlin", "2026-10-25T01:00:00Z"},
	{"America/New_York", "2026-03-08T07:00:00Z"},
	{"America/New_York", "2026-11-01T06:00:00Z"},
	{"Australia/Lord_Howe", "2026-04-04T15:00:00Z"},
	{"Australia/Lord_Howe", "2026-10-03T15:30:00Z"},
	{"America/Sao_Paulo", "2018-02-18T02:00:00Z"},
	{"America/Sao_Paulo", "2018-11-04T03:00:00Z"},
	{"Antarctica/Troll", "2026-03-29T01:00:00Z"},
	{"America/Havana", "2026-11-01T05:00:00Z"},
	{"Asia/Kathmandu", "2026-06-01T00:00:00Z"}, // a zone without any
}

func TestNextIsTheWalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shift := rapid.SampledFrom(shifts).Draw(t, "shift")
		loc, err := time.LoadLocation(shift.zone)
		if err != nil {
			t.Fatal(err)
		}
		moment, err := time.Parse(time.RFC3339, shift.at)
		if err != nil {
			t.Fatal(err)
		}
		from := moment.Add(-time.Duration(rapid.IntRange(1, 8*3600).Draw(t, "lead")) * time.Second)
		to := moment.Add(5 * time.Hour)

		var w wall
		text := make([]string, 6)
		for i, bounds := range [6][2]int{{0, 59}, {0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 6}} {
			text[i] = "*"
			if i < 2 || rapid.Bool().Draw(t, fmt.Sprint("fixed ", i)) {
				some := rapid.IntRange(bounds[0], bounds[1])
				if i == 2 {
					some = rapid.IntRange(0, 4) // around the shifts
				}
				w.fields[i] = rapid.SliceOfNDistinct(some, 1, 3, rapid.ID).Draw(t, fmt.Sprint("field ", i))
				var list []string
				for _, v := range w.fields[i] {
					list = append(list, strconv.Itoa(v))
				}
				text[i] = strings.Join(list, ",")
			}
		}
		w.wild = w.fields[2] == nil
		expression := strings.Join(text, " ")
		p, err := schedule.NewPlan(&schedule.Spec{Cron: expression, Timezone: shift.zone}, 0)
		if err != nil {
			t.Skip(err) // a day that does not exist
		}
		want := w.times(loc, from, to)
		var got []jobs.Time
		for x := jobs.TimeOf(from) - 1; ; {
			if x = p.Next(x); x == 0 || x >= jobs.TimeOf(to) {
				break
			}
			got = append(got, x)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q in %s from %s to %s:\n%v, not\n%v", expression, shift.zone, from, to, got, want)
		}
	})
}

package schedule_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

// vixie says whether crontab(5) has a five-field expression fire in a minute. It tests
// for each value whether the field contains it.
func vixie(fields []string, t time.Time) bool {
	in := func(i, value int) bool {
		low, cycle, names := vixieFields[i].low, vixieFields[i].cycle, vixieFields[i].names
		number := func(s string) int {
			for n, name := range names {
				if strings.EqualFold(name, s) {
					return low + n
				}
			}
			n, _ := strconv.Atoi(s)
			return n
		}
		for _, part := range strings.Split(fields[i], ",") {
			span, stepText, _ := strings.Cut(part, "/")
			step := max(1, number(stepText))
			first, last, ranged := strings.Cut(span, "-")
			distance := func(a, b int) int { return ((b-a)%cycle + cycle) % cycle } // from a forward to b
			switch {
			case span == "*":
				if distance(low, value)%step == 0 {
					return true
				}
			case !ranged:
				if distance(number(first), value) == 0 {
					return true
				}
			case number(last)-number(first) >= cycle: // 0-7: Sunday is both
				if d := distance(number(first), value); d%step == 0 || (cycle%step == 0 && d == 0) {
					return true
				}
			default:
				if d := distance(number(first), value); d <= distance(number(first), number(last)) && d%step == 0 {
					return true
				}
			}
		}
		return false
	}
	dom, dow := in(2, t.Day()), in(4, int(t.Weekday()))
	day := dom && dow
	if !strings.HasPrefix(fields[2], "*") && !strings.HasPrefix(fields[4], "*") {
		day = dom || dow
	}
	return in(0, t.Minute()) && in(1, t.Hour()) && in(3, int(t.Month())) && day
}

var vixieFields = []struct {
	low, cycle int
	names      []string
}{
	{0, 60, nil},
	{0, 24, nil},
	{1, 31, nil},
	{1, 12, strings.Fields("jan feb mar apr may jun jul aug sep oct nov dec")},
	{0, 7, strings.Fields("sun mon tue wed thu fri sat")},
}

// TestCronIsVixies compares random expressions, minute by minute, over some days.
func TestCronIsVixies(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	value := func(i int) string {
		f := vixieFields[i]
		n := rng.IntN(f.cycle)
		switch {
		case f.names != nil && rng.IntN(2) == 0:
			return [...]func(string) string{strings.ToUpper, strings.ToLower}[rng.IntN(2)](f.names[n])
		case i == 4 && n == 0 && rng.IntN(2) == 0:
			return "7"
		}
		return strconv.Itoa(f.low + n)
	}
	part := func(i int) string {
		s := value(i)
		switch rng.IntN(4) {
		case 0:
			return s
		case 1:
			s += "-" + value(i)
		default:
			s = "*"
		}
		if rng.IntN(2) == 0 {
			s += "/" + strconv.Itoa(1+rng.IntN(vixieFields[i].cycle))
		}
		return s
	}
	for range 60 {
		fields := make([]string, 5)
		for i := range fields {
			fields[i] = "*"
			if rng.IntN(3) > 0 {
				fields[i] = part(i)
				for rng.IntN(3) == 0 {
					fields[i] += "," + part(i)
				}
			}
		}
		expression := strings.Join(fields, " ")
		p, err := schedule.NewPlan(&schedule.Spec{Cron: expression, Timezone: "UTC"}, 0)
		if err != nil {
			if !strings.Contains(err.Error(), "never is") {
				t.Errorf("%q: %v", expression, err)
			}
			continue
		}
		from := time.Date(2024+rng.IntN(5), time.Month(1+rng.IntN(12)), 1+rng.IntN(28), 0, 0, 0, 0, time.UTC)
		next := p.Next(jobs.TimeOf(from) - 1)
		for at := from; at.Before(from.AddDate(0, 0, 35)); at = at.Add(time.Minute) {
			fires := next == jobs.TimeOf(at)
			if fires {
				next = p.Next(next)
			}
			if want := vixie(fields, at); fires != want {
				t.Fatalf("%q fires at %s: %t, want %t", expression, at, fires, want)
			}
		}
	}
}

// TestCronByHand has examples from the manual of Vixie's cron, and from others.
func TestCronByHand(t *testing.T) {
	tests := []struct{ cron, after, want string }{
		{"0 0 */2 * 3", "2026-11-01 00:00:00", "2026-11-11 00:00:00 2026-11-25 00:00:00"}, // odd days that are Wednesdays
		{"0 0 1-31/2 * 3", "2026-11-01 00:00:00", "2026-11-03 00:00:00 2026-11-04 00:00:00"},
		{"0 0 13 * */2", "2026-11-01 00:00:00", "2026-12-13 00:00:00"}, // Sun, Tue, Thu, Sat only
		{"0 0 * * SAT-SUN", "2026-11-23 00:00:00", "2026-11-28 00:00:00 2026-11-29 00:00:00 2026-12-05 00:00:00"},
		{"0 0 * * 6-7", "2026-11-23 00:00:00", "2026-11-28 00:00:00 2026-11-29 00:00:00 2026-12-05 00:00:00"},
		{"0 0 * * FRI-MON", "2026-11-24 00:00:00", "2026-11-27 00:00:00 2026-11-28 00:00:00 2026-11-29 00:00:00 2026-11-30 00:00:00 2026-12-04 00:00:00"},
		{"0 22-4/2 * * *", "2026-11-23 12:00:00", "2026-11-23 22:00:00 2026-11-24 00:00:00 2026-11-24 02:00:00 2026-11-24 04:00:00 2026-11-24 22:00:00"},
		{"0 0 1 NOV-jan *", "2026-11-23 00:00:00", "2026-12-01 00:00:00 2027-01-01 00:00:00 2027-11-01 00:00:00"},
		{"0 0 29 2 */3", "2026-11-23 00:00:00", "2032-02-29 00:00:00"}, // a leap day on Sunday, Wednesday or Saturday
		{"*/25 9 * * *", "2026-11-23 00:00:00", "2026-11-23 09:00:00 2026-11-23 09:25:00 2026-11-23 09:50:00 2026-11-24 09:00:00"},
	}
	for _, tt := range tests {
		p, at := plan(t, tt.cron, "UTC"), at(t, tt.after)
		var got []string
		for range strings.Count(tt.want, "-") / 2 {
			at = p.Next(at)
			got = append(got, at.Std().Format(time.DateTime))
		}
		if fmt.Sprint(strings.Join(got, " ")) != tt.want {
			t.Errorf("%q after %s: %v, want %s", tt.cron, tt.after, got, tt.want)
		}
	}
}

package schedule

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones are known on every machine

	"github.com/robfig/cron/v3"

	"jobstream/jobs"
)

// clock is a cron expression in a time zone. Each field is a set of bits.
//
// The expression is read by robfig/cron; the times are found here, because its
// own search passes over what falls into a skipped hour and takes what falls into
// a repeated hour twice.
type clock struct {
	second, minute, hour, dom, month, dow uint64

	// eitherDay: both days, of the month and of the week, are restricted, and one
	// of them is enough.
	eitherDay bool
	// wild: the hour is a wildcard, so that the schedule goes by the time that
	// passes, and not by what the wall shows.
	wild bool
	loc  *time.Location
}

// location finds a zone by its IANA name.
func location(name string) (*time.Location, error) {
	// "Local" and "" mean something to Go, but not the same on every machine
	if name != "" && name != "Local" {
		if loc, err := time.LoadLocation(name); err == nil {
			return loc, nil
		}
	}
	return nil, fmt.Errorf("must be the name of a time zone like Europe/Berlin or UTC, not %q", name)
}

// star is the bit that robfig/cron adds to a field that begins with * or ?.
const star = 1 << 63

// cronFields are the fields in their order, of which the first may be missing.
var cronFields = []struct {
	name   string
	option cron.ParseOption
	set    func(c *clock, from *cron.SpecSchedule)
}{
	{"seconds", cron.Second, func(c *clock, s *cron.SpecSchedule) { c.second = s.Second }},
	{"minutes", cron.Minute, func(c *clock, s *cron.SpecSchedule) { c.minute = s.Minute }},
	{"hours", cron.Hour, func(c *clock, s *cron.SpecSchedule) { c.hour = s.Hour }},
	{"days of the month", cron.Dom, func(c *clock, s *cron.SpecSchedule) { c.dom = s.Dom }},
	{"months", cron.Month, func(c *clock, s *cron.SpecSchedule) { c.month = s.Month }},
	{"days of the week", cron.Dow, func(c *clock, s *cron.SpecSchedule) { c.dow = s.Dow }},
}

// descriptors are short for common expressions.
var descriptors = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// parseCron reads an expression of 5 fields, of 6 with the seconds first, or a
// descriptor.
func parseCron(expression string, loc *time.Location) (*clock, error) {
	text := expression
	if strings.HasPrefix(text, "@") {
		if text = descriptors[text]; text == "" {
			return nil, fmt.Errorf("must be @yearly, @monthly, @weekly, @daily, @hourly or @every with a duration, or have fields, not %q", expression)
		}
	}
	if strings.HasPrefix(text, "TZ=") || strings.HasPrefix(text, "CRON_TZ=") {
		return nil, errors.New("must not name a time zone; timezone is a field of its own")
	}
	fields := strings.Fields(text)
	if len(fields) == 5 {
		fields = append([]string{"0"}, fields...)
	}
	if len(fields) != 6 {
		return nil, fmt.Errorf("must have 5 fields (minute, hour, day of the month, month, day of the week), or 6 with the second first, not %d", len(fields))
	}
	c := &clock{loc: loc}
	for i, f := range cronFields {
		if err := c.field(i, fields[i]); err != nil {
			return nil, fmt.Errorf("must be a cron expression; %q is not good for the %s: %w", fields[i], f.name, err)
		}
	}
	c.wild = c.hour&star != 0 || strings.HasPrefix(fields[2], "*") || strings.HasPrefix(fields[2], "?")
	c.eitherDay = (c.dom|c.dow)&star == 0
	if !c.eitherDay && !c.comes() {
		return nil, fmt.Errorf("must be true some day, and %q never is", expression)
	}
	return c, nil
}

// field reads one field.
func (c *clock) field(i int, text string) error {
	for _, part := range strings.Split(text, ",") {
		if part == "" {
			return errors.New("there is nothing before or after a comma")
		}
	}
	f := cronFields[i]
	if f.option == cron.Dow {
		text = sundays(text)
	}
	s, err := cron.NewParser(f.option).Parse(text)
	if err != nil {
		return err
	}
	f.set(c, s.(*cron.SpecSchedule))
	return nil
}

// sundays writes the 7, which is a Sunday to most crons, as a 0, alone or as the
// end of a range.
func sundays(field string) string {
	parts := strings.Split(field, ",")
	for i, p := range parts {
		if p == "7" {
			parts[i] = "0"
		}
		days, stepText, stepped := strings.Cut(p, "/")
		low, isRange := strings.CutSuffix(days, "-7")
		from, err := strconv.Atoi(low)
		if !isRange || err != nil || from < 0 || from > 7 {
			continue
		}
		step := 1
		if stepped {
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 {
				continue
			}
		}
		var all []string
		for d := from; d <= 7; d += step {
			all = append(all, strconv.Itoa(d%7))
		}
		parts[i] = strings.Join(all, ",")
	}
	return strings.Join(parts, ",")
}

// comes says whether any month has the days.
func (c *clock) comes() bool {
	longest := [...]int{1: 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}
	first := bits.TrailingZeros64(c.dom)
	for m := 1; m <= 12; m++ {
		if c.month&(1<<m) != 0 && first <= longest[m] {
			return true
		}
	}
	return false
}

// next is the first time after a moment, or 0.
//
// It goes through the stretches of time in which the zone's offset from UTC is
// the same. Within one the wall's clock runs evenly. Where the wall is put
// forward, a fixed hour that is skipped counts at that very moment; where it is
// put back, fixed hours have had their turn in the stretch before.
func (c *clock) next(after jobs.Time) jobs.Time {
	at := int64(after) / int64(time.Second)
	if int64(after) >= at*int64(time.Second) { // also before 1970
		at++
	}
	for {
		t := time.Unix(at, 0).In(c.loc)
		begin, end := t.ZoneBounds()
		_, offset := t.Zone()
		wall := at + int64(offset)
		if !c.wild && !begin.IsZero() {
			wall = max(wall, begin.Unix()+offsetBefore(begin))
		}
		found, ok := c.onWall(wall)
		switch {
		case !ok || found-int64(offset) > lastSecond:
			return 0
		case end.IsZero() || found-int64(offset) < end.Unix():
			return jobs.Time((found - int64(offset)) * int64(time.Second))
		}
		at = end.Unix()
		_, following := end.Zone()
		if !c.wild && found < at+int64(following) {
			return jobs.Time(at * int64(time.Second))
		}
	}
}

// lastSecond is the end of jobs.Time, roughly.
const lastSecond = math.MaxInt64/int64(time.Second) - 1

// offsetBefore is the zone's offset from UTC, in seconds, just before t.
func offsetBefore(t time.Time) int64 {
	_, offset := t.Add(-time.Second).Zone()
	return int64(offset)
}

// horizon is how far a time is looked for: leap days are up to eight years apart.
const horizon = 9 * 366 // days

// onWall is the first reading of the wall's clock from one on that the
// expression is true for. Readings are seconds as if the wall showed UTC.
func (c *clock) onWall(from int64) (int64, bool) {
	t := time.Unix(from, 0).UTC()
	second, ok := c.inDay(t.Hour()*3600 + t.Minute()*60 + t.Second())
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	for range horizon {
		if ok && c.onDay(day) {
			return day.Unix() + int64(second), true
		}
		day = day.AddDate(0, 0, 1)
		second, ok = c.inDay(0)
	}
	return 0, false
}

// onDay says whether the expression is true at some time of a day.
func (c *clock) onDay(day time.Time) bool {
	if c.month&(1<<day.Month()) == 0 {
		return false
	}
	dom, dow := c.dom&(1<<day.Day()) != 0, c.dow&(1<<day.Weekday()) != 0
	if c.eitherDay {
		return dom || dow
	}
	return dom && dow
}

// inDay is the first second of a day, from one on, that the expression is true
// for.
func (c *clock) inDay(from int) (int, bool) {
	h, m, s := from/3600, from/60%60, from%60
	for ; h < 24; h++ {
		if c.hour&(1<<h) == 0 {
			m, s = 0, 0
			continue
		}
		for ; m < 60; m++ {
			if c.minute&(1<<m) != 0 {
				if n := bits.TrailingZeros64(c.second &^ star >> s); s+n < 60 {
					return h*3600 + m*60 + s + n, true
				}
			}
			s = 0
		}
		m, s = 0, 0
	}
	return 0, false
}

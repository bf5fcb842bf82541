package schedule

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"jobstream/jobs"
)

// clock is a cron expression in a time zone. Each field is a set of bits.
//
// Its syntax and its times are those of Vixie's cron; see crontab(5).
type clock struct {
	second, minute, hour, dom, month, dow uint64

	// eitherDay says that neither day field, of the month or of the week, begins with
	// *. Then a match of one of them is enough.
	eitherDay bool
	// wild says that the hour begins with *. Then the schedule follows elapsed time,
	// not the readings of the wall clock.
	wild bool
	loc  *time.Location
}

// MaxCron is the longest cron expression, in bytes.
const MaxCron = 256

// cronField is one field of an expression.
type cronField struct {
	name      string
	low, high int
	cycle     int      // the number of different values
	names     []string // of the values from low on
	set       func(c *clock) *uint64
}

// cronFields are the fields in their order. The first may be missing.
var cronFields = []cronField{
	{"seconds", 0, 59, 60, nil, func(c *clock) *uint64 { return &c.second }},
	{"minutes", 0, 59, 60, nil, func(c *clock) *uint64 { return &c.minute }},
	{"hours", 0, 23, 24, nil, func(c *clock) *uint64 { return &c.hour }},
	{"days of the month", 1, 31, 31, nil, func(c *clock) *uint64 { return &c.dom }},
	{"months", 1, 12, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}, func(c *clock) *uint64 { return &c.month }},
	// 0 and 7 are both Sunday
	{"days of the week", 0, 7, 7, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}, func(c *clock) *uint64 { return &c.dow }},
}

// descriptors abbreviate common expressions.
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
		set, err := f.parse(fields[i])
		if err != nil {
			return nil, fmt.Errorf("must be a cron expression; %q is not good for the %s: %w", fields[i], f.name, err)
		}
		*f.set(c) = set
	}
	c.wild = beginsWithStar(fields[2])
	c.eitherDay = !beginsWithStar(fields[3]) && !beginsWithStar(fields[5])
	if !c.eitherDay && !c.comes() {
		return nil, fmt.Errorf("must be true some day, and %q never is", expression)
	}
	return c, nil
}

// beginsWithStar says whether a field begins with a wildcard. Such a field does not
// restrict the other day field, not even with a step.
func beginsWithStar(field string) bool { return field[0] == '*' || field[0] == '?' }

// parse reads a field: values, ranges and wildcards between commas. Ranges and
// wildcards may have a step. A range may cross the end: FRI-MON, 22-4.
func (f *cronField) parse(text string) (set uint64, err error) {
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			return 0, errors.New("there is nothing before or after a comma")
		}
		span, stepText, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > f.cycle || stepText[0] == '+' {
				return 0, fmt.Errorf("the step must be a number from 1 to %d, not %q", f.cycle, stepText)
			}
		}
		from, to, err := f.span(span, stepped)
		if err != nil {
			return 0, err
		}
		for v := from; v <= to; v += step {
			set |= 1 << ((v-f.low)%f.cycle + f.low)
		}
	}
	return set, nil
}

// span reads the part before a step. A range that crosses the end continues behind the
// highest value.
func (f *cronField) span(text string, stepped bool) (from, to int, err error) {
	if text == "*" || text == "?" {
		return f.low, f.low + f.cycle - 1, nil
	}
	low, high, isRange := strings.Cut(text, "-")
	if from, err = f.value(low); err != nil {
		return 0, 0, err
	}
	switch {
	case isRange:
		if to, err = f.value(high); err != nil {
			return 0, 0, err
		}
	case stepped:
		to = f.low + f.cycle - 1
	default:
		to = from
	}
	if to < from {
		to += f.cycle
	}
	return from, to, nil
}

// value reads a number, or a name.
func (f *cronField) value(text string) (int, error) {
	for i, name := range f.names {
		if strings.EqualFold(text, name) {
			return f.low + i, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.low || n > f.high || text[0] == '+' {
		if f.names != nil {
			return 0, fmt.Errorf("%q is neither a number from %d to %d nor a name like %s", text, f.low, f.high, strings.ToUpper(f.names[1]))
		}
		return 0, fmt.Errorf("%q is not a number from %d to %d", text, f.low, f.high)
	}
	return n, nil
}

// comes says whether the days occur in any month.
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
// It walks through the periods in which the zone's offset from UTC is constant; within
// one the wall clock runs evenly. A fixed hour that a forward change skips fires at the
// change. A fixed hour that a backward change repeats has fired in the period before.
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

// lastSecond is about the end of jobs.Time.
const lastSecond = math.MaxInt64/int64(time.Second) - 1

// offsetBefore is the zone's offset from UTC, in seconds, just before t.
func offsetBefore(t time.Time) int64 {
	_, offset := t.Add(-time.Second).Zone()
	return int64(offset)
}

// horizon is the longest look ahead: a leap day on one day of the week may be forty
// years away.
const horizon = 41 * 366 // days

// onWall is the first matching reading of the wall clock, at or after from. Readings
// are seconds as if the wall clock showed UTC.
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

// onDay says whether the expression matches a time of the day.
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

// inDay is the first matching second of a day, at or after from.
func (c *clock) inDay(from int) (int, bool) {
	h, m, s := from/3600, from/60%60, from%60
	for ; h < 24; h++ {
		if c.hour&(1<<h) == 0 {
			m, s = 0, 0
			continue
		}
		for ; m < 60; m++ {
			if c.minute&(1<<m) != 0 {
				if n := bits.TrailingZeros64(c.second >> s); s+n < 60 {
					return h*3600 + m*60 + s + n, true
				}
			}
			s = 0
		}
		m, s = 0, 0
	}
	return 0, false
}

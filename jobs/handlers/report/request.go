package report

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/payload"
	"jobstream/jobs/strict"
)

// The kinds of reports.
const (
	kindSummary     = "summary"
	kindPerformance = "performance"
	kindFailures    = "failures"
)

// span is a period that may depend on the present moment.
type span func(now time.Time) payload.Period

// request is a payload in its parsed form.
type request struct {
	kind string
	span span
	zone *time.Location // of days and times; nil = UTC
}

func (r *request) location() *time.Location {
	if r.zone == nil {
		return time.UTC
	}
	return r.zone
}

func parse(raw json.RawMessage) (*request, error) {
	req := &request{kind: kindSummary, span: lastDays(7)}
	var ranged strict.Value // read last: its dates depend on the time zone
	err := payload.Read(raw, []strict.Field{
		strict.May("date_range", func(v strict.Value) { ranged = v }),
		strict.May("timezone", func(v strict.Value) { req.zone = payload.Zone(v) }),
		strict.May("type", func(v strict.Value) {
			if kind, ok := v.OneOf(kindSummary, kindPerformance, kindFailures); ok {
				req.kind = kind
			}
		}),
	}, func(strict.Value) {
		if !ranged.Null() {
			req.span = readRange(ranged, req.zone)
		}
	})
	if err != nil {
		return nil, err
	}
	return req, nil
}

func readRange(v strict.Value, zone *time.Location) span {
	p := payload.Period{Zone: zone}
	if v.IsObject() {
		v.Object(strict.May("from", p.ReadFrom), strict.May("to", p.ReadTo))
		p.Check(v)
		return fixed(p)
	}
	if !v.IsText() {
		v.Fail(`must be a string like "last_7_days" or "2024-01", or an object with from and to`)
		return nil
	}
	s, _ := v.Text()
	if r := namedRange(s); r != nil {
		return r
	}
	if err := p.ParseDate(s); err != nil {
		v.Fail("%q is not a range: last_7_days, last_24_hours (or other numbers), today, yesterday, this_month, last_month, this_year, all, "+
			"a date like 2024, 2024-01 or 2024-01-15, or an object with from and to", s)
	}
	return fixed(p)
}

var countedRange = regexp.MustCompile(`^last_([1-9][0-9]{0,4})_(hours|days)$`)

// namedRange returns the range with the name s; nil if there is none.
func namedRange(s string) span {
	if m := countedRange.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			panic(fmt.Sprintf("report: the pattern lets %q through", s))
		}
		if m[2] == "days" {
			return lastDays(n)
		}
		return lastHours(n)
	}
	switch s {
	case "today":
		return lastDays(1)
	case "yesterday":
		return days(-1, 0)
	case "this_month":
		return months(0)
	case "last_month":
		return months(-1)
	case "this_year":
		return func(now time.Time) payload.Period {
			year := now.Year()
			return between(date(year, time.January, 1, now.Location()), date(year+1, time.January, 1, now.Location()))
		}
	case "all":
		return fixed(payload.Period{})
	}
	return nil
}

func fixed(p payload.Period) span { return func(time.Time) payload.Period { return p } }

// lastDays is today and the n-1 days before it.
func lastDays(n int) span { return days(1-n, 1) }

// days is a period of whole days, counted from today.
func days(from, to int) span {
	return func(now time.Time) payload.Period {
		today := midnight(now)
		return between(today.AddDate(0, 0, from), today.AddDate(0, 0, to))
	}
}

func lastHours(n int) span {
	return func(now time.Time) payload.Period {
		hour := now.Truncate(time.Hour)
		return between(hour.Add(-time.Duration(n)*time.Hour), hour.Add(time.Hour))
	}
}

// months is one whole month, counted from the present one.
func months(n int) span {
	return func(now time.Time) payload.Period {
		first := date(now.Year(), now.Month()+time.Month(n), 1, now.Location())
		return between(first, first.AddDate(0, 1, 0))
	}
}

func between(from, to time.Time) payload.Period {
	return payload.Period{From: jobs.TimeOf(from), To: jobs.TimeOf(to)}
}

func date(year int, month time.Month, day int, zone *time.Location) time.Time {
	return time.Date(year, month, day, 0, 0, 0, 0, zone)
}

func midnight(t time.Time) time.Time {
	year, month, day := t.Date()
	return date(year, month, day, t.Location())
}

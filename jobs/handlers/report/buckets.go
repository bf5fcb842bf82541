package report

import (
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/payload"
)

// unit is the width of a bar of the volume chart.
type unit int

// The units. Each has a range of periods in which it gives a readable number of bars,
// up to a hundred or so.
const (
	hours unit = iota
	daily
	weeks
	monthly
	years
)

var unitNames = [...]string{"hour", "day", "week", "month", "year"}

func (u unit) String() string { return unitNames[u] }

const day = 24 * time.Hour

func unitFor(d time.Duration) unit {
	switch {
	case d <= 2*day+time.Hour:
		return hours
	case d <= 93*day:
		return daily
	case d <= 2*366*day:
		return weeks
	case d <= 8*366*day:
		return monthly
	}
	return years
}

// buckets cuts a period into units. The first may begin before the period.
func buckets(p payload.Period, zone *time.Location) (unit, []jobs.Time) {
	u := unitFor(p.To.Sub(p.From))
	var edges []jobs.Time
	for t := u.floor(p.From.Std().In(zone)); ; t = u.next(t) {
		edge := jobs.Time(t.UnixNano())
		if edge >= p.To {
			return u, edges
		}
		edges = append(edges, edge)
	}
}

// floor is the beginning of the unit that contains t; weeks begin on Monday.
func (u unit) floor(t time.Time) time.Time {
	switch u {
	case hours:
		return t.Truncate(time.Hour)
	case weeks:
		return midnight(t).AddDate(0, 0, -int(t.Weekday()+6)%7)
	case monthly:
		return date(t.Year(), t.Month(), 1, t.Location())
	case years:
		return date(t.Year(), time.January, 1, t.Location())
	}
	return midnight(t)
}

func (u unit) next(t time.Time) time.Time {
	switch u {
	case hours:
		return t.Add(time.Hour)
	case weeks:
		return t.AddDate(0, 0, 7)
	case monthly:
		return t.AddDate(0, 1, 0)
	case years:
		return t.AddDate(1, 0, 0)
	}
	return t.AddDate(0, 0, 1)
}

// short labels the axis.
func (u unit) short(t time.Time) string {
	switch u {
	case hours:
		if t.Hour() == 0 {
			return t.Format("2 Jan")
		}
		return t.Format("15:04")
	case monthly:
		return t.Format("Jan 06")
	case years:
		return t.Format("2006")
	}
	return t.Format("2 Jan")
}

// long names a bar.
func (u unit) long(t time.Time) string {
	switch u {
	case hours:
		return t.Format("Mon 2 Jan, 15:04")
	case weeks:
		return "week of " + t.Format("2 January 2006")
	case monthly:
		return t.Format("January 2006")
	case years:
		return t.Format("2006")
	}
	return t.Format("Mon 2 January 2006")
}

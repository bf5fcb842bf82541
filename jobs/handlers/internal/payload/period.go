package payload

import (
	"fmt"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// Period is the time from From, inclusive, to To, exclusive; 0 leaves a side open.
// Dates are those of Zone; nil is UTC.
type Period struct {
	From, To jobs.Time
	Zone     *time.Location
}

// Empty says whether both sides are open.
func (p Period) Empty() bool { return p.From == 0 && p.To == 0 }

func (p Period) zone() *time.Location {
	if p.Zone == nil {
		return time.UTC
	}
	return p.Zone
}

// ParseDate sets both bounds to those of a year, a month or a day, like "2024",
// "2024-01" or "2024-01-15".
func (p *Period) ParseDate(s string) error {
	for _, form := range []struct {
		layout              string
		years, months, days int
	}{{"2006", 1, 0, 0}, {"2006-01", 0, 1, 0}, {time.DateOnly, 0, 0, 1}} {
		t, err := time.ParseInLocation(form.layout, s, p.zone())
		if err != nil {
			continue
		}
		if t.Year() < 1971 || t.Year() > 2261 {
			return fmt.Errorf("%q is out of range (1971 to 2261)", s)
		}
		p.From, p.To = jobs.TimeOf(t), jobs.TimeOf(t.AddDate(form.years, form.months, form.days))
		return nil
	}
	return fmt.Errorf("%q is not a date; a year, month or day is expected, like 2024, 2024-01 or 2024-01-15", s)
}

// bounds reads a date, like ParseDate, or an RFC 3339 time, which is both bounds at
// once.
func (p Period) bounds(s string) (Period, error) {
	if p.ParseDate(s) == nil {
		return p, nil
	}
	t, err := jobs.ParseMoment(s)
	p.From, p.To = t, t
	return p, err
}

// ReadDate sets both bounds from a date.
func (p *Period) ReadDate(v strict.Value) {
	s, ok := v.Text()
	if !ok {
		return
	}
	if err := p.ParseDate(s); err != nil {
		v.Fail("%s", err)
	}
}

// ReadFrom sets the lower bound: a time, or the first moment of a date.
func (p *Period) ReadFrom(v strict.Value) {
	if s, ok := v.Text(); ok {
		b, err := p.bounds(s)
		if err != nil {
			v.Fail("%s", err)
		}
		p.From = b.From
	}
}

// ReadTo sets the upper bound: a time, which is not part of the period, or the end of a
// date. So "to": "2024-01-15" includes that whole day.
func (p *Period) ReadTo(v strict.Value) {
	if s, ok := v.Text(); ok {
		b, err := p.bounds(s)
		if err != nil {
			v.Fail("%s", err)
		}
		p.To = b.To
	}
}

// Check adds a problem at the field "to" of the object v if the period is empty.
func (p Period) Check(v strict.Value) {
	if p.From != 0 && p.To != 0 && p.From >= p.To {
		v.At("to").Fail("must be later than from")
	}
}

package schedule

import (
	"time"

	"jobstream/jobs"
)

// Deed is the next step for a schedule.
type Deed uint8

// The deeds.
const (
	Wait Deed = iota // nothing before Decision.At; never again, if that is 0
	Fire             // make the job for Decision.At
	Pass             // let Decision.At pass: the job before has not ended
)

// Decision is a step, and the time that it is for.
type Decision struct {
	Deed Deed
	At   jobs.Time
}

// Moment is the situation of a decision.
type Moment struct {
	Now jobs.Time // by the wall clock, which may have jumped
	// Since is the beginning of the present watch over the clock. Times before it have
	// been missed.
	Since jobs.Time
	// Busy says that the schedule's last job has not ended.
	Busy bool
}

// patience bounds how long a time waits for its turn if firing is slow. After it the
// time counts as missed, so that an outage of hours does not end in a flood.
const patience = time.Minute

// Decide is the rule of schedules, without side effects:
//   - Nothing is fired before its time. No time up to e.Done is fired again, whatever
//     the clock does.
//   - Of the missed times only the latest counts, or none: e.CatchUp decides.
//   - All others are fired one by one, in order.
//   - A busy schedule lets them pass, unless e.Overlap allows them.
func Decide(p *Plan, e *Entry, m Moment) Decision {
	if e.Paused {
		return Decision{}
	}
	due := p.Next(e.Done)
	if missed := max(m.Since, m.Now.Add(-patience)); due != 0 && due < missed && due <= m.Now {
		last := min(missed-1, m.Now)
		if e.CatchUp == One {
			due = p.Latest(e.Done, last)
		} else {
			due = p.Next(last)
		}
	}
	switch {
	case due == 0 || due > m.Now:
		return Decision{Wait, due}
	case m.Busy && e.Overlap == Skip:
		return Decision{Pass, due}
	}
	return Decision{Fire, due}
}

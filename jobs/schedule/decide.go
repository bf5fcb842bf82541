package schedule

import (
	"time"

	"jobstream/jobs"
)

// Deed is what has to be done with a schedule.
type Deed uint8

// The deeds.
const (
	Wait Deed = iota // nothing before Decision.At; never again, if that is 0
	Fire             // make the job for Decision.At
	Pass             // let Decision.At pass: the job before has not ended
)

// Decision is what has to be done, and for which time.
type Decision struct {
	Deed Deed
	At   jobs.Time
}

// Moment is when a decision is made.
type Moment struct {
	Now jobs.Time // by the wall's clock, which may have jumped
	// Since is from when on somebody has been watching the clock without a gap;
	// what was due before that has been missed.
	Since jobs.Time
	// Busy: the schedule's last job has not ended.
	Busy bool
}

// patience is how long a time that was not missed waits for its turn, if firing
// takes long: then it has been missed, too, so that an outage of hours does not
// end in a flood.
const patience = time.Minute

// Decide is the rule of schedules, without any side effect:
//   - nothing is fired before its time, and no time up to e.Done ever again,
//     whatever the clock does;
//   - of the times that were missed only the latest counts, or none, as e.CatchUp
//     says;
//   - all others are fired one by one, in order;
//   - a busy schedule lets them pass, unless e.Overlap says otherwise.
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

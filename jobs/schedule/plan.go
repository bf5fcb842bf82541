package schedule

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"jobstream/jobs"
)

// Plan has the times of a schedule. It never changes.
type Plan struct {
	every  time.Duration // 0: a cron expression
	anchor jobs.Time
	clock  *clock
}

// NewPlan makes the plan of a spec. The times of an interval are anchor + n·interval, n
// from 1. The error is a [*jobs.Error] that points at /cron, /every or /timezone.
func NewPlan(s *Spec, anchor jobs.Time) (*Plan, error) {
	loc, err := jobs.ParseZone(s.Timezone)
	if err != nil {
		return nil, jobs.Invalid("/timezone", err.Error())
	}
	if s.Cron == "" {
		if s.Every == 0 {
			return nil, jobs.Invalid("/cron", "must be a cron expression, not \"\"")
		}
		if badEvery(s.Every) {
			return nil, jobs.Invalid("/every", "must be from 1s to 366d")
		}
		return &Plan{every: s.Every, anchor: anchor}, nil
	}
	if len(s.Cron) > MaxCron {
		return nil, jobs.Invalid("/cron", fmt.Sprintf("must have at most %d characters, not %d", MaxCron, len(s.Cron)))
	}
	if text, ok := strings.CutPrefix(s.Cron, "@every "); ok {
		d, err := jobs.ParseDuration(strings.TrimSpace(text))
		if err != nil || badEvery(d) {
			return nil, jobs.Invalid("/cron", "@every must be followed by a duration like 90s or 1h30m, from 1s to 366d")
		}
		return &Plan{every: d, anchor: anchor}, nil
	}
	c, err := parseCron(s.Cron, loc)
	if err != nil {
		return nil, jobs.Invalid("/cron", err.Error())
	}
	return &Plan{clock: c}, nil
}

// Next is the first time after a moment. It is 0 if none comes within forty years, or
// before the end of [jobs.Time] in 2262.
func (p *Plan) Next(after jobs.Time) jobs.Time {
	if p.every == 0 {
		return p.clock.next(after)
	}
	if after < p.anchor {
		return p.anchor.Add(p.every)
	}
	return after.Add(p.every - after.Sub(p.anchor)%p.every)
}

// Latest is the last time after a moment and up to another one; 0 if there is none.
func (p *Plan) Latest(after, until jobs.Time) jobs.Time {
	within := func(x jobs.Time) bool { next := p.Next(x); return next != 0 && next <= until }
	if after >= until || !within(after) {
		return 0
	}
	// The next time after x is within the range for small x, and beyond it for large
	// ones.
	n := sort.Search(int(until-after), func(i int) bool { return !within(after + jobs.Time(i)) })
	return p.Next(after + jobs.Time(n) - 1)
}

package pool

import "time"

// line is deliveries in the order in which something was last done for them, so
// that whoever has to do it again looks at those only that are stale.
type line struct{ first, last *spot }

// spot is where a delivery is in a line. The zero value is in none.
type spot struct {
	before, behind *spot
	of             *delivery // nil: it is in no line
	since          time.Time
}

// append puts d at the end of the line: something is done for it now.
func (l *line) append(p *spot, d *delivery, now time.Time) {
	l.remove(p)
	p.of, p.since, p.before = d, now, l.last
	if l.last == nil {
		l.first = p
	} else {
		l.last.behind = p
	}
	l.last = p
}

// remove takes p out of the line, if it is there.
func (l *line) remove(p *spot) {
	if p.of == nil {
		return
	}
	if p.before == nil {
		l.first = p.behind
	} else {
		p.before.behind = p.behind
	}
	if p.behind == nil {
		l.last = p.before
	} else {
		p.behind.before = p.before
	}
	*p = spot{}
}

// stale calls do for those for which nothing was done for the time span before now, and
// puts them at the end.
func (l *line) stale(now time.Time, span time.Duration, do func(d *delivery)) {
	for p := l.first; p != nil && now.Sub(p.since) >= span; p = l.first {
		d := p.of
		l.append(p, d, now)
		do(d)
	}
}

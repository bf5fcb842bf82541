package pool

import "time"

// line has deliveries in the order of their latest treatment. So only the stale ones
// have to be looked at for the next.
type line struct{ first, last *spot }

// spot is the place of a delivery in a line. The zero value is in none.
type spot struct {
	before, behind *spot
	of             *delivery // nil: it is in no line
	since          time.Time
}

// append moves d to the end of the line, as it is treated now.
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

// remove removes p from the line, if it is in it.
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

// stale calls do for all that were last treated longer than span before now, and moves
// them to the end.
func (l *line) stale(now time.Time, span time.Duration, do func(d *delivery)) {
	for p := l.first; p != nil && now.Sub(p.since) >= span; p = l.first {
		d := p.of
		l.append(p, d, now)
		do(d)
	}
}

// touch treats all now.
func (l *line) touch(now time.Time) {
	for p := l.first; p != nil; p = p.behind {
		p.since = now
	}
}

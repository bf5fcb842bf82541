package pool

import (
	"slices"
	"time"

	"jobstream/jobs"
)

// expectFor is how long a free worker waits for a job of a better lane that is
// committed but not delivered. After that a lesser lane gets the worker.
const expectFor = 100 * time.Millisecond

// choice decides which delivery gets the next worker: one of the best priority that has
// any. Lanes of one priority are served one after the other. It owns the deliveries that
// wait for a worker.
//
// It is asked several times per job, and of a hundred lanes most are empty. So it looks
// only at the lively ones. The pool's lock guards it.
type choice struct {
	rows     [jobs.LowestPriority + 1][]*lane // by priority
	local    view                             // what the pool's own workers choose from
	lively   [jobs.LowestPriority + 1]laneSet // the lanes of a row that may have something
	early    []*lane                          // lanes whose first delivery is beyond the position
	position uint64                           // the tracker has committed JOBS up to here
	wake     alarm                            // rings when a gate opens for a waiting job
	missing  alarm                            // rings when an expected delivery is overdue
	paused   bool                             // nothing gets a worker
}

// view is a part of the lanes: those from which somebody chooses. The types of one
// priority have their turns within it.
type view struct {
	lanes  [jobs.LowestPriority + 1]laneSet // by priority, as rows
	cursor [jobs.LowestPriority + 1]int     // the start of the search in a row
}

// show makes a view show the lanes of the types that are in it.
func (c *choice) show(v *view, in func(*poolType) bool) {
	for i, row := range c.rows {
		v.cursor[i] = min(v.cursor[i], max(len(row)-1, 0))
		v.lanes[i] = makeLaneSet(len(row))
		for _, l := range row {
			if in(l.typ) {
				v.lanes[i].include(l.index)
			}
		}
	}
}

// arrange makes the rows of these lanes, in place of earlier rows. All lanes are lively.
func (c *choice) arrange(lanes []*lane) {
	c.rows, c.early = [len(c.rows)][]*lane{}, nil
	for _, l := range lanes {
		row := &c.rows[l.Priority]
		l.index, l.early = len(*row), false
		*row = append(*row, l)
	}
	for i, row := range c.rows {
		c.lively[i] = makeLaneSet(len(row))
		for _, l := range row {
			c.revive(l)
		}
	}
	c.show(&c.local, func(t *poolType) bool { return !t.Remote })
}

// next returns the lane of a view whose first delivery gets the next worker; nil if there
// is none.
func (c *choice) next(v *view) *lane {
	if c.paused {
		return nil
	}
	for pr := jobs.HighestPriority; pr <= jobs.LowestPriority; pr++ {
		l, coming := c.search(v, pr, v.cursor[pr], len(c.rows[pr]))
		if l == nil {
			var more bool
			l, more = c.search(v, pr, 0, v.cursor[pr])
			coming = coming || more
		}
		if l != nil || coming {
			return l
		}
	}
	return nil
}

// search is next for the lanes of a row from index at on and before end. If one of them
// has nothing now but must get something, coming is true.
func (c *choice) search(v *view, pr jobs.Priority, at, end int) (found *lane, coming bool) {
	row, lively, lanes := c.rows[pr], c.lively[pr], v.lanes[pr]
	for n := lively.nextIn(lanes, at, end); n < end; n = lively.nextIn(lanes, n+1, end) {
		l := row[n]
		switch {
		case len(l.buf) == 0 && l.committed <= l.delivered:
			lively.remove(n)
		case len(l.buf) > 0 && !c.ready(l):
			c.passOver(l)
		case !c.open(l):
		case c.ready(l):
			if v.cursor[pr] = n + 1; n+1 == len(row) {
				v.cursor[pr] = 0
			}
			return l, false
		default:
			c.expect(l)
			coming = true
		}
	}
	return nil, coming
}

// ready says whether the first delivery of the lane may run.
func (c *choice) ready(l *lane) bool { return len(l.buf) > 0 && l.buf[0].Seq <= c.position }

// open says whether the gates of the lane's type let a job pass now. If the lane has
// one, and only time opens a gate, it sets the alarm for that.
func (c *choice) open(l *lane) bool {
	ok, at := l.typ.gates.open()
	if !ok && !at.IsZero() && c.ready(l) {
		c.wake.set(at)
	}
	return ok
}

// backlog says whether one more of the pool's own workers would have something to do.
func (c *choice) backlog() bool {
	if c.paused {
		return false
	}
	for _, row := range c.rows {
		for _, l := range row {
			if !l.typ.Remote && c.ready(l) && c.open(l) {
				return true
			}
		}
	}
	return false
}

// advance moves the position, and revives the lanes that waited for that.
func (c *choice) advance(position uint64) {
	if position <= c.position {
		return
	}
	c.position = position
	for _, l := range c.early {
		l.early = false
		c.revive(l)
	}
	clear(c.early)
	c.early = c.early[:0]
}

// revive makes a lane lively: it may have something now.
func (c *choice) revive(l *lane) { c.lively[l.Priority].include(l.index) }

// passOver skips a lane until the position moves on, as its first delivery is not
// committed yet.
func (c *choice) passOver(l *lane) {
	c.lively[l.Priority].remove(l.index)
	if !l.early {
		l.early = true
		c.early = append(c.early, l)
	}
}

// append adds a delivery behind the others of its lane.
func (c *choice) append(d *delivery) {
	d.lane.buf = append(d.lane.buf, d)
	c.revive(d.lane)
}

// prepend adds a delivery in front of the others of its lane.
func (c *choice) prepend(d *delivery) {
	d.lane.buf = append([]*delivery{d}, d.lane.buf...)
	c.revive(d.lane)
}

// restore returns a worker's delivery to its lane. Others may have been returned before
// it.
func (c *choice) restore(d *delivery) {
	l := d.lane
	at := 0
	for at < len(l.buf) && l.buf[at].Seq < d.Seq {
		at++
	}
	l.buf = slices.Insert(l.buf, at, d)
	c.revive(l)
}

// clear removes and returns all deliveries that wait for a worker.
func (c *choice) clear() (all []*delivery) {
	for _, row := range c.rows {
		for _, l := range row {
			all = append(all, l.buf...)
			l.buf = nil
		}
	}
	return all
}

// expect records that a committed job of the lane has not been delivered, so that
// lesser lanes must wait for it.
func (c *choice) expect(l *lane) {
	if l.expected.IsZero() {
		l.expected = time.Now()
		c.missing.set(l.expected.Add(expectFor))
	}
}

// giveUp stops expecting deliveries that did not come: their messages were deleted, or
// another process has them.
func (c *choice) giveUp(now time.Time) {
	c.missing.at = time.Time{}
	for _, row := range c.rows {
		for _, l := range row {
			switch {
			case l.expected.IsZero():
			case now.Sub(l.expected) < expectFor:
				c.missing.set(l.expected.Add(expectFor))
			default:
				l.delivered = max(l.delivered, l.committed)
				l.expected = time.Time{}
			}
		}
	}
}

// stop stops the alarms.
func (c *choice) stop() {
	c.wake.stop()
	c.missing.stop()
}

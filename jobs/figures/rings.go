package figures

import (
	"encoding/binary"
	"math"
	"time"
)

// moment is a type in a period: what has happened to its jobs, and how it stood.
type moment struct {
	tally
	waiting, running uint64
	oldest           float64 // seconds
}

// beside adds another type in the same period.
func (m *moment) beside(o *moment) {
	m.merge(&o.tally)
	m.waiting += o.waiting
	m.running += o.running
	m.oldest = max(m.oldest, o.oldest)
}

// then adds the same type in the next period. Of how it stood the worst remains.
func (m *moment) then(o *moment) {
	m.merge(&o.tally)
	m.waiting = max(m.waiting, o.waiting)
	m.running = max(m.running, o.running)
	m.oldest = max(m.oldest, o.oldest)
}

func (m *moment) empty() bool {
	return m.tally.empty() && m.waiting|m.running == 0 && m.oldest == 0
}

// append appends the stored form.
func (m *moment) append(b []byte) []byte {
	b = binary.AppendUvarint(b, m.waiting)
	b = binary.AppendUvarint(b, m.running)
	b = binary.AppendUvarint(b, uint64(m.oldest*1000))
	return m.tally.append(b)
}

// read is the inverse of append.
func (m *moment) read(r *reader) {
	m.waiting, m.running = r.uint(), r.uint()
	m.oldest = float64(r.uint()) / 1000
	m.tally.read(r)
}

// row is a moment in a ring.
type row struct {
	counts           [5]uint32 // as those of a tally
	waiting, running uint32
	oldest           float32
	wait, run        [3]float32 // percentiles in seconds; below 0 = none
}

var (
	none  = [3]float32{-1, -1, -1}
	blank = row{wait: none, run: none}
)

func (m *moment) row() row {
	r := row{waiting: bounded(m.waiting), running: bounded(m.running), oldest: float32(m.oldest), wait: three(&m.wait), run: three(&m.run)}
	for i, n := range m.counts() {
		r.counts[i] = bounded(*n)
	}
	return r
}

func bounded(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }

func three(h *Histogram) [3]float32 {
	p := h.percentiles()
	if p == nil {
		return none
	}
	return [3]float32{float32(p.P50), float32(p.P95), float32(p.P99)}
}

// ring has the last periods of a length. Each has a place by its number, which is that of
// the wall clock, and is overwritten by a later one. So gaps show, and a clock that is set
// back only overwrites.
type ring struct {
	step  int64 // seconds
	slots []int64
	rows  map[string][]row // types that had something in one of the periods
	used  map[string]int64 // the last of these periods

	// The period under way, unless it is a ring of seconds.
	slot int64
	open map[string]*moment // nil: there is none
}

// rings are the lengths and numbers of periods. Each length divides the next.
var rings = [...]struct {
	step int64
	size int
}{{1, 300}, {10, 360}, {60, 1440}}

func newRing(step int64, size int) *ring {
	return &ring{step: step, slots: make([]int64, size), rows: make(map[string][]row), used: make(map[string]int64)}
}

func (g *ring) place(slot int64) int { return int(uint64(slot) % uint64(len(g.slots))) }

// has says whether the ring has a period.
func (g *ring) has(slot int64) bool { return slot > 0 && g.slots[g.place(slot)] == slot }

// closing is how many seconds after its end a period may be put into its ring.
const closing = 3

// last is the last period that has ended by a moment, in seconds since the Unix epoch. One
// that has ended just now, and is not in the ring yet, does not count.
func (g *ring) last(now int64) int64 {
	slot := now/g.step - 1
	if now < (slot+1)*g.step+closing && !g.has(slot) && g.has(slot-1) {
		slot--
	}
	return slot
}

// put puts a period into the ring, in place of the one of a whole turn before.
func (g *ring) put(slot int64, all map[string]*moment) {
	at := g.place(slot)
	g.slots[at] = slot
	for name, rows := range g.rows {
		if all[name] == nil {
			rows[at] = blank
		}
	}
	for name, m := range all {
		g.set(name, slot, m.row())
	}
}

// set sets the row of a type in a period that the ring has.
func (g *ring) set(name string, slot int64, r row) {
	rows := g.rows[name]
	if rows == nil {
		rows = make([]row, len(g.slots))
		for i := range rows {
			rows[i] = blank
		}
		g.rows[name] = rows
	}
	rows[g.place(slot)] = r
	g.used[name] = slot
}

// collect adds a second to the period under way, and puts that into the ring first if the
// second is not in it any more. full says that it did.
func (g *ring) collect(second int64, all map[string]*moment) (full bool) {
	if slot := second / g.step; g.open == nil || slot != g.slot {
		if full = g.open != nil; full {
			g.put(g.slot, g.open)
		}
		g.slot, g.open = slot, make(map[string]*moment)
	}
	for name, m := range all {
		have := g.open[name]
		if have == nil {
			have = &moment{}
			g.open[name] = have
		}
		have.then(m)
	}
	return full
}

// forget drops the types that have had nothing for a whole turn, whichever way the clock
// was set.
func (g *ring) forget() (dropped []string) {
	for name, last := range g.used {
		if turn := int64(len(g.slots)); name != Total && name != OtherTypes && g.open[name] == nil && (g.slot-last > turn || last-g.slot > turn) {
			dropped = append(dropped, name)
			g.drop(name)
		}
	}
	return dropped
}

func (g *ring) drop(name string) {
	delete(g.rows, name)
	delete(g.used, name)
}

// append appends the stored form of a row.
func (r *row) append(b []byte) []byte {
	for _, n := range r.counts {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = binary.AppendUvarint(b, uint64(r.waiting))
	b = binary.AppendUvarint(b, uint64(r.running))
	b = binary.LittleEndian.AppendUint32(b, math.Float32bits(r.oldest))
	for _, three := range [][3]float32{r.wait, r.run} {
		if three == none {
			b = append(b, 0)
			continue
		}
		b = append(b, 1)
		for _, v := range three {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return b
}

// read is the inverse of append.
func (r *row) read(from *reader) {
	*r = blank
	for i := range r.counts {
		r.counts[i] = bounded(from.uint())
	}
	r.waiting, r.running = bounded(from.uint()), bounded(from.uint())
	r.oldest = from.float()
	for _, three := range []*[3]float32{&r.wait, &r.run} {
		if from.uint() == 0 {
			continue
		}
		for i := range three {
			three[i] = from.float()
		}
	}
}

// float reads a number of a row. Others than a span of time are damage.
func (r *reader) float() float32 {
	if r.check(len(r.b) >= 4); r.err != nil {
		return 0
	}
	v := math.Float32frombits(binary.LittleEndian.Uint32(r.b))
	r.b = r.b[4:]
	r.check(v >= 0 && v <= float32((longest*time.Microsecond).Seconds()))
	if r.err != nil {
		return 0
	}
	return v
}

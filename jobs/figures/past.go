package figures

import (
	"sync"
)

// minute is how many seconds [Collector.Minute] covers.
const minute = 60

// past is what was: the rings, and the seconds of the last minute. mu guards it.
type past struct {
	mu      sync.RWMutex
	rings   [len(rings)]*ring
	seconds []second          // of the last minute, oldest first
	minute  map[string]*tally // all of them together; nil: to be added up
}

// second is a period of a second in its stored form. Histograms are small in that.
type second struct {
	at     int64
	stored []byte
}

func (p *past) init() {
	for i, r := range rings {
		p.rings[i] = newRing(r.step, r.size)
	}
}

// push adds the second that began at a moment, in seconds since the Unix epoch, and
// returns it in its stored form. p.mu is locked.
func (p *past) push(at int64, all map[string]*moment) second {
	all = p.bound(all)
	s := second{at, appendMoments(nil, all)}
	p.rings[0].put(at, all)
	for _, g := range p.rings[1:] {
		if g.collect(at, all) && g == p.rings[len(rings)-1] {
			p.forget()
		}
	}
	p.window(s)
	return s
}

// bound joins the types for which there is no room.
func (p *past) bound(all map[string]*moment) map[string]*moment {
	g := p.rings[len(rings)-1]
	known := len(g.rows)
	for name := range g.open {
		if g.rows[name] == nil {
			known++
		}
	}
	out := make(map[string]*moment, len(all))
	for name, m := range all {
		if name != Total && name != OtherTypes && g.rows[name] == nil && g.open[name] == nil {
			if known >= MaxTypes+2 { // those two have room for good
				name = OtherTypes
			} else {
				known++
			}
		}
		if have := out[name]; have != nil {
			sum := &moment{}
			sum.beside(have)
			sum.beside(m)
			m = sum
		}
		out[name] = m
	}
	return out
}

// forget drops the types of which no ring has anything.
func (p *past) forget() {
	for _, name := range p.rings[len(rings)-1].forget() {
		for _, g := range p.rings {
			g.drop(name)
		}
	}
}

// window adds a second to the last minute. p.mu is locked.
func (p *past) window(s second) {
	p.seconds = append(p.seconds, s)
	if len(p.seconds) > minute {
		p.seconds = append(p.seconds[:0], p.seconds[len(p.seconds)-minute:]...)
	}
	p.minute = nil
}

// Minute has the figures of the last minute, as far as that was counted, by type and for
// [Total]. Types without any are missing.
func (c *Collector) Minute() map[string]Period {
	p := &c.past
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sum()
	all := make(map[string]Period, len(p.minute))
	for name, t := range p.minute {
		all[name] = t.period()
	}
	return all
}

// sum adds the seconds of the last minute up, if that is to be done. p.mu is locked.
func (p *past) sum() {
	if p.minute != nil {
		return
	}
	p.minute = make(map[string]*tally)
	if len(p.seconds) == 0 {
		return
	}
	last := p.seconds[len(p.seconds)-1].at
	for _, s := range p.seconds {
		if s.at <= last-minute || s.at > last { // there was a gap, or the clock was set back
			continue
		}
		all, err := readMoments(&reader{b: s.stored})
		if err != nil {
			continue // it was damaged in memory, or is of another version
		}
		for name, m := range all {
			t := p.minute[name]
			if t == nil {
				t = &tally{}
				p.minute[name] = t
			}
			t.merge(&m.tally)
		}
	}
}

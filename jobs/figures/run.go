package figures

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"jobstream/jobs"
)

// Open takes up the past from a file, which need not be there. From now on a period is
// closed at the end of each second, and stored there. A damaged file is read as far as it
// is whole. Open is called once, and Close after it.
func (c *Collector) Open(path string, log *slog.Logger) {
	c.load(path, log)
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.closed.Go(func() { c.run(ctx) })
}

func (c *Collector) load(path string, log *slog.Logger) {
	c.past.mu.Lock()
	defer c.past.mu.Unlock()
	c.log = log
	if err := c.past.load(path); err != nil {
		log.Warn("the figures of the past are not all there", "error", err)
	}
	c.store.path = path
}

// Close closes the last period, and then the file.
func (c *Collector) Close() {
	c.stop()
	c.closed.Wait()
}

// run closes a period at the end of each second, until ctx ends.
func (c *Collector) run(ctx context.Context) {
	defer c.store.close()
	for ctx.Err() == nil {
		end := time.NewTimer(time.Second - time.Duration(jobs.Now())%time.Second)
		select {
		case <-end.C:
		case <-ctx.Done():
			end.Stop()
		}
		c.tick(jobs.Now())
	}
}

// tick closes the present period.
func (c *Collector) tick(now jobs.Time) {
	p := c.close(now)
	if p == nil {
		return
	}
	c.sums.add(p)
	moments := p.moments(now)
	if err := c.store.write(c.push(c.number(now), moments)); err != nil {
		c.log.Warn("the figures of the past cannot be stored; that is tried again", "error", err)
	}
	c.Board.Put(p.digest(now, moments)) // whoever gets it finds its second in the history
}

// number is the second that has just ended, as one since the Unix epoch. A timer may be
// early or late, and the last second of a collector is shorter.
func (c *Collector) number(now jobs.Time) int64 {
	n := int64(now.Add(-time.Second/2)) / int64(time.Second)
	if n == c.last {
		n++
	}
	return n
}

// push adds a second to the past, and those that a late end of it has left out. It returns
// what is to be stored: these, or all of the past.
func (c *Collector) push(at int64, moments map[string]*moment) (new []second, all []byte) {
	c.past.mu.Lock()
	defer c.past.mu.Unlock()
	if c.last != 0 && at-c.last <= mostLate {
		stood := standing(moments)
		for late := c.last + 1; late < at; late++ {
			new = append(new, c.past.push(late, stood))
		}
	}
	new = append(new, c.past.push(at, moments))
	c.last = at
	if c.store.stale() {
		all = c.past.appendAll(nil)
	}
	return new, all
}

// mostLate is by how many seconds a period may be too long on a busy machine.
const mostLate = 5

// standing is how things stood, without what has happened.
func standing(all map[string]*moment) map[string]*moment {
	stood := make(map[string]*moment, len(all))
	for name, m := range all {
		stood[name] = &moment{waiting: m.waiting, running: m.running, oldest: m.oldest}
	}
	return stood
}

// period is a closed one.
type period struct {
	span    time.Duration
	tallies map[string]*tally // those in which something happened
	waiting map[string]Waiting
	commits Histogram
	sample  sample
	now     Now
}

// close closes the present period and begins the next one. It is nil if nothing is counted
// now.
func (c *Collector) close(now jobs.Time) *period {
	at := time.Now()
	c.mu.Lock()
	source := c.source
	p := &period{
		span: at.Sub(c.begun), tallies: c.tallies, commits: c.commits, sample: c.sample, waiting: c.looks(now),
	}
	c.tallies, c.commits, c.sample, c.begun = make(map[string]*tally, len(p.tallies)), Histogram{}, sample{}, at
	c.mu.Unlock()
	if source == nil {
		return nil
	}
	p.now = source.Now(p.waiting)
	return p
}

// moments are the types of which there is anything to say, and the total.
func (p *period) moments(now jobs.Time) map[string]*moment {
	all := make(map[string]*moment)
	of := func(name string) *moment {
		m := all[name]
		if m == nil {
			m = &moment{}
			all[name] = m
		}
		return m
	}
	for name, t := range p.tallies {
		of(name).merge(t)
	}
	for name, n := range p.now.Types {
		of(name).running = uint64(n.Running)
	}
	for name, w := range p.waiting {
		m := of(name)
		m.waiting, m.oldest = uint64(w.Pending()), SecondsSince(w.Oldest, now)
	}
	maps.DeleteFunc(all, func(_ string, m *moment) bool { return m.empty() })
	total := &moment{}
	for name, m := range all {
		total.beside(m)
		if p.now.Types[name].Internal {
			delete(all, name)
		}
	}
	all[Total] = total
	return all
}

// digest makes the digest of a period.
func (p *period) digest(at jobs.Time, all map[string]*moment) *Digest {
	d := &Digest{
		At: at.Std(), Seconds: seconds(p.span), Types: make(map[string]Recent), Workers: p.now.Workers,
		Node: Node{DiskFree: p.now.DiskFree, CommitMS: seconds(p.commits.Quantile(0.5) * 1000)},
	}
	d.Total = all[Total].figures()
	for name, m := range all {
		if name != Total {
			d.Types[name] = Recent{Figures: m.figures()}
		}
	}
	for name, n := range p.now.Types {
		d.Total.Scheduled += n.Scheduled
		d.Total.Retrying += n.Retrying
		if n.Internal {
			continue
		}
		r := d.Types[name]
		r.Scheduled, r.Retrying, r.Paused, r.Reasons = n.Scheduled, n.Retrying, n.Paused, n.Reasons
		d.Types[name] = r
	}
	d.Sample, d.Skipped = p.sample.changes()
	return d
}

func (m *moment) figures() Figures {
	f := Figures{Waiting: int(m.waiting), OldestSeconds: m.oldest, Running: int(m.running)}
	f.Period = m.period()
	return f
}

// period is a tally for its readers.
func (t *tally) period() Period {
	return Period{
		In: int(t.in), Done: int(t.done), Failed: int(t.failed), Retried: int(t.retried), Cancelled: int(t.cancelled),
		Wait: t.wait.percentiles(), Run: t.run.percentiles(),
	}
}

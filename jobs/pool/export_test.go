package pool

// Asleep is how many deliveries that were given back are waited for.
func (p *Pool) Asleep() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(len(p.asleep.bySeq), len(p.asleep.heap))
}

// SetShare sets what each lane may hold in advance at least; before [Pool.Start].
func (p *Pool) SetShare(n int) { p.share = n }

// Ahead is what the lanes hold or wait for in advance.
func (p *Pool) Ahead() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lanes {
		n += l.asked + len(l.buf)
	}
	return n
}

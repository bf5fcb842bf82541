package jobs

// Asleep is how many deliveries that were given back are waited for.
func (p *Pool) Asleep() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(len(p.asleep.bySeq), len(p.asleep.heap))
}

package client

import (
	"sync"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// ends are the reports of jobs that are done. While one request is under way, the next ones
// gather, and go together. A report that is not taken so is the caller's to send, alone.
type ends struct {
	mu      sync.Mutex
	waiting []*end
	sending bool
}

// end is a report that waits.
type end struct {
	body []byte
	told chan bool // gets an element: whether it was taken
}

// endBytes is how much goes together, as far as one report alone is not more.
const endBytes = 256 << 10

// tell sends a report, perhaps with others, and says whether the server has taken it.
func (e *ends) tell(w *worker, body []byte) bool {
	one := &end{body, make(chan bool, 1)}
	e.mu.Lock()
	e.waiting = append(e.waiting, one)
	if !e.sending {
		e.sending = true
		go e.send(w)
	}
	e.mu.Unlock()
	return <-one.told
}

// send sends what waits, until nothing does.
func (e *ends) send(w *worker) {
	for {
		e.mu.Lock()
		some := e.next()
		e.sending = len(some) > 0
		e.mu.Unlock()
		if len(some) == 0 {
			return
		}
		taken := w.endMany(some)
		for i, one := range some {
			one.told <- i < len(taken) && taken[i]
		}
	}
}

// next removes those that go together. e.mu is locked.
func (e *ends) next() (some []*end) {
	size, n := 0, 0
	for n < min(len(e.waiting), jobs.MaxAsk) && (n == 0 || size+len(e.waiting[n].body) <= endBytes) {
		size += len(e.waiting[n].body)
		n++
	}
	some, e.waiting = e.waiting[:n:n], e.waiting[n:]
	return some
}

// endMany sends reports once. taken says which of them the server has taken; the others may
// be sent again.
func (w *worker) endMany(some []*end) (taken []bool) {
	if len(some) == 1 {
		_, err := w.c.call(w.life, "worker.done", nil, some[0].body, patience)
		return []bool{err == nil}
	}
	bodies := make([][]byte, len(some))
	for i, one := range some {
		bodies[i] = one.body
	}
	answer, err := w.c.call(w.life, "worker.done_many", nil, api.AppendManyDone(nil, bodies), patience)
	if err != nil {
		return nil
	}
	taken, _ = api.ReadTaken(answer) // what cannot be read is sent again
	return taken
}

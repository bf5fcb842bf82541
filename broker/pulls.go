package broker

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
)

// pulls counts the deliveries that were asked for and have not come. A delivery names its
// consumer, so its lane, but not its pull request. Only the end of a request names that, on
// the reply subject <inbox>.<lane>.<request>. So deliveries are counted per lane. mu guards
// all fields.
type pulls struct {
	mu     sync.Mutex
	expiry time.Duration // of a request
	inbox  string
	lanes  []openLane
	index  map[jobs.Lane]int
	names  map[string]int // by the consumer's name
	next   uint64         // number of the next request
}

type openLane struct {
	lane     jobs.Lane
	pull     string // subject of pull requests; "" = the place is free
	missing  int    // deliveries asked for that have not come
	requests []pullRequest
	gone     bool // its consumer must be made anew; until then no request is sent
	coming   bool // it is gone, and being made; its requests are sent when it is there
}

type pullRequest struct {
	number  uint64
	size    int
	expires time.Time
}

// begin starts over without lanes, and returns the first tokens of reply subjects. Requests
// will end by themselves after expiry.
func (p *pulls) begin(expiry time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inbox, p.expiry = newReply(), expiry
	p.index, p.names, p.lanes = make(map[jobs.Lane]int), make(map[string]int), nil
	return p.inbox
}

// open accepts requests of these lanes, which may still be made.
func (p *pulls) open(lanes []jobs.Lane, coming bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range lanes {
		i := slices.IndexFunc(p.lanes, func(o openLane) bool { return o.pull == "" })
		if i < 0 {
			i, p.lanes = len(p.lanes), append(p.lanes, openLane{})
		}
		p.lanes[i] = openLane{lane: l, pull: pullSubject(JobsStream, l.String()), gone: coming, coming: coming}
		p.index[l], p.names[l.String()] = i, i
	}
}

// close forgets these lanes and their requests. Their places are used again, by requests
// with other numbers.
func (p *pulls) close(lanes []jobs.Lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range lanes {
		if i, ok := p.index[l]; ok {
			p.lanes[i] = openLane{}
			delete(p.index, l)
			delete(p.names, l.String())
		}
	}
}

// has says whether a lane is open.
func (p *pulls) has(lane jobs.Lane) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.index[lane]
	return ok
}

// outgoing is a pull request to be sent.
type outgoing struct {
	subject string // "" if the consumer is not there: the request has run out, or is sent later
	inbox   string
	lane    int // index
	number  uint64
	size    int
}

// appendReply appends the subject on which the request is answered.
func (o *outgoing) appendReply(b []byte) []byte {
	b = append(append(b, o.inbox...), '.')
	b = strconv.AppendInt(b, int64(o.lane), 10)
	return strconv.AppendUint(append(b, '.'), o.number, 10)
}

// replyTokens are the lane's index and the request's number at the end of a
// reply subject.
func replyTokens(subject []byte) (i int, number uint64) {
	last := bytes.LastIndexByte(subject, '.')
	number = wire.ParseUint(subject[last+1:])
	rest := subject[:max(last, 0)]
	return int(wire.ParseUint(rest[bytes.LastIndexByte(rest, '.')+1:])), number
}

// ask counts a request for n more deliveries of a lane.
func (p *pulls) ask(lane jobs.Lane, n int) (outgoing, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := p.index[lane]
	if !ok {
		return outgoing{}, fmt.Errorf("lane %s is not open", lane)
	}
	o := outgoing{inbox: p.inbox, lane: i, number: p.next, size: n}
	r := pullRequest{number: p.next, size: n}
	p.next++
	l := &p.lanes[i]
	switch {
	case l.coming:
		r.expires = time.Now().Add(lanesTime + pullGrace)
	case !l.gone:
		o.subject = l.pull
		r.expires = time.Now().Add(p.expiry + pullGrace)
	}
	l.missing += n
	l.requests = append(l.requests, r)
	return o, nil
}

// arrived counts a delivery to its lane.
func (p *pulls) arrived(consumer []byte) (jobs.Lane, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := p.names[string(consumer)]
	if !ok {
		return jobs.Lane{}, false
	}
	l := &p.lanes[i]
	if l.missing > 0 {
		l.missing--
	}
	if l.missing == 0 {
		l.requests = l.requests[:0] // a request that is served in full ends without a message
	}
	return l.lane, true
}

// end removes a request with so many missing deliveries and returns their number. It
// returns 0 if the request has been removed before.
func (p *pulls) end(i int, number uint64, missing int) (jobs.Lane, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i >= len(p.lanes) {
		return jobs.Lane{}, 0
	}
	l := &p.lanes[i]
	for k, r := range l.requests {
		if r.number == number {
			l.requests = append(l.requests[:k], l.requests[k+1:]...)
			missing = min(missing, l.missing)
			l.missing -= missing
			return l.lane, missing
		}
	}
	return l.lane, 0
}

// postpone lets a refused request run out a little later. It returns false for one that
// has ended.
func (p *pulls) postpone(i int, number uint64, gone bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i >= len(p.lanes) {
		return false
	}
	l := &p.lanes[i]
	for k := range l.requests {
		if r := &l.requests[k]; r.number == number {
			r.expires = time.Now().Add(pullGrace)
			l.gone = l.gone || gone
			return true
		}
	}
	return false
}

// disconnected lets all requests run out: the server forgets them with the connection.
// Deliveries on their way are lost, too, and the server counts them as delivered until
// their lease ends. Lanes made anew deliver them at once.
func (p *pulls) disconnected() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.lanes {
		l := &p.lanes[i]
		l.gone = l.pull != ""
		for k := range l.requests {
			l.requests[k].expires = time.Time{}
		}
	}
}

// back opens a lane to requests again.
func (p *pulls) back(lane jobs.Lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i, ok := p.index[lane]; ok {
		p.lanes[i].gone = false
	}
}

// made ends the making of a lane, and returns the requests that are to be sent now. If it has
// failed, the lane is gone, and they run out.
func (p *pulls) made(lane jobs.Lane, ok bool) (due []outgoing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, has := p.index[lane]
	if !has {
		return nil
	}
	l := &p.lanes[i]
	l.gone, l.coming = !ok, false
	for k := range l.requests {
		r := &l.requests[k]
		if !ok {
			r.expires = time.Time{}
			continue
		}
		r.expires = time.Now().Add(p.expiry + pullGrace)
		due = append(due, outgoing{subject: l.pull, inbox: p.inbox, lane: i, number: r.number, size: r.size})
	}
	return due
}

type endedPull struct {
	lane    jobs.Lane
	missing int
}

func (p *pulls) overdue(now time.Time) (ended []endedPull, gone []jobs.Lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.lanes {
		l := &p.lanes[i]
		if l.gone && !l.coming {
			gone = append(gone, l.lane)
		}
		alive := 0 // what the requests that have not run out can still bring
		kept := l.requests[:0]
		for _, r := range l.requests {
			if r.expires.After(now) {
				alive += r.size
				kept = append(kept, r)
			}
		}
		l.requests = kept
		if lost := l.missing - alive; lost > 0 {
			l.missing = alive
			ended = append(ended, endedPull{l.lane, lost})
		}
	}
	return ended, gone
}

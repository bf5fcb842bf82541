package broker

import (
	"context"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"jobstream/jobs"
)

// What a client has not read yet the server keeps in memory, up to Options.maxPending
// for each. A thousand that read nothing would take gigabytes, so all of them together
// are bounded as well, by Options.MaxBehind: those that are furthest behind are dropped
// when they are beyond it. Notifications, which go to all who listen, wait at half of
// it: so a crowd that reads is served as fast as it reads, and loses nothing.
const (
	defaultBehind = 64 << 20
	behindEvery   = 50 * time.Millisecond // at this interval they are looked at
	roomEvery     = 10 * time.Millisecond // likewise, while notifications wait
	// So many looks nobody must have read anything before somebody is dropped for whom
	// notifications wait. They are looks and not a time, since a machine may stand still.
	fruitless = 25
)

// behind is what is known of clients that may not read.
type behind struct {
	mu   sync.Mutex
	all  int               // bytes that all of them were behind, when they were looked at last
	sent int64             // all that the server had sent by then
	each map[uint64]reader // by number
}

// reader is a client.
type reader struct {
	pending int   // bytes that it is behind
	read    int64 // about how many it has read
	still   int   // how many looks ago it was seen to have read
	dropped bool  // the server has not ended it yet
}

// crowded says whether there are so many clients that their bounds do not bound all of
// them together.
func (b *Broker) crowded() bool { return b.srv.NumClients()*b.o.maxPending() > b.o.MaxBehind }

// watchBehind drops clients if what others than we send them is too much.
func (b *Broker) watchBehind(ctx context.Context) {
	tick := time.NewTicker(behindEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !b.crowded() || !b.mayBeBehind() {
			continue
		}
		if clients, all := b.lookBehind(); all > b.o.MaxBehind {
			b.dropSlowest(clients, all, b.o.MaxBehind/2)
		}
	}
}

// mayBeBehind says whether the server has sent so much that it is worth to look at each
// client, which costs a microsecond.
func (b *Broker) mayBeBehind() bool {
	v, err := b.srv.Varz(nil)
	if err != nil {
		return true
	}
	b.behind.mu.Lock()
	defer b.behind.mu.Unlock()
	return int64(b.behind.all)+v.OutBytes-b.behind.sent > int64(b.o.MaxBehind)
}

// outside returns all clients but those of this process, the slowest first, and how many
// bytes they are behind together.
func (b *Broker) outside() (clients []*server.ConnInfo, all int) {
	open, err := b.srv.Connz(&server.ConnzOptions{Sort: server.ByPending, Limit: math.MaxInt32})
	if err != nil {
		return nil, 0
	}
	for _, c := range open.Conns {
		if c.IP != "" { // our own connections are pipes
			clients = append(clients, c)
			all += c.Pending
		}
	}
	return clients, all
}

// lookBehind is outside, and takes note of who has read something since the last time.
func (b *Broker) lookBehind() (clients []*server.ConnInfo, all int) {
	var sent int64
	if v, err := b.srv.Varz(nil); err == nil {
		sent = v.OutBytes // before: nothing that is sent meanwhile must be missed
	}
	clients, all = b.outside()
	s := &b.behind
	s.mu.Lock()
	defer s.mu.Unlock()
	each := make(map[uint64]reader, len(clients))
	for _, c := range clients {
		r, known := s.each[c.Cid]
		r.still++
		// what is sent makes pending larger by more than OutBytes
		read := c.OutBytes - int64(c.Pending)
		if !known || c.Pending == 0 || c.Pending < r.pending || read > r.read {
			r.still = 0
		}
		r.pending, r.read = c.Pending, read
		each[c.Cid] = r
	}
	s.all, s.sent, s.each = all, sent, each
	return clients, all
}

// dropSlowest drops clients until the others are not more than most behind: first those
// that have read nothing for a while, then the others; of both, who is furthest behind.
func (b *Broker) dropSlowest(clients []*server.ConnInfo, all, most int) {
	s := &b.behind
	s.mu.Lock()
	defer s.mu.Unlock()
	var still, moving []*server.ConnInfo
	for _, c := range clients {
		switch r := s.each[c.Cid]; {
		case r.dropped:
			all -= c.Pending
		case r.still >= fruitless:
			still = append(still, c)
		default:
			moving = append(moving, c)
		}
	}
	dropped := make(map[netip.AddrPort]bool)
	for _, c := range append(still, moving...) {
		if all <= most {
			break
		}
		if b.srv.DisconnectClientByID(c.Cid) != nil {
			continue // it has gone by itself
		}
		r := s.each[c.Cid]
		r.dropped = true
		s.each[c.Cid] = r
		all -= c.Pending
		if ip, err := netip.ParseAddr(c.IP); err == nil {
			dropped[netip.AddrPortFrom(ip.WithZone(""), uint16(c.Port))] = true
		}
	}
	if len(dropped) > 0 {
		hangUp(b.Port(), dropped)
		b.log.Warn("NATS clients were dropped: they read too slowly, and all of them together are too far behind", "clients", len(dropped))
	}
}

// awaitRoom waits until clients have read so much, or the slowest have been dropped,
// that need more bytes may be sent to them, and returns how many more may.
func (b *Broker) awaitRoom(ctx context.Context, need int) (int, error) {
	limit := b.o.MaxBehind / 2
	need = min(need, limit*7/8) // with a larger one they may be beyond the limit, but only with that
	least, looks := math.MaxInt, 0
	tick := time.NewTicker(roomEvery)
	defer tick.Stop()
	for {
		clients, all := b.lookBehind()
		if room := limit - all; room >= max(need, limit/8) {
			return room, nil
		}
		looks++
		if all < least {
			least, looks = all, 0
		}
		if looks > fruitless {
			b.dropSlowest(clients, all, min(limit/2, limit-need))
			looks = 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// fanOut is about how many bytes a notification is for all clients that get it; 0 if
// there are so few that it does not matter. It may have no more than [notices].most:
// one that is large is short where many get it, as one of them would go beyond any
// bound.
func (b *Broker) fanOut(j *jobs.Job) int {
	b.notices.most = b.o.MaxPayload
	if !b.notices.crowded {
		return 0
	}
	acc := b.srv.GlobalAccount()
	plain := "job." + j.Status.String()
	n := acc.Interest(plain+"."+j.Type+"."+j.ID.String()) - 1 // the stream is no client
	if b.notices.plain[j.Status] {
		n += acc.Interest(plain)
	}
	size := j.SizeHint()
	if n > 0 {
		b.notices.most = min(b.o.MaxPayload, max(leastNotice, b.o.MaxBehind/2/n))
		size = min(size, b.notices.most)
	}
	return n * size
}

// leastNotice is how large a notification may be, in bytes, however many get it.
const leastNotice = 32 << 10

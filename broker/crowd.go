package broker

import (
	"context"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
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

// crowd is all clients but those of this process, some of which may not read.
type crowd struct {
	server *Server

	mu   sync.Mutex        // guards what was seen of them
	all  int               // bytes that all of them were behind, when they were looked at last
	sent int64             // all that the server had sent by then
	each map[uint64]client // by number
}

// client is one of them.
type client struct {
	pending int   // bytes that it is behind
	read    int64 // about how many it has read
	still   int   // how many looks ago it was seen to have read
	dropped bool  // the server has not ended it yet
}

// crowded says whether there are so many clients that their bounds do not bound all of
// them together.
func (c *crowd) crowded() bool {
	return c.server.srv.NumClients()*c.server.o.maxPending() > c.server.o.MaxBehind
}

// watch drops clients if what others than we send them is too much.
func (c *crowd) watch(ctx context.Context) {
	tick := time.NewTicker(behindEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !c.crowded() || !c.mayBeBehind() {
			continue
		}
		if clients, all := c.look(); all > c.server.o.MaxBehind {
			c.dropSlowest(clients, all, c.server.o.MaxBehind/2)
		}
	}
}

// mayBeBehind says whether the server has sent so much that it is worth to look at each
// client, which costs a microsecond.
func (c *crowd) mayBeBehind() bool {
	v, err := c.server.srv.Varz(nil)
	if err != nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(c.all)+v.OutBytes-c.sent > int64(c.server.o.MaxBehind)
}

// outside returns all clients but those of this process, the slowest first, and how many
// bytes they are behind together.
func (c *crowd) outside() (clients []*server.ConnInfo, all int) {
	open, err := c.server.srv.Connz(&server.ConnzOptions{Sort: server.ByPending, Limit: math.MaxInt32})
	if err != nil {
		return nil, 0
	}
	for _, info := range open.Conns {
		if info.IP != "" { // our own connections are pipes
			clients = append(clients, info)
			all += info.Pending
		}
	}
	return clients, all
}

// look is outside, and takes note of who has read something since the last time.
func (c *crowd) look() (clients []*server.ConnInfo, all int) {
	var sent int64
	if v, err := c.server.srv.Varz(nil); err == nil {
		sent = v.OutBytes // before: nothing that is sent meanwhile must be missed
	}
	clients, all = c.outside()
	c.mu.Lock()
	defer c.mu.Unlock()
	each := make(map[uint64]client, len(clients))
	for _, info := range clients {
		r, known := c.each[info.Cid]
		r.still++
		// what is sent makes pending larger by more than OutBytes
		read := info.OutBytes - int64(info.Pending)
		if !known || info.Pending == 0 || info.Pending < r.pending || read > r.read {
			r.still = 0
		}
		r.pending, r.read = info.Pending, read
		each[info.Cid] = r
	}
	c.all, c.sent, c.each = all, sent, each
	return clients, all
}

// dropSlowest drops clients until the others are not more than most behind: first those
// that have read nothing for a while, then the others; of both, who is furthest behind.
func (c *crowd) dropSlowest(clients []*server.ConnInfo, all, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var still, moving []*server.ConnInfo
	for _, info := range clients {
		switch r := c.each[info.Cid]; {
		case r.dropped:
			all -= info.Pending
		case r.still >= fruitless:
			still = append(still, info)
		default:
			moving = append(moving, info)
		}
	}
	dropped := make(map[netip.AddrPort]bool)
	for _, info := range append(still, moving...) {
		if all <= most {
			break
		}
		if c.server.srv.DisconnectClientByID(info.Cid) != nil {
			continue // it has gone by itself
		}
		r := c.each[info.Cid]
		r.dropped = true
		c.each[info.Cid] = r
		all -= info.Pending
		if ip, err := netip.ParseAddr(info.IP); err == nil {
			dropped[netip.AddrPortFrom(ip.WithZone(""), uint16(info.Port))] = true
		}
	}
	if len(dropped) > 0 {
		hangUp(c.server.Port(), dropped)
		c.server.log.Warn("NATS clients were dropped: they read too slowly, and all of them together are too far behind", "clients", len(dropped))
	}
}

// awaitRoom waits until clients have read so much, or the slowest have been dropped,
// that need more bytes may be sent to them, and returns how many more may.
func (c *crowd) awaitRoom(ctx context.Context, need int) (int, error) {
	limit := c.server.o.MaxBehind / 2
	need = min(need, limit*7/8) // with a larger one they may be beyond the limit, but only with that
	least, looks := math.MaxInt, 0
	tick := time.NewTicker(roomEvery)
	defer tick.Stop()
	for {
		clients, all := c.look()
		if room := limit - all; room >= max(need, limit/8) {
			return room, nil
		}
		looks++
		if all < least {
			least, looks = all, 0
		}
		if looks > fruitless {
			c.dropSlowest(clients, all, min(limit/2, limit-need))
			looks = 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

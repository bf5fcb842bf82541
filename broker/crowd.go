package broker

import (
	"context"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// The server keeps unread messages in memory, up to Options.maxPending for each client. A
// thousand clients that read nothing would need gigabytes. So Options.MaxBehind bounds all
// of them together: beyond it those that are furthest behind are dropped. Notifications go
// to all who listen, and wait at half of that bound. So clients that read get them as fast
// as they read, and lose nothing.
const (
	defaultBehind = 64 << 20
	behindEvery   = 50 * time.Millisecond // between looks at the clients
	roomEvery     = 10 * time.Millisecond // likewise, while notifications wait
	// fruitless is the number of looks without anything read after which clients are dropped
	// for waiting notifications. It is no time, since a machine may stand still.
	fruitless = 25
)

// crowd is all clients outside of this process. It drops those that do not read when there
// is too much unread. mu guards the results of the last look.
type crowd struct {
	server *Server

	mu   sync.Mutex
	all  int               // bytes that all of them were behind
	sent int64             // bytes that the server had sent
	each map[uint64]client // by number
}

// client is one of them.
type client struct {
	pending int   // bytes that it is behind
	read    int64 // bytes that it has read, about
	still   int   // looks since it has read something
	dropped bool  // and not gone yet
}

// crowded says whether the bounds of the single clients add up to more than MaxBehind.
func (c *crowd) crowded() bool {
	return c.server.srv.NumClients()*c.server.o.maxPending() > c.server.o.MaxBehind
}

// watch drops clients if the messages of others than us are too much for them.
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

// mayBeBehind says whether the server has sent enough since the last look to be worth
// another one, which costs a microsecond per client.
func (c *crowd) mayBeBehind() bool {
	v, err := c.server.srv.Varz(nil)
	if err != nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(c.all)+v.OutBytes-c.sent > int64(c.server.o.MaxBehind)
}

// outside returns all clients outside of this process, those furthest behind first, and the
// bytes that they are behind together.
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

// look is outside, and records which clients have read something since the last time.
func (c *crowd) look() (clients []*server.ConnInfo, all int) {
	var sent int64
	if v, err := c.server.srv.Varz(nil); err == nil {
		sent = v.OutBytes // read first, so that nothing sent meanwhile is missed
	}
	clients, all = c.outside()
	c.mu.Lock()
	defer c.mu.Unlock()
	each := make(map[uint64]client, len(clients))
	for _, info := range clients {
		r, known := c.each[info.Cid]
		r.still++
		// A message sent makes Pending larger by more than OutBytes.
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

// dropSlowest drops clients until the others are at most so many bytes behind. Those that
// have read nothing for a while go first, and of these those furthest behind.
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

// awaitRoom waits until need more bytes may be sent to the clients, and returns how many may.
// If they do not read, the slowest are dropped.
func (c *crowd) awaitRoom(ctx context.Context, need int) (int, error) {
	limit := c.server.o.MaxBehind / 2
	need = min(need, limit*7/8) // one larger message may go beyond the limit, if all else is read
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

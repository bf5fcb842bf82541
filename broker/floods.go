package broker

import (
	"context"
	"math"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// For each request that comes from the account of a principal, nats-server remembers where
// its answers go: until the only one has come, if there can be one; otherwise for minutes,
// since more may follow. A client that asks without end would fill the memory. So beyond
// maxAsked the clients that send most are cut off, and with them goes what they have
// asked for. If that does not help, somebody else in the account hears the answers, and the
// whole account is cut off.
const (
	maxAsked     = 32_000 // requests, of half a kilobyte each; more than may wait for something
	askedEvery   = 50 * time.Millisecond
	patientLooks = 20 // with a client cut off in each
)

// floods bounds the requests that wait for answers. Only watch uses it.
type floods struct {
	server *Server
	sent   map[uint64]int64 // messages of each client at the last look; nil if there were not too many
	looks  int              // since there are too many
}

// watch cuts clients off until ctx ends.
func (u *floods) watch(ctx context.Context) {
	tick := time.NewTicker(askedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if u.server.srv.GlobalAccount().NumPendingAllResponses() <= maxAsked {
			u.sent, u.looks = nil, 0
			continue
		}
		u.cut()
	}
}

// cut disconnects the client that has sent most since the last look.
func (u *floods) cut() {
	open, err := u.server.srv.Connz(&server.ConnzOptions{Username: true, Limit: math.MaxInt32})
	if err != nil {
		return
	}
	before := u.sent
	u.sent = make(map[uint64]int64, len(open.Conns))
	var worst *server.ConnInfo
	var most int64
	for _, c := range open.Conns {
		if c.IP == "" {
			continue // a pipe of this process
		}
		u.sent[c.Cid] = c.InMsgs
		if now := c.InMsgs - before[c.Cid]; now > most {
			worst, most = c, now
		}
	}
	if before == nil || worst == nil {
		return // who sends now shows at the next look
	}
	u.looks++
	if u.looks <= patientLooks {
		_ = u.server.srv.DisconnectClientByID(worst.Cid) // it fails for one that has gone
	} else {
		u.server.disconnect(&server.ConnzOptions{Account: worst.Account})
		u.looks = 0
	}
	u.server.log.Warn("a NATS client was cut off: too many of its requests wait for answers", "principal", worst.AuthorizedUser, "client", worst.IP, "requests_at_most", maxAsked)
}

package broker

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The servers of a cluster keep a list of their own: those among which streams have their
// copies, and of which a majority decides. A server gets into it when it comes, and leaves
// it only when it is removed. Requests about it are made in the account of the system, where
// no client from outside comes.

// systemUser is the name with which this process connects to the account of the system; see
// [accounts.Check].
const systemUser = "system"

// membershipCall bounds a question about the list, and a change of it.
const (
	membershipCall = 2 * time.Second
	removalCall    = 10 * time.Second
)

// ServerID is under which id the list has the member with a name.
func ServerID(name string) string {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := sha256.Sum256([]byte(name))
	id := sum[:8]
	for i, b := range id {
		id[i] = letters[int(b)%len(letters)]
	}
	return string(id)
}

// ServerIDs is the list, as the server knows it that decides about it.
func (b *Broker) ServerIDs(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, membershipCall)
	defer cancel()
	var answer struct {
		Server struct{ Name string }
		Data   struct {
			Meta *struct {
				Replicas []struct{ Peer string }
			} `json:"meta_cluster"`
		}
	}
	if err := b.system(ctx, "$SYS.REQ.SERVER.PING.JSZ", server.JSzOptions{LeaderOnly: true}, &answer); err != nil {
		return nil, fmt.Errorf("no server says which ones the cluster has: %w", err)
	}
	if answer.Data.Meta == nil {
		return nil, errors.New("no server says which ones the cluster has")
	}
	ids := []string{ServerID(answer.Server.Name)}
	for _, r := range answer.Data.Meta.Replicas {
		ids = append(ids, r.Peer)
	}
	return ids, nil
}

// RemoveServer takes a member off the list, which does not run. Copies of streams that it
// had are made on another server, if there is one without.
func (b *Broker) RemoveServer(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, removalCall)
	defer cancel()
	var answer struct{ Error *jetstream.APIError }
	if err := b.system(ctx, server.JSApiRemoveServer, server.JSApiMetaServerRemoveRequest{Server: name, Peer: ServerID(name)}, &answer); err != nil {
		return fmt.Errorf("the cluster does not say whether it has removed %s: %w", name, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("the cluster does not remove %s: %w", name, answer.Error)
	}
	return nil
}

// Moving is a stream whose copies are not complete on the servers that shall have them; "" if
// all are. A stream whose leader does not answer is one.
func (b *Broker) Moving(ctx context.Context) (stream string) {
	for _, cfg := range b.o.streams() {
		if !b.settled(ctx, cfg.Name) {
			return cfg.Name
		}
	}
	return ""
}

func (b *Broker) settled(ctx context.Context, stream string) bool {
	ctx, cancel := context.WithTimeout(ctx, membershipCall)
	defer cancel()
	m, err := b.nc.RequestWithContext(ctx, "$JS.API.STREAM.INFO."+stream, nil)
	if err != nil {
		return false
	}
	var answer struct{ Cluster *server.ClusterInfo } // nats.go does not know what is desired
	if json.Unmarshal(m.Data, &answer) != nil || answer.Cluster == nil || answer.Cluster.Leader == "" || answer.Cluster.Desired != nil {
		return false
	}
	others := answer.Cluster.Replicas
	return len(others)+1 == b.Copies() && !slices.ContainsFunc(others, func(p *server.PeerInfo) bool { return !p.Current || p.Offline })
}

// Copies is how many copies each stream has.
func (b *Broker) Copies() int { return b.o.replicas() }

// system makes a request in the account of the system.
func (s *Server) system(ctx context.Context, subject string, request, answer any) error {
	nc, err := nats.Connect("", nats.InProcessServer(s.srv), nats.UserInfo(systemUser, s.accounts.secret), nats.NoReconnect())
	if err != nil {
		return err
	}
	defer nc.Close()
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	m, err := nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(m.Data, answer)
}

// admitSystem admits a client of this process to the account of the system, if it is one
// for that.
func (a *accounts) admitSystem(c server.ClientAuthentication) {
	if o := c.GetOpts(); o.Username == systemUser && o.Password == a.secret {
		c.RegisterUser(&server.User{Username: systemUser, Account: a.server.srv.SystemAccount()})
	}
}

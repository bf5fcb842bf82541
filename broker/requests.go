package broker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// awaited says whether somebody waits for the answer to a request. A request of another
// account has a reply subject of this process, and nats-server says which client it is by.
func (s *Server) awaited(reply string, header nats.Header) bool {
	if reply == "" {
		return false
	}
	info := header.Get(server.ClientInfoHdr)
	if info == "" {
		return s.srv.GlobalAccount().SubscriptionInterest(reply)
	}
	var client struct {
		ID     uint64
		Server string
	}
	if err := json.Unmarshal([]byte(info), &client); err != nil || client.Server != "" && client.Server != s.o.Node {
		return true // nobody knows: it is a client of another member of the cluster
	}
	return s.srv.GetClient(client.ID) != nil
}

// ErrNobody says that nobody listens to the subject of a request.
var ErrNobody = errors.New("nobody listens to the subject")

// Request sends a request as any client would, and waits for the first answer until ctx
// ends. The error is [ErrNobody] if there can be none. Clients that may answer see the
// reply subject of each request that they get. So it is no other's, and none tells another:
// the inboxes of nats.go can be guessed by whoever has seen some.
func (s *Server) Request(ctx context.Context, subject string, header map[string][]string, body []byte) (answerHeader map[string][]string, answer []byte, err error) {
	reply := asked + "." + rand.Text()
	sub, err := s.nc.SubscribeSync(reply)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only when the connection has ended
	if err := s.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Header: header, Data: body}); err != nil {
		return nil, nil, err
	}
	m, err := sub.NextMsgWithContext(ctx)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, nil, ErrNobody
	}
	if err != nil {
		return nil, nil, err
	}
	return m.Header, m.Data, nil
}

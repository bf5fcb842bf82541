package broker

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
)

// awaited says whether somebody listens to the subject of an answer.
func (s *Server) awaited(reply string) bool {
	return reply != "" && s.srv.GlobalAccount().SubscriptionInterest(reply)
}

// ErrNobody says that nobody listens to the subject of a request.
var ErrNobody = errors.New("nobody listens to the subject")

// Request sends a request as any client would, and waits for the first answer until ctx
// ends. The error is [ErrNobody] if there can be none.
func (s *Server) Request(ctx context.Context, subject string, header map[string][]string, body []byte) (answerHeader map[string][]string, answer []byte, err error) {
	m, err := s.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Header: header, Data: body})
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, nil, ErrNobody
	}
	if err != nil {
		return nil, nil, err
	}
	return m.Header, m.Data, nil
}

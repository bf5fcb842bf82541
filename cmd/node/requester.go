package node

import (
	"context"
	"errors"
	"sync/atomic"

	"jobstream/broker"
	"jobstream/jobs/handlers/nats"
)

// Requester sends the requests of handlers over the NATS of a node; see [Tools].
type Requester struct{ broker atomic.Pointer[broker.Broker] }

var _ nats.Requester = (*Requester)(nil)

// Request sends a request and waits for its answer.
func (r *Requester) Request(ctx context.Context, subject string, header map[string][]string, body []byte) (*nats.Reply, error) {
	h, answer, err := r.broker.Load().Request(ctx, subject, header, body)
	switch {
	case errors.Is(err, broker.ErrNobody):
		return nil, nats.ErrNobody
	case err != nil:
		return nil, err
	}
	return &nats.Reply{Header: h, Body: answer}, nil
}

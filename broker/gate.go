package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The gate lets principals have consumers of NOTIFICATIONS, and no others. JetStream
// itself would let whoever may create a consumer have its messages delivered to any
// subject, and use the consumers of others. A consumer that was made through the gate has
// its owner in its metadata. One without is everybody's who may read.

// ownerKey is where the metadata of a consumer names its owner.
const ownerKey = "jobstream.owner"

const (
	maxOwned   = 1000     // names of consumers that a principal may use
	maxPassing = 64       // gated requests that are answered at a time
	maxGated   = 32 << 10 // bytes of one
	maxWaiting = 4096     // requests for messages that may wait at a consumer; it has room for all
)

// gate begins the subjects of gated requests of this server. Others in its cluster have
// theirs.
func (s *Server) gate() string { return gatePrefix + safeType(s.o.Node) + "." }

// openGate reads who owns what, and begins to let requests through.
func (a *accounts) openGate(ctx context.Context) error {
	s, err := a.server.js.Stream(ctx, NotificationsStream)
	if err != nil {
		return err
	}
	all := s.ListConsumers(ctx)
	a.mu.Lock()
	for c := range all.Info() {
		a.owners[c.Name] = c.Config.Metadata[ownerKey]
	}
	a.mu.Unlock()
	if err := all.Err(); err != nil {
		return err
	}
	sub, err := a.server.nc.Subscribe(a.server.gate()+"*.>", a.pass)
	if err != nil {
		return err
	}
	return sub.SetPendingLimits(maxQueued, maxQueuedBytes)
}

// pass forwards a request, or refuses it. JetStream's own answer would not find its way
// through two accounts.
func (a *accounts) pass(m *nats.Msg) {
	if m.Reply == "" {
		return // nobody would learn what became of it
	}
	select {
	case a.passing <- struct{}{}:
	default:
		refuse(m, fmt.Errorf("%d requests about consumers are being answered already; try again later", maxPassing))
		return
	}
	go func() {
		defer func() { <-a.passing }()
		answer, err := a.forward(m)
		if err != nil {
			refuse(m, err)
			return
		}
		_ = m.Respond(answer) // it fails only if nobody waits
	}()
}

// forward does a gated request.
func (a *accounts) forward(m *nats.Msg) ([]byte, error) {
	if len(m.Data) > maxGated {
		return nil, fmt.Errorf("the request has %d bytes; at most %d are allowed", len(m.Data), maxGated)
	}
	key, subject, _ := strings.Cut(strings.TrimPrefix(m.Subject, a.server.gate()), ".")
	p := a.ofKey(key)
	if p == nil {
		return nil, errors.New("the subject names no account")
	}
	who := p.Name
	verb, name, ok := consumerOf(subject)
	if !ok {
		return nil, errors.New("the subject names no consumer")
	}
	body := m.Data
	if verb == "CREATE" {
		var err error
		if body, err = ownedBy(who, m.Data); err != nil {
			return nil, err
		}
	}
	if err := a.own(who, name); err != nil {
		return nil, err
	}
	answer, err := a.server.nc.Request(subject, body, ackTimeout)
	if err != nil {
		return nil, err
	}
	return answer.Data, nil
}

// consumerOf is the verb of a gated request, and the consumer that it is about.
func consumerOf(subject string) (verb, name string, ok bool) {
	parts := strings.Split(subject, ".") // $JS.API.CONSUMER.<verb>.<stream>.<consumer>
	if len(parts) > 3 && parts[3] == "DURABLE" {
		parts = parts[1:]
	}
	if len(parts) < 6 || parts[5] == "" || strings.ContainsAny(parts[3]+parts[5], "*>") { // a wildcard would be everybody's
		return "", "", false
	}
	return parts[3], parts[5], true
}

// own gives a consumer's name to a principal, unless it is somebody else's. It remains the
// principal's until the server ends, since nats-server does not take an import back.
func (a *accounts) own(who, name string) error {
	owner, known, err := a.ownerOf(name)
	switch {
	case err != nil:
		return err
	case known && owner != who && owner != "":
		return fmt.Errorf("the consumer %s is somebody else's; choose another name", name)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now, taken := a.owners[name]; taken {
		if now != who && now != "" {
			return fmt.Errorf("the consumer %s is somebody else's; choose another name", name)
		}
		return nil
	}
	owned := 0
	for _, owner := range a.owners {
		if owner == who {
			owned++
		}
	}
	if owned >= maxOwned {
		return fmt.Errorf("%d names of consumers are in use; use one of them again", maxOwned)
	}
	if !known {
		owner = who
	}
	a.owners[name] = owner
	for _, acc := range a.made {
		if acc.principal.Name == owner || owner == "" {
			if err := acc.useConsumer(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// ownerOf finds out whose a consumer is. An admin may have made one beside the gate.
func (a *accounts) ownerOf(name string) (owner string, known bool, err error) {
	a.mu.Lock()
	owner, known = a.owners[name]
	a.mu.Unlock()
	if known {
		return owner, true, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), ackTimeout)
	defer cancel()
	c, err := a.server.js.Consumer(ctx, NotificationsStream, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	return c.CachedInfo().Config.Metadata[ownerKey], true, nil
}

// ownedBy checks the settings of a new consumer, and writes its owner into them. It reads
// them into JetStream's own structure, and passes that on: nothing else that stands in the
// request, such as a key in other letters, can mean anything there.
func ownedBy(who string, body []byte) ([]byte, error) {
	var request server.CreateConsumerRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, fmt.Errorf("the request is not that for a consumer: %w", err)
	}
	c := &request.Config
	switch {
	case request.Stream != NotificationsStream:
		return nil, errors.New("stream_name must be " + NotificationsStream)
	case c.DeliverSubject != "" || c.DeliverGroup != "":
		return nil, errors.New("only pull consumers are allowed: deliver_subject must not be set")
	case c.Direct || c.Sourcing:
		return nil, errors.New("direct and sourcing are for servers only")
	case c.MaxWaiting > maxWaiting:
		return nil, fmt.Errorf("max_waiting must be at most %d", maxWaiting)
	}
	if c.Metadata == nil {
		c.Metadata = make(map[string]string)
	}
	c.Metadata[ownerKey] = who
	return json.Marshal(request)
}

// refuse answers as JetStream does.
func refuse(m *nats.Msg, why error) {
	body, err := json.Marshal(struct {
		Type  string              `json:"type"`
		Error *jetstream.APIError `json:"error"`
	}{"io.nats.jetstream.api.v1.consumer_create_response", &jetstream.APIError{Code: 403, ErrorCode: 10000, Description: why.Error()}})
	if err == nil {
		_ = m.Respond(body) // it fails only if nobody waits
	}
}

package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The gate lets principals have consumers of NOTIFICATIONS, and no others. JetStream
// itself would let whoever may create a consumer have its messages delivered to any
// subject, and use the consumers of others. A consumer that was made through the gate has
// its owner in its metadata. One without is everybody's who may read.

// ownerKey is where the metadata of a consumer names its owner.
const ownerKey = "jobstream.owner"

// maxOwned bounds the names of consumers that a principal may use.
const maxOwned = 1000

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
	_, err = a.server.nc.Subscribe(gatePrefix+"*.>", a.pass)
	return err
}

// pass forwards a request, or refuses it.
func (a *accounts) pass(m *nats.Msg) {
	_, rest, _ := strings.Cut(m.Subject, ".")
	who, subject, _ := strings.Cut(rest, ".")
	verb, name := consumerOf(subject)
	body := m.Data
	err := a.own(who, name)
	if err == nil && verb == "CREATE" {
		body, err = ownedBy(who, m.Data)
	}
	if err != nil {
		refuse(m, err)
		return
	}
	go func() { // JetStream's own answer would not find its way through two accounts
		if answer, err := a.server.nc.Request(subject, body, ackTimeout); err == nil {
			_ = m.Respond(answer.Data) // it fails only if nobody waits
		}
	}()
}

// consumerOf is the verb of a gated request, and the consumer that it is about.
func consumerOf(subject string) (verb, name string) {
	parts := strings.Split(subject, ".") // $JS.API.CONSUMER.CREATE.<stream>.<consumer>
	if parts[3] == "DURABLE" {           // $JS.API.CONSUMER.DURABLE.CREATE.<stream>.<consumer>
		return parts[4], parts[6]
	}
	return parts[3], parts[5]
}

// own gives a consumer's name to a principal, unless it is somebody else's. It remains the
// principal's until the server ends, since nats-server does not take an import back.
func (a *accounts) own(who, name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	owner, known := a.owners[name]
	switch {
	case known && owner != who && owner != "":
		return fmt.Errorf("the consumer %s is somebody else's; choose another name", name)
	case known:
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
	a.owners[name] = who
	for _, acc := range a.made {
		if acc.principal == who {
			if err := acc.useConsumer(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// ownedBy checks the settings of a new consumer, and writes its owner into them.
func ownedBy(who string, body []byte) ([]byte, error) {
	var request map[string]any
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, fmt.Errorf("the request is not JSON: %w", err)
	}
	config, ok := request["config"].(map[string]any)
	if !ok {
		return nil, errors.New("the request has no config")
	}
	if to, given := config["deliver_subject"]; given && to != "" {
		return nil, errors.New("only pull consumers are allowed: deliver_subject must not be set")
	}
	metadata, ok := config["metadata"].(map[string]any)
	if !ok {
		metadata = make(map[string]any)
		config["metadata"] = metadata
	}
	metadata[ownerKey] = who
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

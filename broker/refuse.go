package broker

import (
	"encoding/json"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// While no bare messages are taken, the accounts of principals have a mapping. It leads
// what clients publish for JOBS to this process, which answers as the stream would if it
// refused. Messages of this process and of admins are not mapped: they are in the account
// of the streams.

const (
	refusedPrefix   = "_JOBSTREAM_REFUSED."
	refusedSubjects = refusedPrefix + ">"
)

// refused are the subjects of refusals of this server. Others in its cluster have theirs.
func (s *Server) refused() string { return refusedPrefix + safeType(s.o.Node) + ".>" }

// RefuseBare refuses bare messages from now on, with a reason; "" takes them again. The
// PubAck has the reason.
func (s *Server) RefuseBare(why string) error {
	a := s.accounts
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refusal = why
	for _, made := range a.made {
		if err := a.divert(made.user.Account); err != nil {
			return err
		}
	}
	return nil
}

// divert adds the mapping to an account, or removes it. a.mu is locked.
func (a *accounts) divert(account *server.Account) error {
	if a.refusal == "" {
		account.RemoveMapping(jobsSubjects)
		return nil
	}
	return account.AddMapping(jobsSubjects, a.server.refused())
}

// openRefusals begins to answer what is refused.
func (a *accounts) openRefusals() error {
	_, err := a.server.nc.Subscribe(a.server.refused(), func(m *nats.Msg) {
		if m.Reply == "" {
			return
		}
		a.mu.Lock()
		why := a.refusal
		a.mu.Unlock()
		if why == "" {
			why = "the disk had no room; try again"
		}
		if answer, err := json.Marshal(refusedAck(why)); err == nil {
			_ = m.Respond(answer) // it fails only if nobody waits
		}
	})
	return err
}

// refusedAck is the PubAck of JOBS for a message that is not taken.
func refusedAck(why string) any {
	type apiError struct {
		Code        int    `json:"code"`
		ErrCode     int    `json:"err_code"`
		Description string `json:"description"`
	}
	const unavailable, insufficientResources = 503, 10023
	return struct {
		Error  apiError `json:"error"`
		Stream string   `json:"stream"`
		Seq    uint64   `json:"seq"`
	}{apiError{unavailable, insufficientResources, why}, JobsStream, 0}
}

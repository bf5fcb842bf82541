package node

import (
	"cmp"
	"encoding/json"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/jobs/access"
)

// identifier is the broker's way to ask the keyring; nil if there is none.
func identifier(k *access.Keyring) func(broker.Credentials) *access.Principal {
	if k == nil {
		return nil
	}
	return func(c broker.Credentials) *access.Principal {
		token := cmp.Or(c.Password, c.Token)
		if token == "" && c.User == "" {
			return k.Anonymous()
		}
		p, err := k.Identify(cmp.Or(token, c.User), c.From) // a URL may have the token alone, in the user's place
		if err != nil || c.User != "" && token != "" && c.User != p.Name {
			return nil
		}
		return p
	}
}

// answerer is a handler that asks others on a NATS subject.
type answerer interface{ Subject() string }

// maker is a handler that makes jobs. The payload says of which types, and nobody checks
// that of a bare message. So these are for principals that may make all jobs.
type maker interface {
	Targets(payload json.RawMessage) []string
}

// surface is the broker's way to find out what a principal may do with these types.
func surface(r *jobs.Registry) func(*access.Principal) broker.Surface {
	return func(p *access.Principal) broker.Surface {
		var s broker.Surface
		all := true
		s.Types = []string{}
		for _, t := range r.Types() {
			if h, ok := t.Handler.(answerer); ok && p.MayUse(t.Name) {
				s.Answers = append(s.Answers, h.Subject())
			}
			_, makes := t.Handler.(maker)
			switch {
			case t.Internal:
				s.Reserved = append(s.Reserved, t.Name)
			case !p.MayUse(t.Name) || t.Needs != "" && !p.May(t.Needs):
				all = false
			case !makes:
				s.Types = append(s.Types, t.Name)
			}
		}
		if all && p.Types == nil {
			s.Types = nil // also those that are no types, whose jobs fail with a reason
		}
		return s
	}
}

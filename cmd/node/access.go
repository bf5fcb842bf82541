package node

import (
	"cmp"

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
		p := k.Identify(cmp.Or(token, c.User)) // a URL may have the token alone, in the user's place
		if p == nil || c.User != "" && token != "" && c.User != p.Name {
			return nil
		}
		return p
	}
}

// answerer is a handler that asks others on a NATS subject.
type answerer interface{ Subject() string }

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
			if t.Internal {
				continue
			}
			if p.MayUse(t.Name) && (t.Needs == "" || p.May(t.Needs)) {
				s.Types = append(s.Types, t.Name)
			} else {
				all = false
			}
		}
		if all && p.Types == nil {
			s.Types = nil // also those that are no types, whose jobs fail with a reason
		}
		return s
	}
}

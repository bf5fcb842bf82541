package httpapi

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/access"
)

// everybody may do everything, on a server without a keyring.
var everybody = &access.Principal{Name: access.Anonymous, Scopes: []access.Scope{access.Admin}}

// identify returns whom a request is by. A token that is not valid is an error also where
// none is needed: its holder relies on rights that it does not have.
func (s *Server) identify(r *http.Request) (*access.Principal, error) {
	given := r.Header["Authorization"]
	if p := passedOn(r); p != nil {
		return p.Principal, nil
	}
	switch {
	case s.keyring == nil:
		return everybody, nil
	case len(given) == 0:
		if p := s.keyring.Anonymous(); p != nil {
			return p, nil
		}
		return nil, &jobs.Error{Kind: jobs.Unauthorized, Detail: "a token is needed: send the header Authorization: Bearer TOKEN"}
	case len(given) == 1:
		if scheme, token, ok := strings.Cut(given[0], " "); ok && strings.EqualFold(scheme, "Bearer") {
			p, err := s.keyring.Identify(strings.TrimSpace(token), remote(r))
			return p, refusal(err)
		}
	}
	return nil, &jobs.Error{Kind: jobs.Unauthorized, Detail: "the header Authorization must be Bearer and a token"}
}

// refusal is the error of a login; nil if there is none.
func refusal(err error) error {
	var r *access.Refusal
	if !errors.As(err, &r) {
		return err
	}
	kind := jobs.Unauthorized
	switch r.Kind {
	case access.TooMany:
		kind = jobs.TooMany
	case access.NotYet:
		kind = jobs.Unavailable
	}
	return &jobs.Error{Kind: kind, Detail: r.Why, RetryAfter: r.Again}
}

// remote is the address that a request comes from.
func remote(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddrPort(r.RemoteAddr)
	return a.Addr()
}

// challenge is the header that goes with every 401 (RFC 6750).
var challenge = []string{`Bearer realm="jobstream"`}

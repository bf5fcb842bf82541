package httpapi

import (
	"net/http"
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
			if p := s.keyring.Identify(strings.TrimSpace(token)); p != nil {
				return p, nil
			}
			return nil, &jobs.Error{Kind: jobs.Unauthorized, Detail: "the token is unknown, or has expired"}
		}
	}
	return nil, &jobs.Error{Kind: jobs.Unauthorized, Detail: "the header Authorization must be Bearer and a token"}
}

// challenge is the header that goes with every 401 (RFC 6750).
var challenge = []string{`Bearer realm="jobstream"`}

// Package signed verifies tokens that an identity provider has signed: JWTs (RFC 7519).
// Start at [New]. The provider's keys are a JSON Web Key Set (RFC 7517), which comes from
// a file ([Verifier.Use]) or an address ([Verifier.Fetch]).
package signed

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"jobstream/jobs/access"
)

// Options say which tokens count. All texts are required.
type Options struct {
	Issuer   string // the claim iss of every token
	Audience string // one of its claim aud
	Scopes   string // the name of the claim with its scopes
	Logger   *slog.Logger
}

// Verifier is an [access.Verifier].
type Verifier struct {
	o      Options
	parser *jwt.Parser
	keys   atomic.Pointer[keySet] // nil: there have been none so far

	fetch    *fetcher   // nil: the keys come from a file
	mu       sync.Mutex // for the rest
	revoked  func(names ...string)
	admitted map[admission]time.Time // until when
	prune    int                     // how many may be there before the expired ones are dropped
}

// admission is that of a principal by a key.
type admission struct{ name, key string }

const (
	maxToken = 16 << 10 // bytes of a token
	leeway   = 30 * time.Second

	typesClaim = "types" // the job types that the token may submit and work on
	minPrune   = 1024
)

// algorithms are those that count: signatures by a private key that only the provider has.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// New makes a verifier, which has no keys yet.
func New(o Options) *Verifier {
	return &Verifier{
		o: o, admitted: make(map[admission]time.Time), prune: minPrune,
		parser: jwt.NewParser(jwt.WithValidMethods(algorithms), jwt.WithIssuer(o.Issuer), jwt.WithAudience(o.Audience),
			jwt.WithExpirationRequired(), jwt.WithLeeway(leeway)),
	}
}

// Verify returns the principal of a token.
func (v *Verifier) Verify(token string) (*access.Principal, error) {
	if len(token) > maxToken {
		return nil, &access.Refusal{Why: "the JWT is too long"}
	}
	keys := v.keys.Load()
	if keys == nil {
		return nil, notYet()
	}
	p, key, err := v.verify(keys, token)
	if errors.Is(err, errUnknownKey) && v.fetch != nil {
		if err := v.fetch.again(); err != nil {
			return nil, err
		}
		p, key, err = v.verify(v.keys.Load(), token)
	}
	if err != nil {
		return nil, &access.Refusal{Why: reason(err)}
	}
	if !v.admit(admission{p.Name, key}, p.Expires) {
		return nil, &access.Refusal{Why: reason(errUnknownKey)}
	}
	return p, nil
}

func notYet() *access.Refusal {
	return &access.Refusal{Kind: access.NotYet, Why: "the keys of the tokens' issuer are not known yet; try again later", Again: retryFirst}
}

// verify returns the principal of a token, and the key that has signed it.
func (v *Verifier) verify(keys *keySet, token string) (*access.Principal, string, error) {
	claims := make(jwt.MapClaims)
	var key string
	t, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if _, critical := t.Header["crit"]; critical {
			return nil, errCritical
		}
		signer, name, err := keys.of(t)
		key = name
		return signer, err
	})
	if err != nil {
		return nil, "", err
	}
	p, err := v.principal(t.Claims)
	return p, key, err
}

var (
	errUnknownKey = errors.New("it is signed by a key that the issuer does not publish")
	errCritical   = errors.New("it has an extension that is not understood")
	errSubject    = errors.New("it has no subject (sub)")
	errTypes      = errors.New("its claim " + typesClaim + " is not a list of texts")
)

// reason says what is wrong with a token, and nothing of what is in it.
func reason(err error) string {
	for _, known := range []error{
		errUnknownKey, errCritical, errSubject, errTypes,
		jwt.ErrTokenExpired, jwt.ErrTokenNotValidYet, jwt.ErrTokenInvalidIssuer, jwt.ErrTokenInvalidAudience, jwt.ErrTokenRequiredClaimMissing, jwt.ErrTokenSignatureInvalid,
	} {
		if errors.Is(err, known) {
			return "the JWT cannot be used: " + known.Error()
		}
	}
	return "the token is unknown, or has expired"
}

// principal reads the claims of a token whose signature is right.
func (v *Verifier) principal(c jwt.Claims) (*access.Principal, error) {
	claims, _ := c.(jwt.MapClaims)
	subject, err := claims.GetSubject()
	if err != nil || subject == "" {
		return nil, errSubject
	}
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return nil, jwt.ErrTokenRequiredClaimMissing
	}
	p := &access.Principal{Name: access.NameOf(subject), Expires: expires.Time}
	named, _ := texts(claims[v.o.Scopes])
	for _, s := range access.Scopes() {
		if slices.Contains(named, string(s)) {
			p.Scopes = append(p.Scopes, s)
		}
	}
	slices.Sort(p.Scopes)
	if given, limited := claims[typesClaim]; limited {
		types, ok := texts(given)
		if !ok {
			return nil, errTypes
		}
		slices.Sort(types)
		p.Types = append([]string{}, slices.Compact(types)...)
	}
	return p, nil
}

// texts reads a claim that is a list of texts, or one with spaces between them.
func texts(claim any) ([]string, bool) {
	if s, ok := claim.(string); ok {
		return strings.Fields(s), true
	}
	list, ok := claim.([]any)
	var all []string
	for _, e := range list {
		s, text := e.(string)
		if !text {
			return nil, false
		}
		all = append(all, s)
	}
	return all, ok
}

// admit remembers who was admitted by which key, unless the key is no more.
func (v *Verifier) admit(a admission, until time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.keys.Load().has(a.key) {
		return false
	}
	if until.After(v.admitted[a]) {
		v.admitted[a] = until
	}
	if len(v.admitted) > v.prune {
		for a, until := range v.admitted {
			if time.Now().After(until) {
				delete(v.admitted, a)
			}
		}
		v.prune = max(minPrune, 2*len(v.admitted))
	}
	return true
}

// Use replaces the keys by those of a JSON Web Key Set.
func (v *Verifier) Use(ctx context.Context, set []byte) error {
	next, err := parse(ctx, set)
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.keys.Store(next)
	gone := make(map[string]bool)
	for a := range v.admitted {
		if !next.has(a.key) {
			gone[a.name] = true
			delete(v.admitted, a)
		}
	}
	revoked := v.revoked
	v.mu.Unlock()
	if revoked != nil && len(gone) > 0 {
		revoked(slices.Sorted(maps.Keys(gone))...)
	}
	return nil
}

// OnRevoke has f called with the names of principals that were admitted by a key that is
// no more. Their connections have to be closed.
func (v *Verifier) OnRevoke(f func(names ...string)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.revoked = f
}

var _ access.Verifier = (*Verifier)(nil)

package access

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Token is what a server knows of a token: its hash, and whose it is.
type Token struct {
	Hash Hash
	Principal
}

// Keyring finds out who a client is. Its tokens may be replaced while it is used. Make one
// with [NewKeyring].
type Keyring struct {
	anonymous *Principal // nil = everybody needs a token
	foreign   Verifier   // nil = there are only tokens
	known     atomic.Pointer[map[Hash]*Principal]

	mu      sync.Mutex // for the rest
	changed []func(name string)
}

// Verifier knows principals whose tokens others have made, such as JWTs.
type Verifier interface {
	// Verify returns the principal of a token; nil if it is not valid.
	Verify(token string) *Principal
}

// NewKeyring makes a keyring. Everybody without a token has the scopes of anonymous; if
// there are none, everybody needs one. The verifier may be nil.
func NewKeyring(anonymous []Scope, tokens []Token, v Verifier) *Keyring {
	k := &Keyring{foreign: v}
	if len(anonymous) > 0 {
		k.anonymous = &Principal{Name: Anonymous, Scopes: anonymous}
	}
	k.Replace(tokens)
	return k
}

// Anonymous is the principal of everybody without a token; nil if everybody needs one.
func (k *Keyring) Anonymous() *Principal { return k.anonymous }

// Identify returns the principal of a token; nil if it is unknown or has expired.
func (k *Keyring) Identify(token string) *Principal {
	// The hash of a guess says nothing about a token's, so looking it up in a map tells
	// nobody how close a guess was.
	p := (*k.known.Load())[HashOf(token)]
	if p == nil && k.foreign != nil && !IsToken(token) {
		p = k.foreign.Verify(token)
	}
	if p == nil || !p.Expires.IsZero() && !time.Now().Before(p.Expires) {
		return nil
	}
	return p
}

// Replace sets the tokens. Whoever has lost one, or a right, is told to the functions of
// [Keyring.OnChange].
func (k *Keyring) Replace(tokens []Token) {
	now := make(map[Hash]*Principal, len(tokens))
	for i := range tokens {
		now[tokens[i].Hash] = &tokens[i].Principal
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.known.Swap(&now)
	if before == nil {
		return
	}
	names := make(map[string]bool)
	for hash, p := range *before {
		if after := now[hash]; after == nil || !after.same(p) {
			names[p.Name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for _, f := range k.changed {
			f(name)
		}
	}
}

// OnChange calls f with the name of each principal whose token or rights have changed. Its
// open connections have to be closed.
func (k *Keyring) OnChange(f func(name string)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changed = append(k.changed, f)
}

func (p *Principal) same(q *Principal) bool {
	return p.Name == q.Name && p.Rights() == q.Rights() && p.Expires.Equal(q.Expires)
}

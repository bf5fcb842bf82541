package access

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Token is what a server knows of a token: its hash, and whose it is.
type Token struct {
	Hash Hash
	Principal
}

// Options are for [NewKeyring].
type Options struct {
	// Anonymous are the scopes of everybody without a token; none = everybody needs one.
	Anonymous []Scope
	Tokens    []Token
	Verifier  Verifier     // of tokens that others have made; nil = there are none
	Logger    *slog.Logger // nil = silence
}

// Verifier knows principals whose tokens others have made, such as JWTs.
type Verifier interface {
	// Verify returns the principal of a token. The error may be a [*Refusal].
	Verify(token string) (*Principal, error)
}

// Keyring finds out who a client is. Its tokens may be replaced while it is used. Make one
// with [NewKeyring].
type Keyring struct {
	anonymous *Principal // nil = everybody needs a token
	foreign   Verifier   // nil = there are only tokens
	known     atomic.Pointer[tokens]
	logins    *logins
	log       *slog.Logger

	mu      sync.Mutex // for the rest
	changed []func(name string)
	logged  time.Time // when a line about failed logins was written last
	refused int       // since then
}

// tokens are those of the configuration.
type tokens struct {
	of    map[Hash]*Principal
	names map[string]bool
}

// NewKeyring makes a keyring.
func NewKeyring(o Options) *Keyring {
	k := &Keyring{foreign: o.Verifier, logins: newLogins(), log: o.Logger}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if len(o.Anonymous) > 0 {
		k.anonymous = &Principal{Name: Anonymous, Scopes: o.Anonymous}
	}
	k.Replace(o.Tokens)
	return k
}

// Anonymous is the principal of everybody without a token; nil if everybody needs one.
func (k *Keyring) Anonymous() *Principal { return k.anonymous }

// Identify returns the principal of a token that came from an address. The zero address is
// that of this process. The error is a [*Refusal].
func (k *Keyring) Identify(token string, from netip.Addr) (*Principal, error) {
	p, err := k.find(token)
	var wait time.Duration
	switch {
	case err == nil && p.guessable:
		wait = k.logins.admit(from, HashOf(token))
	case err != nil && err.Kind == Unknown:
		wait = k.logins.failed(from)
	}
	if wait > 0 {
		err = k.tooMany(from, wait)
	}
	if err != nil {
		return nil, err
	}
	return p.Principal, nil
}

// found is the principal of a token.
type found struct {
	*Principal
	guessable bool // somebody may have thought the token up
}

// find returns whose a token is.
func (k *Keyring) find(token string) (p found, err *Refusal) {
	known := k.known.Load()
	// The hash of a guess says nothing about a token's, so looking it up in a map tells
	// nobody how close a guess was.
	p.Principal = known.of[HashOf(token)]
	p.guessable = p.Principal != nil && !IsToken(token)
	if p.Principal == nil && k.foreign != nil && strings.Count(token, ".") == 2 {
		var wrong error
		if p.Principal, wrong = k.foreign.Verify(token); wrong != nil {
			return p, asRefusal(wrong)
		}
		if known.names[p.Name] {
			return p, &Refusal{Why: "the JWT's subject has the name of a token in the configuration, so it cannot be used; rename one of them"}
		}
	}
	if p.Principal == nil || !p.Expires.IsZero() && !time.Now().Before(p.Expires) {
		return p, &Refusal{Why: "the token is unknown, or has expired"}
	}
	return p, nil
}

func asRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Why: err.Error()}
}

// refusedAgain is the least time between two lines of the log about failed logins.
const refusedAgain = 10 * time.Second

// tooMany refuses an address that has failed too often.
func (k *Keyring) tooMany(from netip.Addr, wait time.Duration) *Refusal {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refused++
	if now := time.Now(); now.Sub(k.logged) >= refusedAgain {
		k.log.Warn("too many logins have failed; more from the same address are refused for a while", "last", from, "refused", k.refused)
		k.logged, k.refused = now, 0
	}
	return &Refusal{Kind: TooMany, Why: "too many logins from this address have failed; try again later", Again: wait}
}

// Replace sets the tokens. Whoever has lost one, or a right, is told to the functions of
// [Keyring.OnChange]. So is whoever had the name of a new one, by a token of others.
func (k *Keyring) Replace(all []Token) {
	now := &tokens{of: make(map[Hash]*Principal, len(all)), names: make(map[string]bool, len(all))}
	for i := range all {
		now.of[all[i].Hash] = &all[i].Principal
		now.names[all[i].Name] = true
	}
	before := k.known.Swap(now)
	if before == nil {
		return
	}
	gone := make(map[string]bool)
	for hash, p := range before.of {
		if after := now.of[hash]; after == nil || !after.same(p) {
			gone[p.Name] = true
		}
	}
	for name := range now.names {
		if !before.names[name] {
			gone[name] = true
		}
	}
	k.Revoke(slices.Sorted(maps.Keys(gone))...)
}

// Revoke tells the functions of [Keyring.OnChange] that these principals have lost
// something.
func (k *Keyring) Revoke(names ...string) {
	k.mu.Lock()
	told := slices.Clone(k.changed)
	k.mu.Unlock()
	for _, name := range names {
		for _, f := range told {
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

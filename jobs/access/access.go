// Package access says who may do what: principals, and the scopes that they have. Start
// at [Principal]. The doors find out who a client is; the operations say which scope they
// need.
package access

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Scope is a right of principals. No scope includes another, except [Admin], which has
// all.
type Scope string

// The scopes.
const (
	Submit Scope = "submit" // makes jobs
	Read   Scope = "read"   // looks at anything
	Manage Scope = "manage" // changes jobs, types, workers and schedules
	Work   Scope = "work"   // runs jobs under leases, and answers requests of run: nats
	Admin  Scope = "admin"  // all of these, and the streams themselves
)

// Scopes lists all scopes.
func Scopes() []Scope { return []Scope{Submit, Read, Manage, Work, Admin} }

// Principal is somebody who uses the server.
type Principal struct {
	Name string
	// Scopes are its rights.
	Scopes []Scope
	// Types are the job types that it may submit and work on; nil = all.
	Types []string
	// Expires is when its rights end; zero = never.
	Expires time.Time
	// Member says that it is a member of the cluster itself. Nobody from outside is.
	Member bool
}

// Names that no token of the configuration has.
const (
	Anonymous = "anonymous" // everybody without a token
	Operator  = "operator"  // whoever may read the data folder
)

// ValidName reports whether a token or a worker's owner may have this name.
func ValidName(name string) bool {
	if name == "" || len(name) > MaxName || name == Anonymous || name == Operator {
		return false
	}
	for _, c := range []byte(name) {
		if !nameByte(c) {
			return false
		}
	}
	return true
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

const (
	mapped     = "sub-" // begins the names that NameOf has made
	mappedText = 32     // bytes of a subject that such a name shows
	mappedHash = 20     // bytes of the hash that tells it from all others
)

// NameOf is the name of a principal whose tokens others make, by the subject in them. It
// is the subject itself if that can be a name. Any other subject becomes one that shows
// its beginning, and has a hash of the whole, so that no two subjects share a name.
func NameOf(subject string) string {
	if ValidName(subject) && !strings.HasPrefix(subject, mapped) {
		return subject
	}
	text := []byte(subject)
	text = text[:min(len(text), mappedText)]
	for i, c := range text {
		if !nameByte(c) {
			text[i] = '_'
		}
	}
	sum := sha256.Sum256([]byte(subject))
	return mapped + string(text) + "-" + base64.RawURLEncoding.EncodeToString(sum[:mappedHash])
}

// MaxName is the most bytes of a principal's name.
const MaxName = 64

// May reports whether the principal has a scope.
func (p *Principal) May(s Scope) bool {
	return slices.Contains(p.Scopes, s) || slices.Contains(p.Scopes, Admin)
}

// Rights identifies the scopes and types of the principal, and whatever else counts. No two
// sets of rights have the same, since it is a hash that nobody can steer.
func (p *Principal) Rights(more ...string) string {
	h := sha256.New()
	put := func(what string, all ...string) {
		_, _ = fmt.Fprintf(h, "%s %d %q;", what, len(all), all) // a hash takes everything
	}
	for _, s := range p.Scopes {
		put("scope", string(s))
	}
	if p.Types != nil {
		put("types", p.Types...)
	}
	put("more", more...)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// MayUse reports whether the principal may submit jobs of a type, or work on them.
func (p *Principal) MayUse(typ string) bool { return p.Types == nil || slices.Contains(p.Types, typ) }

// Loopback says whether a host, which is a name or an address, is reachable from this
// machine only.
func Loopback(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

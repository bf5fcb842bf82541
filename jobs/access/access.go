// Package access says who may do what: principals, and the scopes that they have. Start
// at [Principal]. The doors find out who a client is; the operations say which scope they
// need.
package access

import (
	"hash/fnv"
	"io"
	"slices"
	"strconv"
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
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// MaxName is the most bytes of a principal's name.
const MaxName = 64

// May reports whether the principal has a scope.
func (p *Principal) May(s Scope) bool {
	return slices.Contains(p.Scopes, s) || slices.Contains(p.Scopes, Admin)
}

// Rights identifies the scopes and types of the principal, and whatever else counts.
func (p *Principal) Rights(more ...string) string {
	h := fnv.New64a()
	for _, s := range p.Scopes {
		_, _ = io.WriteString(h, string(s)+" ")
	}
	for _, t := range p.Types {
		_, _ = io.WriteString(h, "/"+t)
	}
	for _, s := range more {
		_, _ = io.WriteString(h, " "+s)
	}
	return strconv.FormatUint(h.Sum64(), 36)
}

// MayUse reports whether the principal may submit jobs of a type, or work on them.
func (p *Principal) MayUse(typ string) bool { return p.Types == nil || slices.Contains(p.Types, typ) }

package access

import (
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Refusal is the error of a login.
type Refusal struct {
	Kind RefusalKind
	Why  string // for whoever tries to log in; it has nothing of the token
	// Again is when another try makes sense; 0 = never with this token.
	Again time.Duration
}

// RefusalKind says what kind of refusal it is.
type RefusalKind int

// The kinds of refusals.
const (
	Unknown RefusalKind = iota // the token is not valid
	TooMany                    // too many logins from there have failed
	NotYet                     // it cannot be decided now
)

func (r *Refusal) Error() string { return r.Why }

// An address may fail so many times at once, and then once in every failEvery.
const (
	failBurst = 20
	failEvery = 3 * time.Second

	maxSources = 10_000 // addresses that are remembered; beyond that the one not seen for longest is forgotten
	maxUsed    = 16     // tokens that are remembered for each
)

// logins bound how fast tokens can be guessed from an address. Nobody guesses a token that
// [NewToken] has made, or a signature, so those always count. A token that somebody has
// thought up does not count while its address fails too often, unless it has been used
// from there before. Otherwise a guess that is right would be told from one that is not.
type logins struct {
	mu      sync.Mutex
	sources map[netip.Prefix]*list.Element
	recent  *list.List // of *source; the front is the last one seen
}

// source is an address that has failed, or has used a token that can be guessed.
type source struct {
	at    netip.Prefix
	fails *rate.Limiter
	used  []Hash // of tokens that can be guessed and were right
}

func newLogins() *logins {
	return &logins{sources: make(map[netip.Prefix]*list.Element), recent: list.New()}
}

// at returns what is known of an address. A whole /64 of IPv6 is one, since a client
// chooses the rest by itself. The caller holds mu.
func (l *logins) at(from netip.Addr) *source {
	from = from.Unmap().WithZone("")
	bits := 32
	if from.Is6() {
		bits = 64
	}
	p, _ := from.Prefix(bits)
	if e := l.sources[p]; e != nil {
		l.recent.MoveToFront(e)
		return e.Value.(*source)
	}
	if len(l.sources) >= maxSources {
		last := l.recent.Back()
		delete(l.sources, l.recent.Remove(last).(*source).at)
	}
	s := &source{at: p, fails: rate.NewLimiter(rate.Every(failEvery), failBurst)}
	l.sources[p] = l.recent.PushFront(s)
	return s
}

// failed counts a login that has failed, and returns how long to wait if there were too
// many. An invalid address is that of this process.
func (l *logins) failed(from netip.Addr) (wait time.Duration) {
	if !from.IsValid() {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.at(from)
	if s.fails.Allow() {
		return 0
	}
	return s.wait()
}

// admit returns how long to wait before this token, which is right but can be guessed,
// counts from there.
func (l *logins) admit(from netip.Addr, h Hash) (wait time.Duration) {
	if !from.IsValid() {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.at(from)
	switch {
	case slices.Contains(s.used, h):
		return 0
	case s.fails.Tokens() < 1:
		return s.wait()
	case len(s.used) == maxUsed:
		s.used = s.used[1:]
	}
	s.used = append(s.used, h)
	return 0
}

// wait is how long it takes until the address may fail again.
func (s *source) wait() time.Duration {
	missing := 1 - s.fails.Tokens()
	return max(time.Second, time.Duration(missing*float64(failEvery)))
}

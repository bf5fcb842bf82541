package httpapi

import (
	"context"
	"net/http"
	"sync"

	"jobstream/jobs"
)

// sessions end the waits of principals that lose their token or a right. A request that
// does not wait is over before that matters. mu guards the map and the counts.
type sessions struct {
	mu   sync.Mutex
	open map[string]*session // by the name of the principal
}

// session is that of the waiting requests of a principal.
type session struct {
	ctx   context.Context // ends with the token
	end   context.CancelFunc
	calls int
}

func newSessions() *sessions { return &sessions{open: make(map[string]*session)} }

// join returns a context that ends when the principal loses its token or a right. The
// caller must then check that it still has them, and call leave in the end.
func (s *sessions) join(name string) (ctx context.Context, leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.open[name]
	if x == nil {
		x = new(session)
		x.ctx, x.end = context.WithCancel(context.Background())
		s.open[name] = x
	}
	x.calls++
	return x.ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if x.calls--; x.calls > 0 {
			return
		}
		x.end()
		if s.open[name] == x {
			delete(s.open, name)
		}
	}
}

// end ends the waits of a principal.
func (s *sessions) end(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.open[name]; x != nil {
		x.end()
		delete(s.open, name)
	}
}

// join has the request end with its token. A call without a keyring has none.
func (k *call) join() error {
	if k.s.keyring == nil || k.session != nil {
		return nil
	}
	ctx, leave := k.s.sessions.join(k.who.Name)
	who, err := k.s.identify(k.Request())
	if err == nil && who.Rights() != k.who.Rights() {
		err = errRevoked
	}
	if err != nil {
		leave()
		return err
	}
	k.session = ctx
	stop := context.CancelFunc(func() {})
	if !who.Expires.IsZero() {
		k.session, stop = context.WithDeadline(ctx, who.Expires)
	}
	k.leaveSession = func() { stop(); leave() }
	return nil
}

// bind is join for a request that reads or writes for long. When it loses its token, cut
// ends what it is at.
func (k *call) bind(cut func()) error {
	if err := k.join(); err != nil || k.session == nil {
		return err
	}
	stop, leave := context.AfterFunc(k.session, cut), k.leaveSession
	k.leaveSession = func() { stop(); leave() }
	return nil
}

// depart ends what join has begun.
func (k *call) depart() {
	if k.session != nil {
		k.leaveSession()
	}
}

// revoked is the error of a request that has outlived its token.
func (k *call) revoked() error {
	if k.session != nil && k.session.Err() != nil {
		return errRevoked
	}
	return nil
}

var errRevoked = &jobs.Error{Kind: jobs.Unauthorized, Detail: "the token has lost its rights, or has expired, while the request lasted"}

// cutOff ends an answer that has begun, so that its client sees that it is not whole.
func cutOff() { panic(http.ErrAbortHandler) }

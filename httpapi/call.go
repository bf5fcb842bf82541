package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs"
)

// Bounds are how much a server does at a time; 0 stands for the default. What is
// beyond is answered with 503, and probes are always answered.
type Bounds struct {
	Calls  int           // requests that are worked on; more wait for Line. Those that wait for a job, send a file, or still come in do not count
	Line   time.Duration // how long a request waits for its turn
	Waits  int           // requests that wait for a job to end
	Bodies int64         // bytes of all requests' bodies
}

const (
	defaultCalls  = 256
	defaultLine   = 5 * time.Second
	defaultWaits  = 10_000
	defaultBodies = 64 << 20
)

// orDefault fills in what b leaves open, for a door of so many connections (0 =
// no bound): those who wait must leave some for others.
func (b Bounds) orDefault(conns int) Bounds {
	if b.Calls <= 0 {
		b.Calls = defaultCalls
	}
	if b.Line <= 0 {
		b.Line = defaultLine
	}
	if b.Waits <= 0 {
		b.Waits = defaultWaits
	}
	if b.Bodies <= 0 {
		b.Bodies = defaultBodies
	}
	if conns > 0 {
		b.Waits = min(b.Waits, max(1, conns-conns/8))
	}
	return b
}

// call is one request, with what it holds of what the server bounds.
type call struct {
	echo.Context
	s     *Server
	place chan struct{} // where it has a place: nil, s.calls or s.waits
	bytes int64         // of its body, counted in s.bodies
}

// callOf is the request of c, which around has made one.
func callOf(c echo.Context) *call {
	k, ok := c.(*call)
	if !ok {
		panic("httpapi: a handler was called without around")
	}
	return k
}

func unavailable(format string, args ...any) error {
	return &jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: fmt.Sprintf(format, args...)}
}

// enter takes a place among the requests that are worked on, in the order in
// which they come.
func (k *call) enter() error {
	if k.place != nil {
		return nil
	}
	select {
	case k.s.calls <- struct{}{}:
		k.place = k.s.calls
		return nil
	default:
	}
	patience := time.NewTimer(k.s.bounds.Line)
	defer patience.Stop()
	select {
	case k.s.calls <- struct{}{}:
		k.place = k.s.calls
		return nil
	case <-k.Request().Context().Done():
		return k.Request().Context().Err()
	case <-patience.C:
		return unavailable("%d requests are being answered, and none of them ended in %s; try again later", k.s.bounds.Calls, k.s.bounds.Line)
	}
}

// leave gives the place up.
func (k *call) leave() {
	if k.place != nil {
		<-k.place
		k.place = nil
	}
}

// wait gives the place up for one among those that wait. Its handler must not
// keep the body meanwhile, for it does not count any more.
func (k *call) wait() error {
	select {
	case k.s.waits <- struct{}{}:
	default:
		return unavailable("%d requests are waiting for jobs already; try again later, or look without waiting", k.s.bounds.Waits)
	}
	k.end()
	k.place = k.s.waits
	return nil
}

// hold counts n more bytes of the body.
func (k *call) hold(n int64) error {
	if k.s.bodies.Add(n) > k.s.bounds.Bodies {
		k.s.bodies.Add(-n)
		k.Response().Header().Set("Connection", "close") // rather than read on
		return unavailable("requests of %d bytes are coming in already; try again later", k.s.bounds.Bodies)
	}
	k.bytes += n
	return nil
}

// end gives up all that the request holds.
func (k *call) end() {
	k.leave()
	k.s.bodies.Add(-k.bytes)
	k.bytes = 0
}

// held is the body of a request that counts what comes in.
type held struct {
	io.Reader
	k *call
}

func (h held) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if over := h.k.hold(int64(n)); over != nil {
		return 0, over
	}
	return n, err
}

// reads says whether a request's method asks for something and has no body.
func reads(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

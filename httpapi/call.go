package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/api"
)

// Bounds limit how much a server does at a time; 0 stands for the default. Requests
// beyond them are answered with 503. Probes are always answered.
type Bounds struct {
	Calls  int           // requests that are worked on; those that wait for a job, send a file, or still arrive do not count
	Line   time.Duration // how long a request beyond that waits for its place
	Waits  int           // requests that wait for a job to end
	Bodies int64         // bytes of all requests' bodies

	Uploads int           // files that are uploaded
	Idle    time.Duration // of an upload: how long nothing may come
}

const (
	defaultCalls  = 256
	defaultLine   = 5 * time.Second
	defaultWaits  = 10_000
	defaultBodies = 64 << 20

	defaultUploads = 256
)

// orDefault fills in the zero values, for a door with so many connections (0 = no
// bound). Requests that wait must leave some of those to others.
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
	if b.Uploads <= 0 {
		b.Uploads = defaultUploads
	}
	if b.Idle <= 0 {
		b.Idle = readTimeout
	}
	if conns > 0 {
		b.Uploads = min(b.Uploads, max(1, conns/2))
		b.Waits = min(b.Waits, max(1, conns-conns/8))
	}
	return b
}

// call is one request, with its share of the things that the server bounds. It is an
// [api.Request]. Only the goroutine of the request uses it.
type call struct {
	echo.Context
	s     *Server
	who   *access.Principal
	place chan struct{} // where it has a place: nil, s.calls, s.waits or s.uploads
	// backend is what the request is done with in a cluster; nil = what stands behind the
	// door when it has been read.
	backend *api.Backend
	bytes   int64 // of its body, counted in s.bodies

	answered func(status int, took time.Duration, waited bool) // counts the answer

	session      context.Context // of a request that waits: it ends with its token
	leaveSession func()          // set with session
}

// callOf is the call that around has made of the request.
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

// enter gets a place among the requests that are worked on, in the order in which they
// come.
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

// wait exchanges the place for one among those that wait. The body no longer counts,
// so nobody may keep it meanwhile.
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

// count counts n more bytes of the body.
func (k *call) count(n int64) error {
	if k.s.bodies.Add(n) > k.s.bounds.Bodies {
		k.s.bodies.Add(-n)
		k.Response().Header().Set("Connection", "close") // rather than read on
		return unavailable("requests of %d bytes are coming in already; try again later", k.s.bounds.Bodies)
	}
	k.bytes += n
	return nil
}

// end gives everything back.
func (k *call) end() {
	k.leave()
	k.s.bodies.Add(-k.bytes)
	k.bytes = 0
}

// counted is the body of a request that counts its bytes as they arrive.
type counted struct {
	io.Reader
	k *call
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if over := c.k.count(int64(n)); over != nil {
		return 0, over
	}
	return n, err
}

// reads reports whether a request only reads, and so has no body.
func reads(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

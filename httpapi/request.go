package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// A call is an [api.Request] by these methods, and Param of Echo.

// Backend stands behind the door now.
func (k *call) Backend() *api.Backend {
	if k.backend != nil {
		return k.backend
	}
	return k.s.in().backend
}

// Caller is whom the request is by, as identify has found out.
func (k *call) Caller() api.Caller {
	c := api.CallerOf(k.who, "http")
	if p := passedOn(k.Request()); p != nil {
		c.JobID = p.Job
	}
	return c
}

// drainRetry is when a refused client should try again while this process stops. By
// then its successor may be there.
const drainRetry = 10 * time.Second

// Admits returns an error while the server stops.
func (k *call) Admits() error {
	if k.s.draining.Load() {
		return &jobs.Error{Kind: jobs.ShuttingDown, Detail: "the server is stopping and takes no more jobs", RetryAfter: drainRetry}
	}
	return nil
}

// Query reads the query of the URL.
func (k *call) Query() (url.Values, error) {
	raw := k.Request().URL.RawQuery
	if raw == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, jobs.Invalid("query", "cannot be read: "+err.Error())
	}
	return values, nil
}

// Header returns the values of a header, whose name has the spelling of net/http.
func (k *call) Header(name string) []string { return k.Request().Header[name] }

// Patience is the wait of the header Prefer.
func (k *call) Patience() time.Duration {
	if fields := k.Request().Header["Prefer"]; len(fields) > 0 {
		return preferredWait(fields)
	}
	return 0
}

// Param is a parameter of the path. Echo leaves the escapes in it if the client has not
// escaped the path like Go: many do not escape parentheses. Only names of files have
// characters that need escapes.
func (k *call) Param(name string) string {
	value := k.Context.Param(name)
	if name == "name" && k.Request().URL.RawPath != "" {
		if plain, err := url.PathUnescape(value); err == nil {
			return plain
		}
	}
	return value
}

// Wait exchanges the place of the request for one among those that wait. The context
// ends after d, when the server drains, or when the caller loses its token.
func (k *call) Wait(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc, error) {
	if err := k.join(); err != nil {
		return nil, nil, err
	}
	if err := k.wait(); err != nil {
		return nil, nil, err
	}
	// the bound on answers is for clients that take them slowly, not for the reverse
	_ = http.NewResponseController(k.Response().Writer).SetWriteDeadline(time.Now().Add(d + writeTimeout)) // not all writers have one
	ctx, cancel := context.WithTimeout(ctx, d)
	forget := context.AfterFunc(k.s.open, cancel)
	if k.session == nil {
		return ctx, func() { forget(); cancel() }, nil
	}
	stay := context.AfterFunc(k.session, cancel)
	return ctx, func() { stay(); forget(); cancel() }, nil
}

// Gone says that the client has closed its connection, or has lost its token.
func (k *call) Gone() bool { return k.Request().Context().Err() != nil || k.revoked() != nil }

// trusted is how much memory a request gets by its Content-Length alone. Beyond that,
// memory grows with the bytes that really arrive.
const trusted = 64 << 10

// Body reads the whole body of the request, and then waits until the request may be
// worked on. The bytes belong to the caller: payloads are slices of them and outlive
// the request.
func (k *call) Body() ([]byte, error) {
	b, err := k.read()
	if err == nil {
		err = k.enter()
	}
	return b, err
}

// read reads the whole body.
func (k *call) read() ([]byte, error) {
	s, r, w := k.s, k.Request(), k.Response().Writer
	if err := plainEncoding(r.Header); err != nil {
		return nil, err
	}
	n := r.ContentLength
	switch {
	case n > s.maxBody:
		w.Header().Set("Connection", "close") // rather than read on
		return nil, s.tooLarge()
	case n >= 0 && n <= trusted:
		if err := k.count(n); err != nil {
			return nil, err
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r.Body, b); err != nil {
			return nil, unread(err)
		}
		return b, nil
	}
	var buf bytes.Buffer
	_, err := buf.ReadFrom(counted{http.MaxBytesReader(w, r.Body, s.maxBody), k})
	var over *http.MaxBytesError
	var busy *jobs.Error
	switch {
	case errors.As(err, &over):
		return nil, s.tooLarge()
	case errors.As(err, &busy):
		return nil, busy
	case err != nil:
		return nil, unread(err)
	case buf.Cap() > buf.Len()+buf.Len()/4:
		return bytes.Clone(buf.Bytes()), nil // a waiting job should not keep the slack
	}
	return buf.Bytes(), nil
}

// tooLarge is the error for a body beyond server.max_body.
func (s *Server) tooLarge() error {
	return &jobs.Error{Kind: jobs.PayloadTooLarge, Detail: fmt.Sprintf("the body is larger than %d bytes (server.max_body)", s.maxBody)}
}

// unread is the error for a body that did not arrive whole.
func unread(err error) error {
	return &jobs.Error{Kind: jobs.MalformedJSON, Detail: "the body could not be read to its end: " + err.Error()}
}

// plainEncoding refuses compressed bodies.
func plainEncoding(h http.Header) error {
	for _, v := range h["Content-Encoding"] {
		if v != "" && !strings.EqualFold(v, "identity") {
			return jobs.Invalid("header/Content-Encoding", "must be identity or absent; send the body uncompressed")
		}
	}
	return nil
}

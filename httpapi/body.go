package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"jobstream/jobs"
)

// trusted is how much memory a request gets on the word of its Content-Length
// alone; beyond that, memory follows what really arrives.
const trusted = 64 << 10

// body reads the whole body of a request, which may be worked on from then on.
// The result belongs to the caller: payloads are slices of it and outlive the
// request.
func (s *Server) body(c echo.Context) ([]byte, error) {
	k := callOf(c)
	b, err := s.read(k)
	if err == nil {
		err = k.enter()
	}
	return b, err
}

// read reads the whole body of a request.
func (s *Server) read(k *call) ([]byte, error) {
	r, w := k.Request(), k.Response().Writer
	if err := plainEncoding(r.Header); err != nil {
		return nil, err
	}
	n := r.ContentLength
	switch {
	case n > s.maxBody:
		w.Header().Set("Connection", "close") // rather than read on
		return nil, s.tooLarge()
	case n >= 0 && n <= trusted:
		if err := k.hold(n); err != nil {
			return nil, err
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r.Body, b); err != nil {
			return nil, unread(err)
		}
		return b, nil
	}
	var buf bytes.Buffer
	_, err := buf.ReadFrom(held{http.MaxBytesReader(w, r.Body, s.maxBody), k})
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
		return bytes.Clone(buf.Bytes()), nil // a waiting job should not hold the slack
	}
	return buf.Bytes(), nil
}

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

// noQuery refuses a query where none is known: a parameter that this version
// has no use for must not be taken for one that works.
func noQuery(r *http.Request) error {
	if r.URL.RawQuery == "" {
		return nil
	}
	values, err := query(r)
	if err != nil {
		return err
	}
	var bad []jobs.FieldError
	for name := range values {
		bad = append(bad, jobs.FieldError{Pointer: "query/" + name, Detail: "is not a known parameter; there are none here"})
	}
	if len(bad) == 0 {
		return nil
	}
	slices.SortFunc(bad, func(a, b jobs.FieldError) int { return strings.Compare(a.Pointer, b.Pointer) })
	return jobs.InvalidFields(bad...)
}

// query reads the query of the URL.
func query(r *http.Request) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, jobs.Invalid("query", "cannot be read: "+err.Error())
	}
	return values, nil
}

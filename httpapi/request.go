package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"jobstream/jobs"
)

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

package httpapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"jobstream/jobs"
)

// slowestUpload is the least average speed of an upload, in bytes per second. A slower one
// is cut, once it has used up readTimeout as well.
const slowestUpload = 1 << 10

// storeTimeout is how long it may take to store an upload that is there, and to answer.
const storeTimeout = 10 * time.Minute

// past is a deadline that ends what has it at once.
var past = time.Unix(1, 0)

// restTimeout is how long the rest of an upload that has failed may still come. net/http
// reads some of it after the answer, so that the client gets to see that.
const restTimeout = 5 * time.Second

// Upload is the body of a request whose size only server.max_upload bounds. The time that
// it may take grows with every byte. So a slow client can send a large file, and a silent
// one does not keep its connection.
func (k *call) Upload() (io.Reader, error) {
	s, r := k.s, k.Request()
	if err := plainEncoding(r.Header); err != nil {
		return nil, err
	}
	if r.ContentLength > s.maxUpload {
		k.Response().Header().Set("Connection", "close") // rather than read on
		return nil, s.uploadTooLarge()
	}
	select {
	case s.uploads <- struct{}{}:
		k.place = s.uploads
	default:
		k.Response().Header().Set("Connection", "close")
		return nil, unavailable("%d files are being uploaded already; try again later", s.bounds.Uploads)
	}
	b := &incoming{k: k, control: http.NewResponseController(k.Response().Writer), began: time.Now()}
	return b, k.bind(func() { _ = b.control.SetReadDeadline(past) }) // as below
}

func (s *Server) uploadTooLarge() error {
	return &jobs.Error{Kind: jobs.PayloadTooLarge, Detail: fmt.Sprintf("the file is larger than %d bytes (server.max_upload)", s.maxUpload)}
}

// incoming is the body of an upload.
type incoming struct {
	k       *call
	control *http.ResponseController
	began   time.Time
	size    int64 // what has come so far
}

func (b *incoming) Read(p []byte) (int, error) {
	now := time.Now()
	until := now.Add(b.k.s.bounds.Idle)
	if least := b.began.Add(b.k.s.bounds.Idle + time.Duration(b.size/slowestUpload)*time.Second); least.Before(until) {
		until = least
	}
	_ = b.control.SetReadDeadline(until) // not all readers have one
	_ = b.control.SetWriteDeadline(until.Add(writeTimeout))
	n, err := 0, b.k.revoked() // later than the deadline, which must not replace that of bind
	if err == nil {
		n, err = b.k.Request().Body.Read(p)
	}
	if b.size += int64(n); b.size > b.k.s.maxUpload {
		err = b.k.s.uploadTooLarge()
	}
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{})
		_ = b.control.SetWriteDeadline(time.Now().Add(storeTimeout))
		return n, io.EOF
	}
	_ = b.control.SetReadDeadline(time.Now().Add(restTimeout))
	b.k.Response().Header().Set("Connection", "close")
	return n, b.failed(err)
}

// failed is the reason for the client why its upload was not taken.
func (b *incoming) failed(err error) error {
	if revoked := b.k.revoked(); revoked != nil {
		return revoked
	}
	var known *jobs.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, os.ErrDeadlineExceeded):
		return jobs.Invalid("", fmt.Sprintf("the file was given up after %d bytes: nothing came for %s, or all of it too slowly (less than %d bytes a second)", b.size, b.k.s.bounds.Idle, slowestUpload))
	case b.k.Request().ContentLength >= 0:
		return jobs.Invalid("header/Content-Length", fmt.Sprintf("is %d, but the connection ended after %d bytes", b.k.Request().ContentLength, b.size))
	}
	return jobs.Invalid("", fmt.Sprintf("the file did not come to its end: %v after %d bytes", err, b.size))
}

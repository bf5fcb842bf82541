package httpapi

import (
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// sendList sends a list while it is being read.
func (k *call) sendList(list *api.List) error {
	if k.Request().Method == http.MethodHead {
		return k.headOfList(list)
	}
	l := &listWriter{c: k, list: list, until: time.Now().Add(writeTimeout), buf: []byte(api.OpenListing)}
	found, err := list.Read(k.Request().Context(), l.append)
	if l.err != nil {
		return l.err
	}
	if err != nil {
		if l.sent == 0 {
			return err
		}
		// All that was sent is right, and the next page will get the error.
		k.s.logLate(k, k.Response().Header().Get(requestIDHeader), err)
	}
	return l.end(&found)
}

// headOfList reads one job, which is enough to find errors in the request. It has no
// Content-Length, because that would cost as much as the list.
func (k *call) headOfList(list *api.List) error {
	list.Page.Limit = 1
	if _, err := list.Read(k.Request().Context(), func(*jobs.Job) bool { return true }); err != nil {
		return err
	}
	k.Response().Header()["Content-Type"] = jsonType
	return k.NoContent(http.StatusOK)
}

// A list goes out in pieces. A client that accepts none for so long is given up,
// because only a few lists are read at a time.
const (
	listPiece = 64 << 10 // bytes
	pieceTime = 10 * time.Second
)

// listWriter sends a list while it is being read.
type listWriter struct {
	c     echo.Context
	list  *api.List
	until time.Time
	buf   []byte // not sent yet
	sent  int
	some  bool  // there are jobs
	err   error // of the client
}

// append appends a job, if there is room for it on the page.
func (l *listWriter) append(j *jobs.Job) bool {
	before := len(l.buf)
	l.buf = slices.Grow(l.buf, 640+len(j.Payload)+len(j.Result)) // most jobs, without growing
	if l.some {
		l.buf = append(l.buf, ',')
	}
	l.buf = j.AppendWaiting(l.buf, l.list.Waiting(j))
	if l.some && l.sent+len(l.buf) > jobs.MaxPageBytes {
		l.buf = l.buf[:before]
		return false
	}
	l.some = true
	if len(l.buf) >= listPiece {
		l.flush()
	}
	return l.err == nil
}

// flush sends the buffer.
func (l *listWriter) flush() {
	if l.sent == 0 {
		l.c.Response().Header()["Content-Type"] = jsonType
		l.c.Response().WriteHeader(http.StatusOK)
	}
	control := http.NewResponseController(l.c.Response().Writer)
	for piece := range slices.Chunk(l.buf, listPiece) {
		limit := time.Now().Add(pieceTime)
		if limit.After(l.until) {
			limit = l.until
		}
		_ = control.SetWriteDeadline(limit) // not all writers have one
		if _, l.err = l.c.Response().Write(piece); l.err != nil {
			return
		}
	}
	l.sent += len(l.buf)
	l.buf = l.buf[:0]
}

// end sends the rest. A list that is short enough gets a Content-Length.
func (l *listWriter) end(found *jobs.Listing) error {
	l.buf = append(api.AppendListEnd(l.buf, found), '\n')
	if l.sent == 0 {
		return send(l.c, http.StatusOK, jsonType, l.buf)
	}
	l.flush()
	return l.err
}

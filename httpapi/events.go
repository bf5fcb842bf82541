package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"jobstream/jobs/api"
	"jobstream/jobs/changes"
)

var eventsType = []string{"text/event-stream"}

const (
	eventsBeat = 15 * time.Second // between comments
	// A client comes back after eventsRetry, and after a stop of the server a little later,
	// as all do so then.
	eventsRetry = 2 * time.Second
	eventsStop  = 5 * time.Second
)

// sendChanges sends events until their follower ends, or nobody reads them.
func (k *call) sendChanges(c *api.Changes) error {
	defer c.Done()
	w := k.Response()
	w.Header()["Content-Type"] = eventsType
	w.Header().Set("X-Accel-Buffering", "no") // proxies pass it on at once, too
	w.WriteHeader(http.StatusOK)
	if k.Request().Method == http.MethodHead {
		return nil
	}
	out := http.NewResponseController(w.Writer)
	_ = out.SetReadDeadline(time.Time{}) // nothing more is read but the end of the connection
	write := func(texts ...[]byte) error {
		for _, text := range texts {
			_ = out.SetWriteDeadline(time.Now().Add(pieceTime)) // not all writers have one
			if _, err := w.Write(text); err != nil {
				return err
			}
		}
		return out.Flush()
	}
	beat := time.NewTicker(eventsBeat)
	defer beat.Stop()
	x := c.Follow()
	defer x.Close()
	err := write(retryAfter(eventsRetry), x.Mark())
	for err == nil {
		var texts [][]byte
		texts, err = x.Next(c.Following, beat.C)
		switch {
		case err != nil:
		case len(texts) == 0:
			err = write([]byte(": still here\n"), x.Mark())
		default:
			err = write(texts...)
		}
	}
	if k.Request().Context().Err() == nil {
		_ = write(k.lastEvent(err)) // a client that takes nothing any more is cut off
	}
	return nil
}

// retryAfter says when the client is to come back if the connection ends.
func retryAfter(d time.Duration) []byte { return fmt.Appendf(nil, "retry: %d\n", d.Milliseconds()) }

// lastEvent says why there are no more events.
func (k *call) lastEvent(err error) []byte {
	reason, detail, after := "error", "the events cannot be read", eventsRetry
	switch revoked := k.revoked(); {
	case revoked != nil:
		reason, detail = "unauthorized", errRevoked.Detail
	case k.s.draining.Load() || errors.Is(err, changes.ErrClosed):
		reason, detail = "stopping", changes.ErrClosed.Error()
		after = eventsStop/2 + rand.N(eventsStop) //nolint:gosec // it only spreads them
	case errors.Is(err, changes.ErrSlow):
		reason, detail = "slow", err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		reason, detail = "time", "one request follows for a day at most; come back"
	default:
		k.s.logLate(k, k.Response().Header().Get(requestIDHeader), err)
	}
	said, _ := json.Marshal(map[string]string{"reason": reason, "detail": detail}) // texts are always JSON
	b := append(retryAfter(after), "event: closed\ndata: "...)
	return append(append(b, said...), "\n\n"...)
}

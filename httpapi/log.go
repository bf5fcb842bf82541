package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"jobstream/jobs/api"
	"jobstream/jobs/joblog"
)

var (
	textType   = []string{"text/plain; charset=utf-8"}
	ndjsonType = []string{"application/x-ndjson"}
)

// sendLog sends a log while it is being read. Each entry goes out at once, because
// somebody may be following.
func (k *call) sendLog(l *api.Log) error {
	w := k.Response()
	w.Header()["Content-Type"] = textType
	if l.NDJSON {
		w.Header()["Content-Type"] = ndjsonType
	}
	w.Header().Set("X-Accel-Buffering", "no") // proxies pass it on at once, too
	w.WriteHeader(http.StatusOK)
	if k.Request().Method == http.MethodHead {
		ctx, cancel := context.WithCancel(k.Request().Context())
		cancel()
		_ = l.Read(ctx, func(*joblog.Entry) error { return context.Canceled })
		return nil
	}
	out := http.NewResponseController(w.Writer)
	_ = out.Flush() // the headers; not all writers can
	last, buf := 0, []byte(nil)
	err := l.Read(k.Request().Context(), func(e *joblog.Entry) (err error) {
		buf = buf[:0]
		switch {
		case l.NDJSON:
			if buf, err = json.Marshal(e); err != nil {
				return err
			}
			buf = append(buf, '\n')
		default:
			if last > 0 && e.N > last+1 {
				buf = fmt.Appendf(buf, "… %d lines dropped …\n", e.N-last-1)
			}
			buf = appendLogLine(buf, e)
		}
		last = e.N
		_ = out.SetWriteDeadline(time.Now().Add(pieceTime)) // not all writers have one
		if _, err := w.Write(buf); err != nil {
			return err
		}
		_ = out.Flush()
		return nil
	})
	if k.revoked() != nil {
		cutOff()
	}
	if err != nil {
		k.s.logLate(k, w.Header().Get(requestIDHeader), err)
	}
	return nil
}

// appendLogLine appends an entry as a line of text: its moment, its attempt, its level or
// stream, its text.
func appendLogLine(b []byte, e *joblog.Entry) []byte {
	from := e.Stream
	if from == "" {
		from = string(e.Level)
	}
	return fmt.Appendf(b, "%s %d %-6s %s\n", e.At.Format("2006-01-02T15:04:05.000Z"), e.Attempt, from, e.Text)
}

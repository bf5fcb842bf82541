package httpapi

import (
	"mime"
	"net/http"
	"time"

	"jobstream/jobs/api"
)

// streamPause is how long a client may take for a piece of a stream.
const streamPause = time.Minute

// sendStream sends a file while it is being made. Its length is not known before.
func (k *call) sendStream(s *api.Stream) error {
	defer s.Close()
	w := k.Response()
	out := http.NewResponseController(w.Writer)
	if err := k.bind(func() { _ = out.SetWriteDeadline(past) }); err != nil {
		return err
	}
	w.Header().Set("Content-Type", s.ContentType)
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": s.Name}))
	w.WriteHeader(http.StatusOK)
	if k.Request().Method == http.MethodHead {
		return nil
	}
	err := s.Write(k.Request().Context(), pieces{k, out})
	if err != nil {
		k.s.logLate(k, w.Header().Get(requestIDHeader), err)
	}
	if err != nil || k.revoked() != nil {
		cutOff()
	}
	return nil
}

// pieces gives the client some time for each piece.
type pieces struct {
	k       *call
	control *http.ResponseController
}

func (p pieces) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(streamPause)) // not all writers have one
	if err := p.k.revoked(); err != nil {                       // later than the deadline, which must not replace that of bind
		return 0, err
	}
	return p.k.Response().Write(b)
}

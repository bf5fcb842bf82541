package http

import (
	"bytes"
	"encoding/json"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"testing"
	"time"

	"jobstream/jobs"
)

// BenchmarkHandle is a request with all that an attempt has, beside a plain one.
func BenchmarkHandle(b *testing.B) {
	s := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"ok":true}`)
	}))
	defer s.Close()
	payload := json.RawMessage(`"` + string(bytes.Repeat([]byte("x"), 198)) + `"`)
	b.Run("attempt", func(b *testing.B) {
		o := NewOptions()
		o.URL = s.URL
		o.Check("", func(path, text string) { b.Fatal(path, text) })
		h := New(o, "http://server.test/", nil)
		defer h.CloseIdle()
		j := &jobs.Job{ID: jobs.NewID(), Type: "call", Run: 1, MaxAttempts: 4, Payload: payload}
		b.ReportAllocs()
		for b.Loop() {
			t := jobs.NewTask(j, 1, nil)
			t.Until = time.Now().Add(time.Minute)
			if _, err := h.Handle(b.Context(), t); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plain", func(b *testing.B) {
		c := &nethttp.Client{Transport: &nethttp.Transport{}}
		defer c.CloseIdleConnections()
		b.ReportAllocs()
		for b.Loop() {
			req, err := nethttp.NewRequestWithContext(b.Context(), nethttp.MethodPost, s.URL, bytes.NewReader(payload))
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := c.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}

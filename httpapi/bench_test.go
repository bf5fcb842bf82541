package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"jobstream/httpapi"
	"jobstream/jobs"
)

// instant is a Backend that takes no time, so that a benchmark shows the door's
// own cost.
type instant struct {
	*backend
	job *jobs.Job
}

func (b instant) Submit(context.Context, *jobs.Submission) (*jobs.Job, bool, error) {
	return b.job, false, nil
}

func newInstant(b *testing.B) http.Handler {
	b.Helper()
	m := &jobs.Message{Seq: 42, At: jobs.Now(), ID: jobs.NewID(), Type: "email", Priority: 3, Payload: []byte(`{"to":"user@example.com","subject":"Hello","body":"Test email"}`)}
	back := newBackend()
	return httpapi.New(httpapi.Options{Backend: behind(instant{back, jobs.NewJob(m, back.reg.Lookup("email"), true)})}).Handler()
}

// discard is a ResponseWriter without a connection.
type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// BenchmarkSubmit is a POST /jobs without net/http around it.
func BenchmarkSubmit(b *testing.B) {
	h := newInstant(b)
	body := strings.NewReader(anEmail)
	r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "http://localhost/jobs", body)
	w := discard{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		body.Reset(anEmail)
		clear(w.h)
		h.ServeHTTP(w, r)
	}
}

// BenchmarkSubmitHTTP is a POST /jobs over the loopback, with clients that cost
// little; "bare" is what net/http itself takes for an empty answer.
func BenchmarkSubmitHTTP(b *testing.B) {
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
	})
	for name, h := range map[string]http.Handler{"door": newInstant(b), "bare": bare} {
		b.Run(name, func(b *testing.B) {
			s := httptest.NewServer(h)
			defer s.Close()
			request := fmt.Sprintf("POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(anEmail), anEmail)
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				c, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", s.Listener.Addr().String())
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close() //nolint:errcheck // everything is read
				in := bufio.NewReader(c)
				for pb.Next() {
					if _, err := io.WriteString(c, request); err != nil {
						b.Error(err)
						return
					}
					if err := skipAccepted(in); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

// skipAccepted reads over one answer, which must be a 202.
func skipAccepted(in *bufio.Reader) error {
	length := 0
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 202 ")) {
			return fmt.Errorf("the answer begins with %q", line)
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
		if len(line) == len("\r\n") {
			_, err := in.Discard(length)
			return err
		}
	}
}

package httpapi_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
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

func (b instant) Submit(context.Context, *jobs.Submission) (*jobs.Job, error) { return b.job, nil }

func newInstant(b *testing.B) http.Handler {
	b.Helper()
	m := &jobs.Message{Seq: 42, At: jobs.Now(), ID: jobs.NewID(), Type: "email", Priority: 3, Payload: []byte(`{"to":"user@example.com","subject":"Hello","body":"Test email"}`)}
	back := newBackend()
	return httpapi.New(httpapi.Options{Backend: instant{back, jobs.NewJob(m, back.reg.Lookup("email"), true)}}).Handler()
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
	r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/jobs", body)
	w := discard{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		body.Reset(anEmail)
		clear(w.h)
		h.ServeHTTP(w, r)
	}
}

// BenchmarkSubmitHTTP is a POST /jobs over the loopback, clients included.
func BenchmarkSubmitHTTP(b *testing.B) {
	s := httptest.NewServer(newInstant(b))
	defer s.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.URL+"/jobs", strings.NewReader(anEmail))
			if err != nil {
				b.Error(err)
				return
			}
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusAccepted {
				b.Errorf("got %s", resp.Status)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

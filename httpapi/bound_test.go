package httpapi_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"jobstream/httpapi"
	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/schedule"
)

// TestMaxConns fills the door with silent connections. Those go on, and later ones get
// an error or are closed. When the first ones are gone there is room again.
func TestMaxConns(t *testing.T) {
	const most, more = 3, 100
	s := httpapi.New(httpapi.Options{Backend: behind(newBackend()), MaxConns: most})
	addr, served := serve(t, s)
	known := dial(t, addr)
	known.write(t, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
	known.read(t).wantJSON(t, 200, new(any))
	for range most - 1 { // their answers say that they were let in
		c := dial(t, addr)
		c.write(t, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
		c.read(t).wantJSON(t, 200, new(any))
	}
	first := dial(t, addr)
	a := first.read(t)
	a.wantProblem(t, 503, "unavailable")
	if a.Header.Get("Retry-After") == "" || !a.Close {
		t.Errorf("the refusal has Retry-After %q, close %v", a.Header.Get("Retry-After"), a.Close)
	}
	crowd := make([]*raw, more)
	for i := range crowd {
		crowd[i] = dial(t, addr)
	}
	for _, c := range crowd { // told or not, each is closed
		if _, err := io.Copy(io.Discard, c.r); err != nil && !isReset(err) {
			t.Fatalf("a connection too many was not closed: %v", err)
		}
	}
	known.write(t, "POST /jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 16\r\n\r\n{\"type\":\"email\"}")
	if code := known.read(t).StatusCode; code != 422 && code != 202 {
		t.Errorf("a connection that was there before got %d", code)
	}
	for end := time.Now().Add(deadline); ; { // the server notices the end of a connection in its own time
		c := dial(t, addr)
		c.write(t, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
		line, err := c.r.ReadString('\n')
		if err == nil && strings.HasPrefix(line, "HTTP/1.1 200") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("there is no room for a new connection: %q, %v", line, err)
		}
	}
	if err := s.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	if err := receive(t, "the end of Serve", served); err != nil {
		t.Error(err)
	}
}

// TestMaxConnsTLS: a connection too many gets its answer encrypted, by whatever it can
// speak.
func TestMaxConnsTLS(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(nil)
	secure.Close()
	both := &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return secure.TLS, nil }}
	s := httpapi.New(httpapi.Options{Backend: behind(newBackend()), MaxConns: 1, TLS: both})
	addr, served := serve(t, s)
	get := func() (client *http.Client, code, version int) {
		roots := x509.NewCertPool()
		roots.AddCert(secure.Certificate())
		client = &http.Client{Timeout: deadline, Transport: &http.Transport{
			ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/livez", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		a, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Body.Close(); err != nil {
			t.Fatal(err)
		}
		return client, a.StatusCode, a.ProtoMajor
	}
	first, code, version := get()
	if code != http.StatusOK || version != 2 {
		t.Errorf("the first one gets %d by HTTP/%d", code, version)
	}
	if _, code, version := get(); code != http.StatusServiceUnavailable || version != 1 {
		t.Errorf("one too many gets %d by HTTP/%d", code, version)
	}
	first.CloseIdleConnections()
	for end := time.Now().Add(deadline); ; { // the server notices the end of a connection in its own time
		if _, code, _ := get(); code == http.StatusOK {
			break
		}
		if time.Now().After(end) {
			t.Fatal("there is no room for a new connection")
		}
	}
	if err := s.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	if err := receive(t, "the end of Serve", served); err != nil {
		t.Error(err)
	}
}

// isReset says whether the other side has closed a connection with something unread.
func isReset(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && !e.Timeout()
}

// TestAway takes what is behind the door away and puts something else there.
func TestAway(t *testing.T) {
	r := newRig(t, func(o *httpapi.Options) { o.Backend.Schedules = schedules{} })
	var j jobs.Job
	r.do(t, "POST", "/jobs", anEmail).wantJSON(t, 202, &j)
	r.server.Away(&jobs.Error{Kind: jobs.Unavailable, Detail: "gone for a moment", RetryAfter: 2 * time.Second})
	for path, method := range map[string]string{
		"/jobs": "POST", "/jobs/1": "GET", "/jobs/1/result": "GET", "/types": "GET", "/workers/stats": "GET", "/schedules": "GET", "/nothing": "GET",
	} {
		a := r.do(t, method, path, "")
		a.wantProblem(t, 503, "unavailable")
		if a.Header.Get("Retry-After") != "2" {
			t.Errorf("%s %s: Retry-After is %q", method, path, a.Header.Get("Retry-After"))
		}
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 503, "/healthz": 503} {
		if a := r.do(t, "GET", path, ""); a.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", path, a.StatusCode, a.body, want)
		}
	}
	other := newBackend()
	r.server.Replace(behind(other), health{"broker": nil})
	r.do(t, "GET", "/readyz", "").wantJSON(t, 200, new(any))
	r.do(t, "GET", "/jobs/"+j.ID.String(), "").wantProblem(t, 404, "not_found")
	r.do(t, "POST", "/jobs", anEmail).wantJSON(t, 202, &j)
}

// schedules is an api.Schedules that nobody asks.
type schedules struct{ api.Schedules }

func (schedules) List(context.Context) ([]*schedule.Entry, error) { return nil, nil }

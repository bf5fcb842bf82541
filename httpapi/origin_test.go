package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"jobstream/httpapi"
	"jobstream/jobs/api"
)

// wildcard is the server of r, reachable by all addresses of this machine.
func wildcard(t *testing.T, r *rig) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(r.server.Handler())
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	r.url = "http://127.0.0.2:" + port
}

// raw sends a request as it stands, and reads the answer.
func (r *rig) raw(t *testing.T, request string) answer {
	t.Helper()
	u, err := url.Parse(r.url)
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the answer is read
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	return readAnswer(t, bufio.NewReader(c), &http.Request{Method: method})
}

func TestRequestsForOtherNamesAreRefused(t *testing.T) {
	r := newRig(t, func(o *httpapi.Options) {
		o.Hosts = []string{"0.0.0.0", "jobs.Example.com", "10.1.2.3", "2001:DB8::0001"}
	})
	wildcard(t, r)
	known := []string{
		"localhost", "localhost:8080", "LOCALHOST", "localhost.", "a.localhost:1", "127.0.0.1", "127.9.9.9:5", "[::1]", "[::1]:80", "[::ffff:127.0.0.1]",
		"jobs.example.com", "JOBS.EXAMPLE.COM.:443", "10.1.2.3", "10.1.2.3:99", "[2001:db8::1]:80", "0.0.0.0:8080", "[::]:8080", "127.0.0.2",
	}
	for _, host := range known {
		if a := r.raw(t, "GET /jobs HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); a.StatusCode != 200 {
			t.Errorf("for %q: %d %s", host, a.StatusCode, a.body)
		}
	}
	if a := r.raw(t, "GET /jobs HTTP/1.0\r\n\r\n"); a.StatusCode != 200 { // nobody's name; a browser always says one
		t.Errorf("HTTP/1.0 without a name: %d %s", a.StatusCode, a.body)
	}
	foreign := []string{
		"evil.example", "evil.example:8080", "localhost.evil.example", "evillocalhost", "xjobs.example.com", "a.jobs.example.com", "jobs.example.com.evil.example",
		"127.0.0.1.evil.example", "192.0.2.7", "[2001:db8::2]", ":8080", "::1", "127.1", "2130706433", "0x7f000001", "[", "[]", "127.0.0.1@evil.example",
	}
	for _, host := range foreign {
		for _, line := range []string{"GET /jobs", "HEAD /jobs", "GET /livez", "GET /nothing/here", "OPTIONS /jobs", "POST /jobs", "DELETE /jobs/1"} {
			a := r.raw(t, line+" HTTP/1.1\r\nHost: "+host+"\r\nContent-Length: 0\r\n\r\n")
			if a.StatusCode == http.StatusBadRequest && a.Header.Get("X-Request-Id") == "" {
				continue // net/http has not let it in
			}
			if a.StatusCode != http.StatusForbidden {
				t.Errorf("%s for %q: %d %s", line, host, a.StatusCode, a.body)
			} else if !strings.HasPrefix(line, "HEAD") {
				if p := a.wantProblem(t, 403, "forbidden"); !strings.Contains(p.Detail, "server.hosts") {
					t.Errorf("the detail does not say what to do: %s", p.Detail)
				}
			}
		}
	}
	// the name in the request line wins over the header
	if a := r.raw(t, "GET http://evil.example/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n"); a.StatusCode != http.StatusForbidden {
		t.Errorf("absolute form: %d %s", a.StatusCode, a.body)
	}
}

// The headers of browsers' requests, by the origin of the page: see Fetch Metadata
// (W3C) and the Origin header (Fetch). This is the rule, and it holds on every path.
func TestRequestsOfPagesFromElsewhereAreRefused(t *testing.T) {
	r := newRig(t, nil)
	own := r.url
	const evil = "https://evil.example"
	tests := []struct {
		what, origin, site, mode string
		reads, writes            bool
	}{
		{"curl", "", "", "", true, true},
		{"a page of ours", "", "same-origin", "cors", true, true},
		{"a page of ours that says its origin", own, "same-origin", "cors", true, true},
		{"typed into the address bar", "", "none", "navigate", true, true},
		{"an old browser, a page of ours", own, "", "", true, true},
		{"a link on a page from elsewhere", "", "cross-site", "navigate", true, false},
		{"a script of a page from elsewhere", evil, "cross-site", "cors", false, false},
		{"an image on a page from elsewhere", "", "cross-site", "no-cors", false, false},
		{"a form of a page from elsewhere", evil, "cross-site", "navigate", true, false},
		{"a page of another port here", "http://127.0.0.1:1", "same-site", "cors", false, false},
		{"an old browser, a page from elsewhere", evil, "", "", false, false},
		{"an old browser, a page of another port here", "http://127.0.0.1:1", "", "", false, false},
		{"a page in a sandbox", "null", "cross-site", "cors", false, false},
		{"an old browser, a page in a sandbox", "null", "", "", false, false},
		{"what is no origin", "::", "", "", false, false},
	}
	writes := []string{"POST /jobs", "POST /jobs/batch", "POST /jobs/bulk", "POST /jobs/1/cancel", "POST /jobs/1/retry", "DELETE /jobs/1", "PUT /workers", "POST /types/email/pause", "POST /nothing/here"}
	reads := []string{"GET /jobs", "HEAD /jobs", "GET /jobs/1", "GET /jobs/1/result", "GET /workers/stats", "GET /types", "GET /livez", "GET /readyz", "GET /nothing/here"}
	r.do(t, "POST", "/jobs", anEmail)
	for _, tt := range tests {
		var header []string
		for name, value := range map[string]string{"Origin": tt.origin, "Sec-Fetch-Site": tt.site, "Sec-Fetch-Mode": tt.mode, "Content-Type": "text/plain"} {
			if value != "" {
				header = append(header, name, value)
			}
		}
		check := func(lines []string, allowed bool) {
			for _, line := range lines {
				method, path, _ := strings.Cut(line, " ")
				a := r.do(t, method, path, "", header...)
				if refused := a.StatusCode == http.StatusForbidden; refused == allowed {
					t.Errorf("%s: %s gives %d %s", tt.what, line, a.StatusCode, a.body)
				} else if refused && method != "HEAD" {
					a.wantProblem(t, 403, "forbidden")
				}
			}
		}
		check(reads, tt.reads)
		check(writes, tt.writes)
	}
	r.do(t, "POST", "/jobs/bulk", `{"action":"delete","all":true}`, "Origin", evil, "Sec-Fetch-Site", "cross-site", "Content-Type", "text/plain").wantProblem(t, 403, "forbidden")
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.all {
		if j.Type == api.BulkType {
			t.Errorf("a page from elsewhere has made %s", fmt.Sprint(j))
		}
	}
}

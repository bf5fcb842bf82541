package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"golang.org/x/net/dns/dnsmessage"

	"jobstream/jobs"
)

const patience = 50 * time.Second

// disabledURLs is a tracker that knows only those.
type disabledURLs struct {
	mu   sync.Mutex
	urls map[string]jobs.ID
}

func (d *disabledURLs) IsDisabled(url string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, is := d.urls[url]
	return is, nil
}

func (d *disabledURLs) Do(_ context.Context, c jobs.Command) (jobs.Effect, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch c := c.(type) {
	case jobs.Disable:
		d.urls[c.URL] = c.By
	case jobs.Enable:
		delete(d.urls, c.URL)
	default:
		return jobs.Effect{}, fmt.Errorf("unexpected %T", c)
	}
	return jobs.Effect{}, nil
}

// checked checks options that must be right.
func checked(t *testing.T, o *Options) *Options {
	t.Helper()
	o.Check("", nil, func(path, text string) { t.Fatalf("%s: %s", path, text) })
	return o
}

func handler(t *testing.T, o *Options) (*Handler, *disabledURLs) {
	t.Helper()
	d := &disabledURLs{urls: make(map[string]jobs.ID)}
	h := New(checked(t, o), d)
	t.Cleanup(h.CloseIdle)
	return h, d
}

// callback is the job for the end of a job to a URL, and that job.
func callback(url string, hook bool) (cb, of *jobs.Job) {
	of = jobs.NewJob(&jobs.Message{ID: jobs.NewID(), Seq: 7, Type: "report", Priority: 3, Payload: []byte(`{"a":"<ä>"}`), At: jobs.Now()}, &jobs.Type{Name: "report"}, true)
	of.Status, of.EndedAt, of.Run = jobs.Completed, jobs.Now(), 1
	of.Terms = &jobs.Terms{CallbackURL: url}
	var hooks jobs.Webhooks
	if hook {
		hooks, of.Terms = jobs.Webhooks{{URL: url}}, nil
	}
	c := hooks.Callbacks(of)[0]
	return c.NewJob(of, 1<<43, jobs.Now(), Type()), of
}

// send makes one attempt.
func send(t *testing.T, h *Handler, j *jobs.Job) (Report, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	task := jobs.NewTask(j, 1, nil)
	r, err := h.Handle(ctx, task)
	if err == nil {
		return r.Value.(Report), nil
	}
	var report Report
	if b := task.Left(); b != nil {
		if bad := json.Unmarshal(b, &report); bad != nil {
			t.Error(bad)
		}
	}
	return report, err
}

func secret(c byte) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{c}, 32))
}

func localhost() []string { return []string{"127.0.0.1"} }

// TestRequest looks at a request, and verifies it by the official library.
func TestRequest(t *testing.T) {
	t.Parallel()
	type got struct {
		*http.Request
		body []byte
	}
	requests := make(chan got, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- got{r, body}
	}))
	defer server.Close()
	url := server.URL + "/hook?token=a%20b"
	h, _ := handler(t, &Options{Allow: localhost(), Secret: []string{secret('a'), secret('b')}, PublicURL: "https://jobs.example.com/", Version: "v1.2.3"})
	cb, of := callback(url, false)
	if r, err := send(t, h, cb); err != nil || r.Status != 200 {
		t.Fatalf("%+v, %v", r, err)
	}
	r := <-requests
	if r.Method != http.MethodPost || r.URL.String() != "/hook?token=a%20b" || r.Header.Get("Content-Type") != "application/json" || r.UserAgent() != "jobstream/v1.2.3" {
		t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	if want := of.ID.String() + ".completed.1"; r.Header.Get("Webhook-Id") != want {
		t.Errorf("the id is %q, want %q", r.Header.Get("Webhook-Id"), want)
	}
	for key, want := range map[byte]bool{'a': true, 'b': true, 'c': false} {
		w, err := standardwebhooks.NewWebhook(secret(key))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Verify(r.body, r.Header); (err == nil) != want {
			t.Errorf("secret %c: %v", key, err)
		}
	}
	var m struct {
		Type, Timestamp, URL string
		Data                 json.RawMessage
	}
	if err := json.Unmarshal(r.body, &m); err != nil {
		t.Fatal(err)
	}
	if m.Type != "job.completed" || m.Timestamp != of.EndedAt.String() || m.URL != "https://jobs.example.com/jobs/"+of.ID.String() || string(m.Data) != string(of.AppendJSON(nil)) {
		t.Errorf("%s", r.body)
	}
}

// TestUnsigned: without a secret a request still has its id.
func TestUnsigned(t *testing.T) {
	t.Parallel()
	head := make(chan http.Header, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { head <- r.Header }))
	defer server.Close()
	h, _ := handler(t, &Options{Allow: localhost()})
	cb, _ := callback(server.URL, false)
	if _, err := send(t, h, cb); err != nil {
		t.Fatal(err)
	}
	if got := <-head; got.Get("Webhook-Signature") != "" || got.Get("Webhook-Id") == "" || got.Get("Webhook-Timestamp") == "" {
		t.Errorf("%v", got)
	}
}

// TestSecretOfAWebhook: a webhook may have one of its own.
func TestSecretOfAWebhook(t *testing.T) {
	t.Parallel()
	head := make(chan *http.Request, 1)
	body := make(chan []byte, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body <- b
		head <- r
	}))
	defer server.Close()
	h, _ := handler(t, &Options{Secret: []string{secret('a')}, Webhooks: []Webhook{
		{Webhook: jobs.Webhook{URL: server.URL + "/own"}, Secret: []string{secret('b')}},
		{Webhook: jobs.Webhook{URL: server.URL + "/shared"}},
	}})
	for path, key := range map[string]byte{"/own": 'b', "/shared": 'a'} {
		cb, _ := callback(server.URL+path, true)
		if _, err := send(t, h, cb); err != nil {
			t.Fatal(err)
		}
		w, err := standardwebhooks.NewWebhook(secret(key))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Verify(<-body, (<-head).Header); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// raw is a server that answers each connection by f, after it has read the request.
func raw(t *testing.T, f func(c *net.TCPConn)) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r, err := http.ReadRequest(bufio.NewReader(c))
				if err == nil {
					_, _ = io.Copy(io.Discard, r.Body)
					f(c.(*net.TCPConn))
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// TestAnswers has endpoints fail in all ways.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const hidden = "hidden words"
	elsewhere := make(chan struct{}, 100)
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere <- struct{}{} }))
	defer target.Close()
	answer := func(code int, head ...string) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(head); i += 2 {
				w.Header().Set(head[i], head[i+1])
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, hidden)
		}
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}
	stuck := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		raw     func(c *net.TCPConn)
		status  int
		err     string // "" = success
		after   time.Duration
		kind    string // permanent, or ""
	}{
		"200":             {handler: answer(200), status: 200},
		"201":             {handler: answer(201), status: 201},
		"299":             {handler: answer(299), status: 299},
		"endless answer":  {handler: endless, status: 200},
		"stuck answer":    {handler: stuck, status: 202},
		"moved":           {handler: answer(301, "Location", target.URL), status: 301, err: "answered 301 Moved Permanently; redirects are not followed"},
		"found":           {handler: answer(302, "Location", "http://169.254.169.254/latest/meta-data/"), status: 302, err: "redirects are not followed"},
		"temporary":       {handler: answer(307, "Location", target.URL), status: 307, err: "redirects are not followed"},
		"304":             {handler: answer(304), status: 304, err: "answered 304 Not Modified"},
		"400":             {handler: answer(400), status: 400, err: "answered 400 Bad Request"},
		"404":             {handler: answer(404), status: 404, err: "answered 404 Not Found"},
		"gone":            {handler: answer(410), status: 410, err: "answered 410 Gone: the URL gets nothing any more", kind: "permanent"},
		"busy":            {handler: answer(429), status: 429, err: "answered 429 Too Many Requests"},
		"busy for a time": {handler: answer(429, "Retry-After", "120"), status: 429, err: "answered 429", after: 2 * time.Minute},
		"busy for years":  {handler: answer(503, "Retry-After", "99999999999"), status: 503, err: "answered 503", after: 24 * time.Hour},
		"busy for ever":   {handler: answer(503, "Retry-After", "99999999999999999999999"), status: 503, err: "answered 503"},
		"busy for words":  {handler: answer(502, "Retry-After", "soon"), status: 502, err: "answered 502 Bad Gateway"},
		"busy before":     {handler: answer(504, "Retry-After", "Mon, 02 Jan 2006 15:04:05 GMT"), status: 504, err: "answered 504"},
		"patient 500":     {handler: answer(500, "Retry-After", "120"), status: 500, err: "answered 500 Internal Server Error"},
		"no known status": {handler: answer(799), status: 799, err: "answered 799"},
		"own words":       {raw: text("HTTP/1.1 500 " + hidden + "\r\nContent-Length: 0\r\n\r\n"), status: 500, err: "answered 500 Internal Server Error"},
		"no HTTP":         {raw: text("220 mail.example.com ESMTP\r\n"), err: "no answer came"},
		"no answer":       {raw: func(*net.TCPConn) {}, err: "no answer came"},
		"reset":           {raw: func(c *net.TCPConn) { _ = c.SetLinger(0) }, err: "no answer came"},
		"cut in the head": {raw: text("HTTP/1.1 200 OK\r\nContent-"), err: "no answer came"},
		"cut in the body": {raw: text("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"), status: 200},
		"wrong length":    {raw: text("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), err: "no answer came"},
		"two lengths":     {raw: text("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na"), err: "no answer came"},
		"endless head": {raw: func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, "X-Much: "+strings.Repeat("x", 1000)+"\r\n")
			}
		}, err: "no answer came"},
		"endless 103": {raw: func(c *net.TCPConn) {
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\n")
			}
		}, err: "no answer came"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := ""
			if c.raw != nil {
				url = raw(t, c.raw)
			} else {
				server := httptest.NewServer(c.handler)
				defer server.Close()
				url = server.URL
			}
			h, _ := handler(t, &Options{Allow: localhost()})
			cb, _ := callback(url, false)
			report, err := send(t, h, cb)
			if report.Status != c.status || report.MS < 0 {
				t.Errorf("reports %+v, want status %d", report, c.status)
			}
			switch {
			case c.err == "" && err != nil:
				t.Fatal(err)
			case c.err == "":
				return
			case err == nil || !strings.Contains(err.Error(), c.err):
				t.Fatalf("%v, want %q", err, c.err)
			case strings.Contains(err.Error(), hidden):
				t.Errorf("%q has words of the answer", err)
			}
			if jobs.IsPermanent(err) != (c.kind == "permanent") || jobs.RetryAfterOf(err) != c.after {
				t.Errorf("%v: permanent %v, after %s", err, jobs.IsPermanent(err), jobs.RetryAfterOf(err))
			}
		})
	}
	t.Cleanup(func() {
		if len(elsewhere) > 0 {
			t.Error("a redirect was followed")
		}
	})
}

func text(s string) func(c *net.TCPConn) {
	return func(c *net.TCPConn) { _, _ = io.WriteString(c, s) }
}

// TestRetryAfterDate reads a moment.
func TestRetryAfterDate(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"Mon, 30 Nov 2026 12:01:00 GMT": time.Minute, "Mon, 30 Nov 2026 11:59:00 GMT": 0, "Mon, 30 Nov 2036 12:01:00 GMT": 24 * time.Hour,
		" 7 ": 7 * time.Second, "": 0, "-1": 0, "1.5": 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestHangs: an endpoint that never answers costs one attempt's time.
func TestHangs(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the end of the connection is not noticed
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	h, _ := handler(t, &Options{Allow: localhost()})
	cb, _ := callback(server.URL, false)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := h.Handle(ctx, jobs.NewTask(cb, 1, nil)); err == nil || err.Error() != "no answer came" {
		t.Errorf("%v", err)
	}
}

// TestGone disables a URL until somebody's retry is accepted.
func TestGone(t *testing.T) {
	t.Parallel()
	code := make(chan int, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(<-code) }))
	defer server.Close()
	h, d := handler(t, &Options{Allow: localhost()})
	first, _ := callback(server.URL, false)
	code <- http.StatusGone
	if _, err := send(t, h, first); !jobs.IsPermanent(err) {
		t.Fatalf("%v", err)
	}
	if d.urls[server.URL] != first.ID {
		t.Errorf("disabled: %v", d.urls)
	}
	second, _ := callback(server.URL, false)
	if _, err := send(t, h, second); !jobs.IsPermanent(err) || !strings.Contains(err.Error(), "has answered 410 Gone") {
		t.Errorf("another one: %v", err) // and code is empty: no request was made
	}
	again := first.Clone()
	again.Run = 2
	code <- http.StatusInternalServerError
	if _, err := send(t, h, again); err == nil || len(d.urls) != 1 {
		t.Errorf("a retry that fails: %v, %v", err, d.urls)
	}
	code <- http.StatusNoContent
	if _, err := send(t, h, again); err != nil || len(d.urls) != 0 {
		t.Errorf("a retry that is accepted: %v, %v", err, d.urls)
	}
	code <- http.StatusOK
	if _, err := send(t, h, second); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// TestTLS: certificates are checked, and HTTP/2 is spoken.
func TestTLS(t *testing.T) {
	t.Parallel()
	proto := make(chan string, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { proto <- r.Proto }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	cb, _ := callback(server.URL, false)
	h, _ := handler(t, &Options{Allow: localhost()})
	if _, err := send(t, h, cb); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
	o := &Options{Allow: localhost(), roots: x509.NewCertPool()}
	o.roots.AddCert(server.Certificate())
	h, _ = handler(t, o)
	if _, err := send(t, h, cb); err != nil {
		t.Fatal(err)
	}
	if p := <-proto; p != "HTTP/2.0" {
		t.Errorf("spoke %s", p)
	}
}

// TestGuard sends callbacks to where they must not go.
func TestGuard(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{} }))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	o := &Options{Allow: []string{"named.example"}, resolver: everythingIsLoopback(t)}
	h, _ := handler(t, o)
	for url, want := range map[string]string{
		"https://127.0.0.1:" + port:          "is refused: it is loopback", // known before any look-up
		"https://rebound.example:" + port:    "the host has an address that is refused: it is loopback; callbacks.allow could name it",
		"http://rebound.example:" + port:     "must begin with https://",
		"http://169.254.169.254/latest":      "must begin with https://",
		"https://[::ffff:169.254.169.254]/x": "link-local",
	} {
		cb, _ := callback(url, false)
		if _, err := send(t, h, cb); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		} else if strings.Contains(err.Error(), "127.0.0.1") && !strings.Contains(url, "127.0.0.1") {
			t.Errorf("%s: %v shows where the name leads", url, err)
		}
	}
	if len(asked) > 0 {
		t.Error("a request has got through")
	}
	cb, _ := callback("http://named.example:"+port, false)
	if _, err := send(t, h, cb); err != nil {
		t.Errorf("a host in callbacks.allow: %v", err)
	}
	cb, _ = callback("https://unknown.invalid", false)
	if _, err := send(t, h, cb); err == nil || !strings.Contains(err.Error(), "cannot be resolved: no such host") {
		t.Errorf("an unknown name: %v", err)
	}
}

// TestWebhooks: those of the configuration may lead to this machine, but they must still
// be there when a request is made, and the metadata of a cloud is for nobody.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{} }))
	defer server.Close()
	h, _ := handler(t, &Options{Webhooks: []Webhook{{Webhook: jobs.Webhook{URL: server.URL}}}})
	cb, _ := callback(server.URL, true)
	if _, err := send(t, h, cb); err != nil || len(asked) != 1 {
		t.Errorf("%v", err)
	}
	h, _ = handler(t, &Options{})
	if _, err := send(t, h, cb); !jobs.IsPermanent(err) || !strings.Contains(err.Error(), "not in webhooks") {
		t.Errorf("without it: %v", err)
	}
	lost := cb.Clone()
	lost.Payload = nil
	if _, err := send(t, h, lost); !jobs.IsPermanent(err) {
		t.Errorf("without a payload: %v", err)
	}
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	o := checked(t, &Options{Allow: []string{"10.1.0.0/16", "hooks.internal"}})
	for url, want := range map[string]string{
		"https://example.com":                  "",
		"https://example.com:8443/a?b=c":       "",
		"HTTPS://EXAMPLE.COM":                  "",
		"http://hooks.internal/x":              "",
		"http://10.1.2.3:8080":                 "",
		"https://[2606:4700::1111]":            "",
		"http://example.com":                   "must begin with https://",
		"https://10.2.2.3":                     "private",
		"https://localhost":                    "loopback",
		"https://a.localhost.":                 "loopback",
		"https://[::1]:8080":                   "loopback",
		"https://[fe80::1%25eth0]":             "link-local",
		"https://user@example.com":             "user name",
		"https://example.com@127.0.0.1":        "user name",
		"https://example.com\\@127.0.0.1":      "backslash",
		"https://":                             "no host",
		"https://:443":                         "no host",
		"https:///path":                        "no host",
		"https://example.com:port":             "is no URL",
		"https://example.com/#a":               "fragment",
		"https://exämple.com":                  "beyond ASCII",
		"https://example.com/a b":              "space",
		"https://example.com/\n":               "space",
		"https://example.com/%zz":              "is no URL",
		"ftp://example.com":                    "https://",
		"example.com":                          "https://",
		"//example.com":                        "https://",
		"":                                     "https://",
		"https://" + strings.Repeat("a", 2048): "longer",
	} {
		if err := o.CheckURL(url); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", url, err, want)
		}
	}
}

func TestOptionsCheck(t *testing.T) {
	hook := func(url string) []Webhook { return []Webhook{{Webhook: jobs.Webhook{URL: url}}} }
	t.Setenv("HOOK_SECRET", secret('a'))
	for _, o := range []Options{{Secret: []string{secret('a')}}, {Allow: localhost()}, {PublicURL: "https://a"}, {Webhooks: hook("https://a")}} {
		if o.Checked() {
			t.Errorf("%+v needs no check", o)
		}
	}
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, ""},
		{Options{PublicURL: "https://jobs.example.com/", Allow: localhost()}, ""},
		{Options{Secret: []string{"${env:HOOK_SECRET}"}}, ""},
		{Options{Secret: []string{"${env:NO_SUCH_SECRET}"}}, "callbacks.secret: the environment has no NO_SUCH_SECRET"},
		{Options{Secret: []string{"hunter2"}}, "callbacks.secret: must be whsec_"},
		{Options{Allow: []string{"http://a"}}, "callbacks.allow: "},
		{Options{PublicURL: "jobs.example.com"}, "server.public_url: must be the address"},
		{Options{Webhooks: hook("http://127.0.0.1:9000/x")}, ""},
		{Options{Webhooks: hook("http://169.254.169.254/x")}, "webhooks.0.url: the address 169.254.169.254 is refused"},
		{Options{Webhooks: hook("example.com")}, "webhooks.0.url: must be an absolute URL"},
		{Options{Webhooks: append(hook("https://a"), hook("https://a")...)}, "webhooks.1.url: is that of another webhook"},
		{Options{Webhooks: []Webhook{{Webhook: jobs.Webhook{URL: "https://a", Types: []string{"report", "fax"}}}}}, `webhooks.0.types: "fax" is not a job type`},
		{Options{Webhooks: []Webhook{{Webhook: jobs.Webhook{URL: "https://a"}, Secret: []string{"x"}}}}, "webhooks.0.secret: must be whsec_"},
	} {
		var all []string
		c.o.Check("", map[string]bool{"report": true}, func(path, text string) { all = append(all, path+": "+text) })
		if c.want == "" && !c.o.Checked() {
			t.Errorf("%+v is not checked", c.o)
		}
		if got := strings.Join(all, "\n"); (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.o, got, c.want)
		}
	}
}

func TestParseWebhook(t *testing.T) {
	t.Parallel()
	w, err := ParseWebhook([]byte(`{"url":"https://a","types":["b"],"statuses":["failed","cancelled"],"secret":["x","y"]}`))
	if err != nil || fmt.Sprint(w) != "{{https://a [b] [failed cancelled]} [x y]}" {
		t.Errorf("%v, %v", w, err)
	}
	if w, err = ParseWebhook([]byte(`{"url":"https://a","secret":"x"}`)); err != nil || len(w.Secret) != 1 {
		t.Errorf("%v, %v", w, err)
	}
	for body, want := range map[string]string{
		`{}`:                                    "/url",
		`{"url":1}`:                             "/url",
		`{"url":"https://a","statuses":["up"]}`: "/statuses",
		`{"url":"https://a","statuses":["pending"]}`: "/statuses",
		`{"url":"https://a","types":"b"}`:            "/types",
		`{"url":"https://a","secret":[1]}`:           "/secret",
		`{"url":"https://a","sekret":"a"}`:           "/sekret",
	} {
		var e *jobs.Error
		if _, err := ParseWebhook([]byte(body)); !errors.As(err, &e) || len(e.Fields) != 1 || e.Fields[0].Pointer != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
}

// everythingIsLoopback is a resolver for which all names but .invalid are 127.0.0.1.
func everythingIsLoopback(t *testing.T) *net.Resolver {
	t.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			q := m.Questions[0]
			switch {
			case strings.Contains(q.Name.String(), "invalid"):
				m.RCode = dnsmessage.RCodeNameError
			case q.Type == dnsmessage.TypeA:
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
				}}
			}
			if b, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(b, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp4", conn.LocalAddr().String())
	}}
}

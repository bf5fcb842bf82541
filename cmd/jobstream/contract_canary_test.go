package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/access"
)

// TestContractCanaries: what is secret is in no printed configuration, error, log, event or
// answer, wherever it stands in the configuration or is sent to.
func TestContractCanaries(t *testing.T) {
	t.Parallel()
	const canary = "canary7391"
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	var all bytes.Buffer
	for _, text := range []string{
		"email: {transport: smtp, smtp: {username: me, password: canary7391}}",
		"email: {transport: smtp, smtp: {username: me, password: '${env:CANARY}'}}",
		"email: {smtp: {password: [canary7391]}}",
		"jobs: {a: {run: http, url: 'https://me:canary7391@example.com/', secret: canary7391}}",
		"jobs: {a: {run: http, url: 'https://example.com/', headers: {Authorization: canary7391}}}",
		"jobs: {a: {run: exec, command: [sh], env: {TOKEN: '${env:CANARY}'}}}",
		"server: {auth: {jwt: {issuer: i, audience: a, jwks: 'https://me:canary7391@example.com/'}}}",
		"server: {auth: {tokens: {ci: {sha256: canary7391, scopes: [read]}}}}",
	} {
		mustDo(t, os.WriteFile(file, []byte(text), 0o600))
		for _, args := range [][]string{{"config", "--config", file}, {"config", "--check", "--config", file}} {
			run(t.Context(), args, []string{"CANARY=" + canary}, &all, &all)
		}
		if all.Len() == 0 {
			t.Errorf("%s prints nothing", text)
		}
		if strings.Contains(all.String(), canary) && !strings.Contains(text, "sha256") { // a hash is no secret
			t.Errorf("%s is printed in\n%s", text, &all)
		}
		all.Reset()
	}

	p := newProvider(t, "a", "b")
	keys := filepath.Join(dir, "keys.json")
	p.write(keys, "a")
	h := roles(t, setup{allLines: true, change: func(c *config.Config) {
		c.Log.Level = "debug"
		knowProvider(c, keys)
	}})
	good := p.token("a", "alice", "submit read", map[string]any{"x": canary})
	bad := p.token("b", "alice", "submit", nil)
	mail := `{"type":"email","payload":` + letter + `}`
	job := readJob(t, h.do("POST", "/jobs", mail, bearer(good)...).body)
	h.do("POST", "/jobs", mail, bearer(secretOf("submit"))...)
	h.await(job.ID, "completed")
	var seen bytes.Buffer
	for _, token := range []string{bad, good + "x", good, secretOf("submit"), "jst_wrong"} {
		seen.Write(h.do("POST", "/jobs", "{", bearer(token)...).body)
		for _, o := range []nats.Option{nats.Token(token), nats.UserInfo("alice", token), nats.UserInfo(token, "")} {
			nc, err := nats.Connect(h.nats, nats.NoReconnect(), o)
			if err != nil {
				seen.WriteString(err.Error())
				continue
			}
			_, _ = nc.Request("jobstream.get", []byte(`{"id":"nope"}`), patience)
			_ = nc.Publish("status.x", nil)
			_ = nc.FlushTimeout(patience)
			nc.Close()
		}
	}
	for _, path := range []string{"/jobs", "/jobs/" + job.ID, "/jobs/" + job.ID + "/events", "/types", "/workers/stats", "/info"} {
		seen.Write(h.do("GET", path, "", bearer(secretOf("read"))...).body)
	}
	h.close()
	for what, text := range map[string]string{"the log": h.log.String(), "an answer": seen.String()} {
		for _, secret := range []string{good, bad, strings.Split(good, ".")[1], strings.Split(good, ".")[2], canary, secretOf("submit"), secretOf("read"), adminToken} {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("%s has a token: %s", what, text[max(0, at-200):min(len(text), at+200)])
			}
		}
	}
}

// TestContractOrigins: what a browser sends for a page of another origin, or to another
// name, is refused, and all else is not.
func TestContractOrigins(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{change: func(c *config.Config) { c.Server.Hosts = []string{"jobs.example.com"} }})
	own := strings.TrimPrefix(h.rest, "http://")
	port := own[strings.LastIndexByte(own, ':'):]
	try := func(method, host, origin, site string) int {
		r, err := http.NewRequestWithContext(t.Context(), method, h.rest+"/jobs", http.NoBody)
		mustDo(t, err)
		if method == http.MethodPost { // as curl -d does
			r, err = http.NewRequestWithContext(t.Context(), method, h.rest+"/jobs", strings.NewReader(`{"type":"report"}`))
			mustDo(t, err)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		r.Host = host
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		answer, err := h.client.Do(r)
		mustDo(t, err)
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		return answer.StatusCode
	}
	hosts := map[string]bool{
		own: true, "localhost" + port: true, "[::1]" + port: true, "jobs.example.com": true, "JOBS.example.com.:443": true,
		"evil.example" + port: false, "jobs.example.com.evil.example": false, "192.0.2.1": false, "localhost.evil.example": false,
	}
	for host, known := range hosts {
		origins := map[string]bool{
			"": true, "http://" + host: true, "https://evil.example": false, "http://evil.example" + port + "0": false, "null": false,
		}
		for origin, same := range origins {
			for site, friendly := range map[string]bool{"": same, "same-origin": true, "none": true, "same-site": false, "cross-site": false} {
				for method, done := range map[string]int{http.MethodGet: http.StatusOK, http.MethodPost: http.StatusAccepted} {
					want := http.StatusForbidden
					if known && friendly { // a browser's word on the site counts more than the origin
						want = done
					}
					if got := try(method, host, origin, site); got != want {
						t.Errorf("%s for %q, Origin %q, Sec-Fetch-Site %q: %d, want %d", method, host, origin, site, got, want)
					}
				}
			}
		}
	}
}

// TestContractOperator: the token of the data folder goes to the server that has written it
// there, and nowhere else.
func TestContractOperator(t *testing.T) {
	t.Parallel()
	h := openReloadIn(t, t.TempDir(), "jobs: {one: {run: report}}\n")
	line := h.log.line("msg=ready")
	dir := attribute(line, "data=")
	var mu sync.Mutex
	var given []string
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		given = append(given, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(stranger.Close)
	reload := func(url string) (int, string) {
		var both bytes.Buffer
		code := run(t.Context(), []string{"reload", "--url", url}, append(cleanEnviron(), "JOBSTREAM_DATA_DIR="+dir), &both, &both)
		return code, both.String()
	}
	port := h.rest[strings.LastIndexByte(h.rest, ':'):]
	for _, url := range []string{h.rest, "http://localhost" + port, "http://[::1]" + port} { // all of them lead to the one address
		if code, out := reload(url); code != exitOK {
			t.Errorf("%s: %d %s", url, code, out)
		}
	}
	if code, out := reload(stranger.URL); code != exitBroken {
		t.Errorf("a stranger: %d %s", code, out)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(given) != 1 || given[0] != "" {
		t.Errorf("a stranger gets %q", given)
	}
}

// endless is a body that goes on until it is closed.
type endless struct{ ctx context.Context }

func (e endless) Read(b []byte) (int, error) {
	select {
	case <-e.ctx.Done():
		return 0, io.EOF
	case <-time.After(10 * time.Millisecond): // a slow client
		b[0] = 'x'
		return 1, nil
	}
}

// TestContractRevokedTransfers: an upload and a download end with their token.
func TestContractRevokedTransfers(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tokens.yaml")
	line := fmt.Sprintf("goes: {sha256: %s, scopes: [submit, read]}\n", access.HashOf(secretOf("goes")))
	other := fmt.Sprintf("stays: {sha256: %s, scopes: [submit, read]}\n", access.HashOf(secretOf("stays")))
	mustDo(t, os.WriteFile(file, []byte(line+other), 0o600))
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"leaves": jobs.HandlerFunc(leaves)},
		change:   func(c *config.Config) { c.Server.Auth.TokensFile = file },
	})
	size := 64 << 20 // more than the buffers between both sides
	job := h.await(h.submit(`{"type":"leaves","payload":{"files":["a"],"fill":%d}}`, size-1).ID, "completed")
	large := "/jobs/" + job.ID + "/artifacts/a"
	begin := func(method, path string, body io.Reader) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), method, h.rest+path, body)
		mustDo(t, err)
		r.Header.Set("Authorization", "Bearer "+secretOf("goes"))
		return r
	}
	upload, download := make(chan string, 1), make(chan string, 1)
	answer, err := h.client.Do(begin("GET", large, http.NoBody)) //nolint:bodyclose // it is closed below
	mustDo(t, err)
	if answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status)
	}
	sending, stop := context.WithCancel(t.Context())
	defer stop()
	coming := &firstRead{Reader: endless{sending}, begun: make(chan struct{})}
	go func() {
		r := begin("POST", "/artifacts", coming)
		r.Header.Set("Content-Type", "text/plain")
		answer, err := h.client.Do(r)
		if err != nil {
			upload <- err.Error()
			return
		}
		text, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		upload <- answer.Status + string(text)
	}()
	<-coming.begun
	mustDo(t, os.WriteFile(file, []byte(other), 0o600))
	waitUntil(t, func() bool { return h.do("GET", "/jobs", "", bearer(secretOf("goes"))...).code != http.StatusOK })
	go func() {
		n, err := io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		download <- fmt.Sprint(n, " ", err)
	}()
	select {
	case got := <-upload:
		if !strings.HasPrefix(got, "401") {
			t.Errorf("the upload ends with %s", got)
		}
	case <-time.After(patience):
		t.Error("the upload goes on")
	}
	select {
	case got := <-download:
		if got == fmt.Sprint(size, " <nil>") {
			t.Error("the download came to its end")
		}
	case <-time.After(patience):
		t.Error("the download goes on")
	}
	if r := h.do("GET", large, "", bearer(secretOf("stays"))...); len(r.body) != size {
		t.Errorf("the other token's download has %d bytes", len(r.body))
	}
}

// firstRead says when it is read for the first time.
type firstRead struct {
	io.Reader
	begun chan struct{}
	once  sync.Once
}

func (f *firstRead) Read(b []byte) (int, error) {
	f.once.Do(func() { close(f.begun) })
	return f.Reader.Read(b)
}

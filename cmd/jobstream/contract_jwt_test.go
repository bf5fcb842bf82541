package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/access"
)

// provider is an identity provider with some keys, by their kid.
type provider struct {
	t    *testing.T
	keys map[string]*ecdsa.PrivateKey
}

const (
	testIssuer   = "https://login.example.com"
	testAudience = "jobs.example.com"
)

func newProvider(t *testing.T, kids ...string) *provider {
	t.Helper()
	p := &provider{t: t, keys: make(map[string]*ecdsa.PrivateKey)}
	for _, kid := range kids {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		mustDo(t, err)
		p.keys[kid] = key
	}
	return p
}

// set is the provider's JSON Web Key Set, with these keys.
func (p *provider) set(kids ...string) []byte {
	p.t.Helper()
	var all jwkset.JWKSMarshal
	for _, kid := range kids {
		k, err := jwkset.NewJWKFromKey(p.keys[kid].Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: kid, USE: jwkset.UseSig}})
		mustDo(p.t, err)
		all.Keys = append(all.Keys, k.Marshal())
	}
	text, err := json.Marshal(all)
	mustDo(p.t, err)
	return text
}

// write replaces a file by the set, in one step.
func (p *provider) write(file string, kids ...string) {
	p.t.Helper()
	mustDo(p.t, os.WriteFile(file+".new", p.set(kids...), 0o600))
	mustDo(p.t, os.Rename(file+".new", file))
}

// token signs a token of a subject, with more claims or other ones.
func (p *provider) token(kid, subject, scopes string, more map[string]any) string {
	p.t.Helper()
	c := jwt.MapClaims{"iss": testIssuer, "aud": testAudience, "sub": subject, "exp": time.Now().Add(time.Hour).Unix(), "scp": scopes}
	maps.Copy(c, more)
	t := jwt.NewWithClaims(jwt.SigningMethodES256, c)
	t.Header["kid"] = kid
	text, err := t.SignedString(p.keys[kid])
	mustDo(p.t, err)
	return text
}

// knowProvider lets tokens of the provider with keys there count.
func knowProvider(c *config.Config, jwks string) {
	c.Server.Auth.JWT = config.JWT{Issuer: testIssuer, Audience: testAudience, JWKS: jwks, ScopesClaim: "scp"}
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// TestContractJWT logs in with tokens of a provider, at both doors.
func TestContractJWT(t *testing.T) {
	t.Parallel()
	p := newProvider(t, "a", "stranger")
	file := filepath.Join(t.TempDir(), "keys.json")
	p.write(file, "a")
	h := open(t, t.TempDir(), setup{change: func(c *config.Config) {
		c.Server.Auth.Anonymous = []string{}
		knowProvider(c, file)
	}})
	mail := `{"type":"email","payload":` + letter + `}`
	alice := p.token("a", "alice@example.com", "submit openid", nil)
	if r := h.do("POST", "/jobs", mail, bearer(alice)...); r.code != http.StatusAccepted {
		t.Errorf("%d %s", r.code, r.body)
	}
	if prob := h.do("GET", "/types", "", bearer(alice)...).wantProblem(t, 403, "forbidden"); !strings.Contains(prob.Detail, "the scope read") {
		t.Error(prob.Detail)
	}
	typed := p.token("a", "bob", "submit", map[string]any{"types": []string{"report"}})
	h.do("POST", "/jobs", mail, bearer(typed)...).wantProblem(t, 403, "forbidden")
	for what, token := range map[string]string{
		"a stranger's":    p.token("stranger", "alice", "submit", nil),
		"for another":     p.token("a", "alice", "submit", map[string]any{"aud": "x"}),
		"expired":         p.token("a", "alice", "submit", map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
		"without an end":  p.token("a", "alice", "submit", map[string]any{"exp": nil}),
		"named as tokens": p.token("a", "tests", "submit", nil), // is a token of the configuration
	} {
		r := h.do("POST", "/jobs", mail, bearer(token)...)
		r.wantProblem(t, 401, "unauthorized")
		if r.header.Get("WWW-Authenticate") == "" || strings.Contains(string(r.body), token) {
			t.Errorf("%s: %v %s", what, r.header, r.body)
		}
	}

	connect := func(o ...nats.Option) (*nats.Conn, error) {
		nc, err := nats.Connect(h.nats, append(o, nats.NoReconnect())...)
		if err == nil {
			t.Cleanup(nc.Close)
		}
		return nc, err
	}
	long := p.token("a", "bob", "submit read", map[string]any{"x": strings.Repeat("x", 9000)})
	for what, o := range map[string]nats.Option{
		"as a token":    nats.Token(long),
		"as a password": nats.UserInfo("bob", long),
		"alone":         nats.UserInfo(long, ""),
	} {
		nc, err := connect(o)
		mustDo(t, err)
		if m, err := nc.Request("jobstream.submit", []byte(mail), patience); err != nil || !strings.Contains(string(m.Data), `"status":"pending"`) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := connect(nats.UserInfo("alice", long)); err == nil {
		t.Error("a token counts for another name")
	}
	if _, err := connect(nats.UserInfo(access.NameOf("alice@example.com"), alice)); err != nil {
		t.Errorf("the name that a subject is given: %v", err)
	}
	// a narrow token of somebody has no more rights while a wide one is in use
	wide, err := connect(nats.Token(p.token("a", "carol", "submit read manage work", nil)))
	mustDo(t, err)
	narrow, err := connect(nats.Token(p.token("a", "carol", "read", nil)))
	mustDo(t, err)
	for range 2 {
		for nc, want := range map[*nats.Conn]string{wide: `"paused":true`, narrow: `"code":"forbidden"`} {
			m, err := nc.Request("jobstream.pause", []byte(`{"type":"export"}`), patience)
			mustDo(t, err)
			if !strings.Contains(string(m.Data), want) {
				t.Errorf("%s, want %s", m.Data, want)
			}
		}
		_, err := connect(nats.Token(p.token("a", "carol", "submit read manage work", nil)))
		mustDo(t, err)
	}
	// a client with a key of its own beside the token would not be found again
	for _, more := range []string{`"nkey":"UX"`, `"jwt":"x"`, `"nkey":"UX","sig":"x","user":"bob","pass":"` + long + `"`} {
		if answer := h.rawNATS("CONNECT {\"verbose\":true," + more + "}\r\nPING\r\n"); !strings.Contains(answer, "Authorization Violation") {
			t.Errorf("%s is answered with %q", more, answer)
		}
	}
}

// rawNATS sends a text to the NATS port, and returns the answers to it until the server
// closes, or has answered a PING.
func (h *house) rawNATS(text string) string {
	h.t.Helper()
	c, err := new(net.Dialer).DialContext(h.t.Context(), "tcp", strings.TrimPrefix(h.nats, "nats://"))
	mustDo(h.t, err)
	defer func() { _ = c.Close() }()
	mustDo(h.t, c.SetDeadline(time.Now().Add(patience)))
	var all bytes.Buffer
	buf := make([]byte, 4096)
	for sent := false; ; {
		n, err := c.Read(buf)
		all.Write(buf[:n])
		if err != nil || bytes.Contains(all.Bytes(), []byte("PONG\r\n")) {
			return all.String()
		}
		if !sent { // the server speaks first
			_, err = c.Write([]byte(text))
			mustDo(h.t, err)
			sent = true
		}
	}
}

// TestContractJWTExpires: a connection ends with its token.
func TestContractJWTExpires(t *testing.T) {
	t.Parallel()
	p := newProvider(t, "a")
	file := filepath.Join(t.TempDir(), "keys.json")
	p.write(file, "a")
	h := open(t, t.TempDir(), setup{change: func(c *config.Config) { knowProvider(c, file) }})
	for span := 2 * time.Second; ; span *= 2 { // until it is long enough for this machine
		closed := make(chan struct{})
		until := time.Now().Add(span)
		nc, err := nats.Connect(h.nats, nats.Token(p.token("a", "x", "read", map[string]any{"exp": until.Unix()})), nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
		if err != nil {
			if span > patience {
				t.Fatal(err)
			}
			continue
		}
		defer nc.Close()
		select {
		case <-closed:
			if early := time.Until(until.Truncate(time.Second)); early > 0 {
				t.Errorf("it ends %v too early", early)
			}
		case <-time.After(patience):
			t.Error("it goes on")
		}
		return
	}
}

// TestContractJWTKeysChange exchanges the provider's keys while clients are at work. Those
// whose key stays lose nothing, and those whose key goes are cut off.
func TestContractJWTKeysChange(t *testing.T) {
	t.Parallel()
	p := newProvider(t, "stays", "goes", "comes")
	file := filepath.Join(t.TempDir(), "keys.json")
	p.write(file, "stays", "goes")
	puppet := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"held": puppet}, change: func(c *config.Config) { knowProvider(c, file) }})
	job := h.submit(`{"type":"held"}`)
	play := puppet.next(t)
	defer func() { play.end <- nil }()
	token := func(kid string) string { return p.token(kid, "of-"+kid, "read", nil) }
	login := func(kid string) *nats.Conn {
		nc, err := nats.Connect(h.nats, nats.Token(token(kid)), nats.NoReconnect())
		mustDo(t, err)
		t.Cleanup(nc.Close)
		return nc
	}
	stays, goes := login("stays"), login("goes")
	stays.SetDisconnectErrHandler(func(*nats.Conn, error) { t.Error("a connection was lost") })
	gone := make(chan time.Time, 1)
	goes.SetClosedHandler(func(*nats.Conn) { gone <- time.Now() })
	waiting := make(chan int, 1)
	r, err := http.NewRequestWithContext(t.Context(), "GET", h.rest+"/jobs/"+job.ID+"?wait=5m", http.NoBody)
	mustDo(t, err)
	r.Header.Set("Authorization", "Bearer "+token("goes"))
	go func() {
		answer, err := h.client.Do(r)
		if err != nil {
			waiting <- 0
			return
		}
		_ = answer.Body.Close()
		waiting <- answer.StatusCode
	}()
	load, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	status := func(kid string) int { return h.do("GET", "/jobs", "", bearer(token(kid))...).code }
	for _, work := range []func() bool{
		func() bool { _, err := stays.Request("jobstream.stats", nil, patience); return err == nil },
		func() bool { return status("stays") == http.StatusOK },
	} {
		clients.Go(func() {
			for load.Err() == nil {
				if !work() {
					t.Error("a client with a key that stays was refused")
					return
				}
			}
		})
	}
	mustDo(t, os.WriteFile(file, []byte("{"), 0o600))
	select {
	case <-h.log.has("the keys of JWTs stay as they were"):
	case <-time.After(patience):
		t.Fatal("the mistake is not logged")
	}
	if status("goes") != 200 || status("comes") != 401 {
		t.Error("a mistake changed something")
	}
	p.write(file, "stays", "comes")
	for what, ended := range map[string]func() bool{
		"a NATS client":        func() bool { <-gone; return true },
		"a request that waits": func() bool { return <-waiting == http.StatusUnauthorized },
	} {
		done := make(chan bool, 1)
		go func() { done <- ended() }()
		select {
		case ok := <-done:
			if !ok {
				t.Errorf("%s of the key that has gone is not refused", what)
			}
		case <-time.After(patience):
			t.Fatalf("%s of the key that has gone goes on", what)
		}
	}
	if status("goes") != 401 || status("comes") != 200 {
		t.Error("the new keys do not count")
	}
	stop()
	clients.Wait()
	stays.SetDisconnectErrHandler(nil)
}

// TestContractJWTAddress: the server starts without the provider. Until its keys can be
// fetched, its tokens are answered with 503, and all else works.
func TestContractJWTAddress(t *testing.T) {
	t.Parallel()
	p := newProvider(t, "a")
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	mustDo(t, err)
	address := l.Addr().String()
	mustDo(t, l.Close())
	h := open(t, t.TempDir(), setup{change: func(c *config.Config) { knowProvider(c, "http://"+address+"/keys") }})
	select {
	case <-h.log.has("nobody can log in by a JWT"):
	case <-time.After(patience):
		t.Fatal("it is not logged")
	}
	if line := h.log.line("nobody can log in by a JWT"); !strings.Contains(line, "server.auth.jwt.jwks") || !strings.Contains(line, address) {
		t.Errorf("the log does not say what to do: %s", line)
	}
	alice := p.token("a", "alice", "read", nil)
	r := h.do("GET", "/jobs", "", bearer(alice)...)
	if r.wantProblem(t, 503, "unavailable"); r.header.Get("Retry-After") == "" {
		t.Error("it does not say when to try again")
	}
	if nc, err := nats.Connect(h.nats, nats.Token(alice), nats.NoReconnect()); err == nil {
		nc.Close()
		t.Error("NATS lets it in")
	}
	if r := h.do("GET", "/jobs", "", bearer(adminToken)...); r.code != http.StatusOK {
		t.Errorf("a token gets %d", r.code)
	}
	l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	mustDo(t, err)
	site := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(p.set("a")) })}
	go func() { _ = site.Serve(l) }()
	t.Cleanup(func() { _ = site.Close() })
	waitUntil(t, func() bool { return h.do("GET", "/jobs", "", bearer(alice)...).code == http.StatusOK })
}

// TestContractJWTMistakes: a file of keys that cannot be used stops the start.
func TestContractJWTMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mustDo(t, os.WriteFile(filepath.Join(dir, "empty.json"), []byte(`{"keys":[]}`), 0o600))
	file := filepath.Join(dir, "config.yaml")
	for jwks, want := range map[string]string{
		"nope.json":                `nope.json" does not exist`,
		"empty.json":               `empty.json" has no public key that verifies signatures`,
		"config.yaml":              `config.yaml" is not a JSON Web Key Set`,
		".":                        `" cannot be read: `,
		"http://login.example.com": "must begin with https://",
	} {
		mustDo(t, os.WriteFile(file, []byte("server: {port: 0, auth: {jwt: {issuer: i, audience: a, jwks: '"+jwks+"'}}}\nbroker: {port: -1}\n"), 0o600))
		var out bytes.Buffer
		code := run(t.Context(), []string{"serve", "--config", file, "--data", t.TempDir()}, nil, &out, &out)
		if !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "server.auth.jwt.jwks: ") || code != exitUsage {
			t.Errorf("%s: exit code %d, and\n%s", jwks, code, &out)
		}
	}
}

// TestContractFailedLogins guesses at both doors. The guesses are refused for a while, and
// a token that cannot be guessed goes on working.
func TestContractFailedLogins(t *testing.T) {
	t.Parallel()
	h := roles(t, setup{})
	if r := h.do("GET", "/jobs", "", bearer(secretOf("read"))...); r.code != http.StatusOK {
		t.Fatalf("%d %s", r.code, r.body)
	}
	waitUntil(t, func() bool { return h.do("GET", "/jobs", "", bearer("guess")...).code == http.StatusTooManyRequests })
	r := h.do("GET", "/jobs", "", bearer("guess")...)
	for ; r.code == http.StatusUnauthorized; r = h.do("GET", "/jobs", "", bearer("guess")...) { // on a slow machine
	}
	if r.wantProblem(t, http.StatusTooManyRequests, "too_many"); r.header.Get("Retry-After") == "" {
		t.Error("it does not say when to try again")
	}
	for token, want := range map[string]int{adminToken: 200, secretOf("read"): 200} { // cannot be guessed; has been used here
		if r := h.do("GET", "/jobs", "", bearer(token)...); r.code != want {
			t.Errorf("%s: %d %s", token, r.code, r.body)
		}
	}
	if r := h.do("GET", "/jobs", ""); r.code != http.StatusOK {
		t.Errorf("without a token: %d", r.code)
	}
	nc, err := nats.Connect(h.nats, nats.Token(adminToken), nats.NoReconnect())
	mustDo(t, err)
	nc.Close()
	if line := h.log.line("too many logins have failed"); !strings.Contains(line, "127.0.0.1") || strings.Contains(line, "guess") {
		t.Errorf("the log says %q", line)
	}
}

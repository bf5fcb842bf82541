package signed_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"jobstream/jobs/access"
	"jobstream/jobs/access/signed"
)

const patience = time.Minute

// provider is an identity provider with some keys, by their kid.
type provider struct {
	t    *testing.T
	keys map[string]crypto.Signer
}

func newProvider(t *testing.T, kids ...string) *provider {
	t.Helper()
	p := &provider{t: t, keys: make(map[string]crypto.Signer)}
	for _, kid := range kids {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		p.keys[kid] = key
	}
	return p
}

// set is the provider's JSON Web Key Set, with only these keys.
func (p *provider) set(kids ...string) []byte {
	p.t.Helper()
	var all jwkset.JWKSMarshal
	for _, kid := range kids {
		m := jwkset.JWKMetadataOptions{KID: kid}
		k, err := jwkset.NewJWKFromKey(p.keys[kid].Public(), jwkset.JWKOptions{Metadata: m})
		if err != nil {
			p.t.Fatal(err)
		}
		all.Keys = append(all.Keys, k.Marshal())
	}
	text, err := json.Marshal(all)
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// claims are good ones, with some changed; nil = without it.
func claims(change map[string]any) jwt.MapClaims {
	c := jwt.MapClaims{"iss": "https://login.example.com", "aud": "jobs", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix(), "scope": "submit read"}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// sign makes a token; the kid "" is left out.
func (p *provider) sign(kid string, method jwt.SigningMethod, c jwt.MapClaims, header map[string]any) string {
	p.t.Helper()
	t := jwt.NewWithClaims(method, c)
	if kid != "" {
		t.Header["kid"] = kid
	}
	maps.Copy(t.Header, header)
	text, err := t.SignedString(p.keys[kid])
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

func newVerifier(t *testing.T) *signed.Verifier {
	return signed.New(signed.Options{Issuer: "https://login.example.com", Audience: "jobs", Scopes: "scope", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
}

func kindOf(t *testing.T, err error) access.RefusalKind {
	t.Helper()
	if err == nil {
		return -1
	}
	var r *access.Refusal
	if !errors.As(err, &r) {
		t.Fatal(err)
	}
	return r.Kind
}

// TestVerify has all the tokens that do not count, and shows what the others mean.
func TestVerify(t *testing.T) {
	t.Parallel()
	p := newProvider(t, "a", "stranger")
	var err error
	if p.keys["rsa"], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if _, p.keys["ed"], err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t)
	good := p.sign("a", jwt.SigningMethodES256, claims(nil), nil)
	if _, err := v.Verify(good); kindOf(t, err) != access.NotYet {
		t.Errorf("without keys: %v", err)
	}
	if err := v.Use(t.Context(), p.set("a", "rsa", "ed")); err != nil {
		t.Fatal(err)
	}
	forged := newProvider(t, "a")
	der, err := x509.MarshalPKIXPublicKey(p.keys["rsa"].Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	confused := jwt.NewWithClaims(jwt.SigningMethodHS256, claims(nil))
	confused.Header["kid"] = "rsa"
	hmac, err := confused.SignedString(public)
	if err != nil {
		t.Fatal(err)
	}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims(nil)).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	es := func(change map[string]any) string { return p.sign("a", jwt.SigningMethodES256, claims(change), nil) }
	parts := strings.Split(good, ".")
	richer := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://login.example.com","aud":"jobs","sub":"alice","exp":9999999999,"scope":"admin"}`))
	now := time.Now()
	for what, c := range map[string]struct{ token, why string }{
		"another key of the same kid":  {forged.sign("a", jwt.SigningMethodES256, claims(nil), nil), "signature"},
		"a stranger's key":             {p.sign("stranger", jwt.SigningMethodES256, claims(nil), nil), "key that the issuer"},
		"no algorithm":                 {none, "signature"},
		"a secret that is public":      {hmac, "signature"},
		"another key's algorithm":      {p.sign("rsa", jwt.SigningMethodRS256, claims(nil), map[string]any{"kid": "a"}), "signature"},
		"other claims":                 {parts[0] + "." + richer + "." + parts[2], "signature"},
		"no signature":                 {parts[0] + "." + parts[1] + ".", "signature"},
		"an extension":                 {p.sign("a", jwt.SigningMethodES256, claims(nil), map[string]any{"crit": []string{"x"}}), "extension"},
		"a kid that is no text":        {p.sign("a", jwt.SigningMethodES256, claims(nil), map[string]any{"kid": 1}), ""},
		"another issuer":               {es(map[string]any{"iss": "https://login.example.com/"}), "issuer"},
		"no issuer":                    {es(map[string]any{"iss": nil}), ""},
		"another audience":             {es(map[string]any{"aud": []string{"jobs2"}}), "audience"},
		"no audience":                  {es(map[string]any{"aud": nil}), ""},
		"expired":                      {es(map[string]any{"exp": now.Add(-time.Minute).Unix()}), "expired"},
		"no end":                       {es(map[string]any{"exp": nil}), "required"},
		"an end that is no number":     {es(map[string]any{"exp": "tomorrow"}), ""},
		"not yet":                      {es(map[string]any{"nbf": now.Add(time.Minute * 2).Unix()}), "not valid yet"},
		"no subject":                   {es(map[string]any{"sub": nil}), "subject"},
		"an empty subject":             {es(map[string]any{"sub": ""}), "subject"},
		"a subject that is no text":    {es(map[string]any{"sub": 7}), "subject"},
		"types that are no list":       {es(map[string]any{"types": 7}), "types"},
		"types that are no texts":      {es(map[string]any{"types": []any{"a", 7}}), "types"},
		"types that are null":          {es(map[string]any{"types": json.RawMessage("null")}), "types"},
		"too long":                     {es(map[string]any{"x": strings.Repeat("x", 20_000)}), "too long"},
		"nothing":                      {"..", "unknown"},
		"no JSON":                      {"e30.e30.x", "unknown"},
		"more parts":                   {good + ".x", "unknown"},
		"a kid of another set of keys": {p.sign("a", jwt.SigningMethodES256, claims(nil), map[string]any{"kid": ""}), "key"},
	} {
		who, err := v.Verify(c.token)
		if kindOf(t, err) != access.Unknown || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %+v, %v", what, who, err)
		}
		if err != nil && (strings.Contains(err.Error(), "example.com") || strings.Contains(err.Error(), "alice")) {
			t.Errorf("%s: %v shows what is in the token", what, err)
		}
	}
	for what, c := range map[string]struct {
		token  string
		name   string
		scopes string
		types  []string
	}{
		"ES256":               {good, "alice", "read submit", nil},
		"RS256":               {p.sign("rsa", jwt.SigningMethodRS256, claims(nil), nil), "alice", "read submit", nil},
		"PS512":               {p.sign("rsa", jwt.SigningMethodPS512, claims(nil), nil), "alice", "read submit", nil},
		"EdDSA":               {p.sign("ed", jwt.SigningMethodEdDSA, claims(nil), nil), "alice", "read submit", nil},
		"a list of scopes":    {es(map[string]any{"scope": []string{"work", "openid", "work"}}), "alice", "work", nil},
		"unknown scopes":      {es(map[string]any{"scope": "openid email ADMIN  manage"}), "alice", "manage", nil},
		"no scopes":           {es(map[string]any{"scope": nil}), "alice", "", nil},
		"scopes of no kind":   {es(map[string]any{"scope": 7}), "alice", "", nil},
		"scopes, not all":     {es(map[string]any{"scope": []any{"read", 7}}), "alice", "", nil},
		"types":               {es(map[string]any{"types": []string{"report", "email", "email"}}), "alice", "read submit", []string{"email", "report"}},
		"types as a text":     {es(map[string]any{"types": "email"}), "alice", "read submit", []string{"email"}},
		"no types at all":     {es(map[string]any{"types": []string{}}), "alice", "read submit", []string{}},
		"several audiences":   {es(map[string]any{"aud": []string{"x", "jobs"}}), "alice", "read submit", nil},
		"another subject":     {es(map[string]any{"sub": "bob@example.com"}), access.NameOf("bob@example.com"), "read submit", nil},
		"a clock that is off": {es(map[string]any{"nbf": now.Add(10 * time.Second).Unix()}), "alice", "read submit", nil},
	} {
		who, err := v.Verify(c.token)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		var scopes []string
		for _, s := range who.Scopes {
			scopes = append(scopes, string(s))
		}
		if who.Name != c.name || strings.Join(scopes, " ") != c.scopes || !slices.Equal(who.Types, c.types) || (who.Types == nil) != (c.types == nil) || who.Expires.IsZero() {
			t.Errorf("%s: %+v", what, who)
		}
	}
	// a token without a kid is of any of the keys
	p.keys[""] = p.keys["a"]
	if _, err := v.Verify(p.sign("", jwt.SigningMethodES256, claims(nil), nil)); err != nil {
		t.Errorf("without a kid: %v", err)
	}
	p.keys[""] = p.keys["stranger"]
	if _, err := v.Verify(p.sign("", jwt.SigningMethodES256, claims(nil), nil)); err == nil {
		t.Error("a stranger's token without a kid counts")
	}
}

// TestUse replaces the keys: who was admitted by one that is no more is named, and a set
// with a mistake changes nothing.
func TestUse(t *testing.T) {
	t.Parallel()
	p := newProvider(t, "a", "b")
	v := newVerifier(t)
	var revoked []string
	v.OnRevoke(func(names ...string) { revoked = append(revoked, names...) })
	use := func(set []byte) {
		t.Helper()
		if err := v.Use(t.Context(), set); err != nil {
			t.Fatal(err)
		}
	}
	use(p.set("a", "b"))
	token := func(kid, subject string) string {
		return p.sign(kid, jwt.SigningMethodES256, claims(map[string]any{"sub": subject}), nil)
	}
	p.keys[""] = p.keys["b"]
	for _, name := range []string{"alice", "carol"} {
		if _, err := v.Verify(token("a", name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, of := range [][2]string{{"b", "bob"}, {"", "dave"}, {"b", "carol"}} {
		if _, err := v.Verify(token(of[0], of[1])); err != nil {
			t.Fatal(err)
		}
	}
	secret := `{"kty":"oct","kid":"s","k":"c2VjcmV0","alg":"HS256"}`
	for set, want := range map[string]string{
		``: "JSON", `[]`: "JSON", `{}`: "no public key", `{"keys":[]}`: "no public key", `{"keys":[` + secret + `]}`: "no public key", `{"keys":[{"kty":"RSA"}]}`: "no public key",
		`{"keys":[` + strings.Repeat(secret+",", 200) + secret + `]}`: "at most 100",
	} {
		if err := v.Use(t.Context(), []byte(set)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50s: %v", set, err)
		}
	}
	if len(revoked) != 0 {
		t.Errorf("a mistake has revoked %q", revoked)
	}
	// a key of an unknown kind beside them is left out, and so is one for encryption
	mixed := strings.Replace(string(p.set("b")), `{"keys":[`, `{"keys":[`+secret+`,{"kty":"OKP","crv":"Ed448","x":"eA"},7,`, 1)
	use([]byte(mixed))
	if got := strings.Join(revoked, " "); got != "alice carol dave" {
		t.Errorf("%s are revoked", got) // dave's token may have been signed by either
	}
	for kid, want := range map[string]bool{"a": false, "b": true} {
		if _, err := v.Verify(token(kid, "erin")); (err == nil) != want {
			t.Errorf("the key %s: %v", kid, err)
		}
	}
	revoked = nil
	other := newProvider(t, "b")
	use(other.set("b"))
	if got := strings.Join(revoked, " "); got != "bob carol erin" {
		t.Errorf("%s are revoked by another key of the same name", got)
	}
}

// site is a provider's address.
type site struct {
	*httptest.Server
	asked  atomic.Int64
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request)
}

func newSite(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *site {
	t.Helper()
	s := &site{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.mu.Lock()
		answer := s.answer
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) now(answer func(w http.ResponseWriter, r *http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func serving(set []byte) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) }
}

// follow fetches from an address until the test ends.
func follow(t *testing.T, v *signed.Verifier, address string) {
	t.Helper()
	run := v.Fetch(t.Context(), address)
	done := make(chan struct{})
	go func() { defer close(done); run() }()
	t.Cleanup(func() { <-done })
}

// until calls f again and again until it is true.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// TestFetch: keys that are not there at the start are fetched until they come. A key that
// is not known is asked for once in a minute, whoever asks.
func TestFetch(t *testing.T) {
	t.Parallel()
	p := newProvider(t, "a", "b")
	down := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	s := newSite(t, down)
	v := newVerifier(t)
	follow(t, v, s.URL)
	until(t, "nothing is fetched", func() bool { return s.asked.Load() > 0 })
	by := func(kid string) error {
		_, err := v.Verify(p.sign(kid, jwt.SigningMethodES256, claims(nil), nil))
		return err
	}
	if err := by("a"); kindOf(t, err) != access.NotYet {
		t.Errorf("without keys: %v", err)
	}
	s.now(serving(p.set("a")))
	until(t, "the keys are not fetched again", func() bool { return by("a") == nil })
	before := s.asked.Load()
	var all sync.WaitGroup
	strange := newProvider(t)
	for i := range 1000 {
		kid := fmt.Sprint("kid", i)
		strange.keys[kid] = p.keys["b"]
		token := strange.sign(kid, jwt.SigningMethodES256, claims(nil), nil)
		all.Go(func() {
			if _, err := v.Verify(token); err == nil {
				t.Error("a stranger is let in")
			}
		})
	}
	all.Wait()
	if n := s.asked.Load() - before; n != 1 {
		t.Errorf("a thousand unknown keys make %d fetches", n)
	}
	if err := by("a"); err != nil {
		t.Errorf("the known key: %v", err)
	}
	// a new key is fetched for the first token that it has signed
	late := newVerifier(t)
	follow(t, late, s.URL)
	until(t, "the keys are not fetched", func() bool {
		_, err := late.Verify(p.sign("a", jwt.SigningMethodES256, claims(nil), nil))
		return err == nil
	})
	s.now(serving(p.set("b")))
	if _, err := late.Verify(p.sign("b", jwt.SigningMethodES256, claims(nil), nil)); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if _, err := late.Verify(p.sign("a", jwt.SigningMethodES256, claims(nil), nil)); err == nil {
		t.Error("the old key still counts")
	}
}

// TestFetchKeepsKeys: an answer that cannot be used changes nothing.
func TestFetchKeepsKeys(t *testing.T) {
	t.Parallel()
	p := newProvider(t, "a", "b")
	for what, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"an error":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"a page":      serving([]byte("<html>")),
		"an empty":    serving([]byte(`{"keys":[]}`)),
		"a large one": serving(append(p.set("b"), make([]byte, 2<<20)...)),
		"another place": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://login.example.com/keys", http.StatusFound)
		},
		"a circle": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) },
	} {
		s := newSite(t, serving(p.set("a")))
		v := newVerifier(t)
		follow(t, v, s.URL)
		by := func(kid string) error {
			_, err := v.Verify(p.sign(kid, jwt.SigningMethodES256, claims(nil), nil))
			return err
		}
		until(t, "the keys are not fetched", func() bool { return by("a") == nil })
		s.now(answer)
		if err := by("b"); kindOf(t, err) != access.NotYet {
			t.Errorf("%s: %v", what, err)
		}
		if err := by("a"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCheckAddress(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"https://login.example.com/keys": true, "http://127.0.0.1:8080/keys": true, "http://localhost/": true, "http://[::1]/": true,
		"http://login.example.com/keys": false, "http://localhost.evil.example/": false, "ftp://x/": false, "https://": false, "https://u:p@x/": false, "://": false, "file:///keys": false,
	} {
		if err := signed.CheckAddress(address); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}

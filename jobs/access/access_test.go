package access_test

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"jobstream/jobs/access"
)

func TestToken(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^jst_[0-9A-Za-z]{36}$`)
	seen := make(map[string]bool)
	for range 1000 {
		token := access.NewToken()
		if !form.MatchString(token) || !access.IsToken(token) || seen[token] {
			t.Fatalf("the token is %q", token)
		}
		seen[token] = true
		last := token[len(token)-1]
		if wrong := token[:len(token)-1] + string('0'+(last-'0'+1)%10); access.IsToken(wrong) {
			t.Errorf("%q passes as well", wrong)
		}
	}
	for _, text := range []string{"", "jst_", "jst_" + strings.Repeat("0", 36), "jsx_" + access.NewToken()[4:], access.NewToken() + "0"} {
		if access.IsToken(text) {
			t.Errorf("%q passes", text)
		}
	}
}

func TestHash(t *testing.T) {
	t.Parallel()
	h := access.HashOf("jst_x")
	if got, err := access.ParseHash(h.String()); got != h || err != nil {
		t.Errorf("it is read back as %v, %v", got, err)
	}
	for _, text := range []string{"", "ab", strings.Repeat("g", 64), h.String() + "00"} {
		if _, err := access.ParseHash(text); err == nil {
			t.Errorf("%q is a hash", text)
		}
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	p := access.Principal{Scopes: []access.Scope{access.Submit}, Types: []string{"email"}}
	for _, s := range access.Scopes() {
		if p.May(s) != (s == access.Submit) {
			t.Errorf("%s: %v", s, p.May(s))
		}
		if admin := (&access.Principal{Scopes: []access.Scope{access.Admin}}); !admin.May(s) {
			t.Errorf("an admin has not %s", s)
		}
	}
	if !p.MayUse("email") || p.MayUse("email2") || !(&access.Principal{}).MayUse("email2") {
		t.Error("the types are not exact")
	}
}

// TestKeyring replaces tokens: who keeps token and rights is not bothered.
func TestKeyring(t *testing.T) {
	t.Parallel()
	secret := func(name string) string { return "secret of " + name }
	token := func(name string, scopes ...access.Scope) access.Token {
		return access.Token{Hash: access.HashOf(secret(name)), Principal: access.Principal{Name: name, Scopes: scopes}}
	}
	late := token("late", access.Read)
	late.Expires = time.Now().Add(-time.Second)
	k := access.NewKeyring(access.Options{Tokens: []access.Token{
		token("keeps", access.Read), token("loses", access.Read), token("gone", access.Read), late,
	}})
	identify := func(token string) *access.Principal {
		p, err := k.Identify(token, netip.Addr{})
		if (p == nil) != (err != nil) {
			t.Errorf("%q is %v, %v", token, p, err)
		}
		return p
	}
	if k.Anonymous() != nil {
		t.Error("nobody needs a token")
	}
	for name, want := range map[string]bool{"keeps": true, "loses": true, "gone": true, "late": false, "nobody": false} {
		p := identify(secret(name))
		if (p != nil) != want || p != nil && p.Name != name {
			t.Errorf("%s is %+v", name, p)
		}
	}
	var changed []string
	k.OnChange(func(name string) { changed = append(changed, name) })
	late.Expires = late.Expires.Add(time.Hour)
	k.Replace([]access.Token{token("keeps", access.Read), token("loses", access.Submit), late, token("new", access.Admin)})
	if got := strings.Join(changed, " "); got != "gone late loses new" {
		t.Errorf("%s changed", got)
	}
	if identify(secret("gone")) != nil || identify(secret("loses")).May(access.Read) || identify(secret("late")) == nil || identify(secret("new")) == nil {
		t.Error("the old tokens count")
	}
	if p := access.NewKeyring(access.Options{Anonymous: []access.Scope{access.Read}}).Anonymous(); p.Name != "anonymous" || !p.May(access.Read) || p.May(access.Submit) {
		t.Errorf("without a token one is %+v", p)
	}
}

func TestValidName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"ci": true, "CI_2-b": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a.b": false, "a b": false, "*": false, "anonymous": false, "operator": false,
	} {
		if access.ValidName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// TestNameOf: two subjects never share a name, whatever they look like.
func TestNameOf(t *testing.T) {
	t.Parallel()
	subjects := []string{
		"alice", "alice@example.com", "alice_example_com", "alice.example.com", "auth0|5f7c8ec7c33c6c004bbafe82", "anonymous", "operator", "", "*", ">", " ", "é",
		strings.Repeat("x", 64), strings.Repeat("x", 65), strings.Repeat("x", 66), "sub-", "sub-alice", "SUB-alice", "a\x00b", "a\nb",
	}
	subjects = append(subjects, access.NameOf("alice@example.com"), access.NameOf(access.NameOf("*")))
	seen := make(map[string]string)
	for _, subject := range subjects {
		name := access.NameOf(subject)
		if !access.ValidName(name) {
			t.Errorf("%q is named %q", subject, name)
		}
		if other, taken := seen[name]; taken {
			t.Errorf("%q and %q are both named %q", subject, other, name)
		}
		seen[name] = subject
	}
	for subject, want := range map[string]string{"alice": "alice", "alice@example.com": "sub-alice_example_com-"} {
		if name := access.NameOf(subject); name != want && !strings.HasPrefix(name, want) || want == subject && name != want {
			t.Errorf("%q is named %q", subject, name)
		}
	}
}

// TestRights: whatever differs has other rights.
func TestRights(t *testing.T) {
	t.Parallel()
	seen := make(map[string]int)
	for i, p := range []access.Principal{
		{},
		{Types: []string{}},
		{Types: []string{""}},
		{Types: []string{"a b"}},
		{Types: []string{"a", "b"}},
		{Types: []string{"ab"}},
		{Scopes: []access.Scope{"read"}},
		{Scopes: []access.Scope{"read", "work"}},
		{Scopes: []access.Scope{"read work"}},
	} {
		for _, rights := range []string{p.Rights(), p.Rights("a"), p.Rights("a", "b"), p.Rights("a b")} {
			if other, taken := seen[rights]; taken {
				t.Errorf("%d and %d have the same rights", i, other)
			}
			seen[rights] = i
		}
	}
}

// TestFailedLogins guesses from one address. Tokens that cannot be guessed go on working
// there, and so does one that has been used there; all others wait. Other addresses do not
// notice.
func TestFailedLogins(t *testing.T) {
	t.Parallel()
	made := access.NewToken()
	list := []access.Token{{Hash: access.HashOf(made), Principal: access.Principal{Name: "made"}}}
	for _, name := range []string{"used", "fresh", "with.two.dots"} {
		list = append(list, access.Token{Hash: access.HashOf(name), Principal: access.Principal{Name: "p-" + name[:4]}})
	}
	k := access.NewKeyring(access.Options{Tokens: list, Verifier: signedBy("a.b.c")})
	kind := func(token, from string) access.RefusalKind {
		t.Helper()
		_, err := k.Identify(token, netip.MustParseAddr(from))
		if err == nil {
			return -1
		}
		var r *access.Refusal
		if !errors.As(err, &r) || r.Why == "" || (r.Again > 0) != (r.Kind == access.TooMany) || strings.Contains(r.Why, token) {
			t.Fatalf("%q: %v", token, err)
		}
		return r.Kind
	}
	const here = "2001:db8::1"
	if got := kind("used", here); got != -1 {
		t.Fatal(got)
	}
	guesses := 0
	for kind(fmt.Sprint("guess ", guesses), here) != access.TooMany {
		if guesses++; guesses > 1000 {
			t.Fatal("nobody is limited")
		}
	}
	if guesses < 10 {
		t.Errorf("only %d mistakes are allowed", guesses)
	}
	for _, c := range []struct {
		token, from string
		want        access.RefusalKind
	}{
		{"guess", here, access.TooMany},
		{"guess", "2001:db8::ffff:2", access.TooMany}, // of the same /64
		{"guess", "2001:db8:0:1::2", access.Unknown},
		{"guess", "192.0.2.1", access.Unknown},
		{"fresh", here, access.TooMany}, // the answer to a guess that is right
		{"with.two.dots", here, access.TooMany},
		{"fresh", "192.0.2.1", -1},
		{"used", here, -1},
		{made, here, -1},
		{"a.b.c", here, -1},
		{"a.b.d", here, access.TooMany},
	} {
		if got := kind(c.token, c.from); got != c.want {
			t.Errorf("%q from %s: %d, want %d", c.token, c.from, got, c.want)
		}
	}
	for range 100 {
		if _, err := k.Identify("guess", netip.Addr{}); err == nil || err.(*access.Refusal).Kind != access.Unknown { //nolint:errorlint // it says so
			t.Fatalf("this process itself: %v", err)
		}
	}
}

// signedBy is a verifier that knows one token.
type signedBy string

func (s signedBy) Verify(token string) (*access.Principal, error) {
	if token == string(s) {
		return &access.Principal{Name: "signed"}, nil
	}
	return nil, errors.New("the signature is wrong")
}

// TestForeignNames: a JWT cannot pass for a token of the configuration.
func TestForeignNames(t *testing.T) {
	t.Parallel()
	k := access.NewKeyring(access.Options{Verifier: signedBy("a.b.c")})
	if p, err := k.Identify("a.b.c", netip.Addr{}); err != nil || p.Name != "signed" {
		t.Fatalf("%v, %v", p, err)
	}
	var changed []string
	k.OnChange(func(name string) { changed = append(changed, name) })
	k.Replace([]access.Token{{Hash: access.HashOf("x"), Principal: access.Principal{Name: "signed"}}})
	if p, err := k.Identify("a.b.c", netip.Addr{}); err == nil {
		t.Errorf("it is %v", p)
	}
	if len(changed) != 1 || changed[0] != "signed" {
		t.Errorf("%q have changed", changed)
	}
}

package access_test

import (
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
	k := access.NewKeyring(nil, []access.Token{
		token("keeps", access.Read), token("loses", access.Read), token("gone", access.Read), late,
	}, nil)
	if k.Anonymous() != nil {
		t.Error("nobody needs a token")
	}
	for name, want := range map[string]bool{"keeps": true, "loses": true, "gone": true, "late": false, "nobody": false} {
		p := k.Identify(secret(name))
		if (p != nil) != want || p != nil && p.Name != name {
			t.Errorf("%s is %+v", name, p)
		}
	}
	var changed []string
	k.OnChange(func(name string) { changed = append(changed, name) })
	late.Expires = late.Expires.Add(time.Hour)
	k.Replace([]access.Token{token("keeps", access.Read), token("loses", access.Submit), late, token("new", access.Admin)})
	if got := strings.Join(changed, " "); got != "gone late loses" {
		t.Errorf("%s changed", got)
	}
	if k.Identify(secret("gone")) != nil || k.Identify(secret("loses")).May(access.Read) || k.Identify(secret("late")) == nil || k.Identify(secret("new")) == nil {
		t.Error("the old tokens count")
	}
	if p := access.NewKeyring([]access.Scope{access.Read}, nil, nil).Anonymous(); p.Name != "anonymous" || !p.May(access.Read) || p.May(access.Submit) {
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

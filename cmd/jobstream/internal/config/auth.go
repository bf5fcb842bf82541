package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"jobstream/jobs/access"
	"jobstream/jobs/access/signed"
	"jobstream/jobs/setting"
)

// Auth says who may do what at both doors.
type Auth struct {
	// Anonymous are the scopes of everybody without a token.
	Anonymous []string
	Tokens    map[string]*Token // by name
	// TokensFile is the absolute path of a file with more of them; "" = none.
	TokensFile string
	JWT        JWT
}

// JWT says which tokens of an identity provider count. Without Issuer, none does.
type JWT struct {
	Issuer   string // the claim iss
	Audience string // one of the claim aud
	// JWKS is where the provider's keys are: an address, or the absolute path of a file.
	JWKS        string
	ScopesClaim string // the name of the claim with the scopes
}

const jwtKey = "server.auth.jwt"

// FetchesKeys reports whether the keys come from an address.
func (j *JWT) FetchesKeys() bool { return strings.Contains(j.JWKS, "://") }

func (j *JWT) keys() []setting.Setting {
	printable := func(s string) bool { return !strings.ContainsFunc(s, unicode.IsControl) }
	return []setting.Setting{
		setting.Text(jwtKey+".issuer", &j.Issuer),
		setting.Text(jwtKey+".audience", &j.Audience),
		setting.Checked(jwtKey+".jwks", &j.JWKS, "the address or the path of a JSON Web Key Set", printable),
		setting.Checked(jwtKey+".scopes_claim", &j.ScopesClaim, "the name of a claim", func(s string) bool { return s != "" && printable(s) }),
	}
}

// checkJWT checks keys of the section that depend on one another.
func (l *loader) checkJWT() {
	j := &l.config.Server.Auth.JWT
	if j.Issuer == "" && j.Audience == "" && j.JWKS == "" {
		return
	}
	for _, k := range []struct{ name, value, missing string }{
		{".issuer", j.Issuer, "is missing; it is the claim iss of the tokens that count"},
		{".audience", j.Audience, "is missing; it is the claim aud of the tokens that are meant for this server"},
		{".jwks", j.JWKS, "is missing; it is the address or the file of the keys that the issuer signs with"},
	} {
		if k.value == "" && !l.failed(jwtKey+k.name) {
			l.fail(jwtKey+k.name, "", k.missing)
		}
	}
	switch {
	case j.FetchesKeys():
		if err := signed.CheckAddress(j.JWKS); err != nil {
			l.fail(jwtKey+".jwks", "", err.Error()) // it may have a password in it
		}
	case j.JWKS != "":
		j.JWKS = setting.Path(filepath.Dir(l.file), j.JWKS)
	}
}

// Keys reads the file of keys as it is now. The error is [Problems].
func (j *JWT) Keys() ([]byte, error) {
	data, err := os.ReadFile(j.JWKS)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, j.Mistake("does not exist")
	case err != nil:
		return nil, j.Mistake("cannot be read: " + err.Error())
	}
	return data, nil
}

// Mistake is the problem with the file of keys.
func (j *JWT) Mistake(text string) error {
	return Problems{{Key: jwtKey + ".jwks", Value: strconv.Quote(j.JWKS), Text: text}}
}

// Token is one entry of server.auth.tokens. The token itself is nowhere.
type Token struct {
	SHA256  string   // of the token, in hexadecimal digits
	Scopes  []string // what it may do
	Types   []string // the job types that it may submit and work on; empty = all
	Expires string   // a day, or a moment as in RFC 3339; "" = never
}

// tokensKey is the section of tokens.
const tokensKey = "server.auth.tokens"

// authKeys are the settings of the section server.auth.
func (a *Auth) keys() []setting.Setting {
	anonymous := scopes("server.auth.anonymous", &a.Anonymous)
	set := anonymous.Set
	anonymous.Set = func(v any) bool {
		ok := set(v)
		if a.Anonymous == nil {
			a.Anonymous = []string{} // that is nobody, not the default
		}
		return ok
	}
	list := []setting.Setting{
		anonymous,
		filePath("server.auth.tokens_file", &a.TokensFile),
	}
	list = append(list, a.JWT.keys()...)
	for _, name := range slices.Sorted(maps.Keys(a.Tokens)) {
		list = append(list, a.Tokens[name].keys(tokensKey+"."+name+".")...)
	}
	return list
}

func (t *Token) keys(path string) []setting.Setting {
	return []setting.Setting{
		setting.Checked(path+"sha256", &t.SHA256, "the SHA-256 of a token, 64 hexadecimal digits (jobstream token new prints one)", func(s string) bool {
			_, err := access.ParseHash(s)
			return err == nil
		}),
		scopes(path+"scopes", &t.Scopes),
		setting.Texts(path+"types", &t.Types),
		setting.Checked(path+"expires", &t.Expires, `a day like 2030-01-31, or a moment like 2030-01-31T12:00:00Z; "" = never`, func(s string) bool {
			_, err := moment(s)
			return err == nil
		}),
	}
}

// scopes is a list of scopes.
func scopes(path string, p *[]string) setting.Setting {
	var names []string
	for _, s := range access.Scopes() {
		names = append(names, string(s))
	}
	return setting.CheckedTexts(path, p, "a list of scopes: "+strings.Join(names, ", "), func(s string) bool { return slices.Contains(names, s) })
}

// moment reads when a token expires; zero = never. A day counts to its end.
func moment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	return time.Parse(time.RFC3339, s)
}

// declareTokens decides which tokens exist, before their keys are read.
func (l *loader) declareTokens(section *node) {
	if section == nil || len(section.entries) == 0 {
		return
	}
	l.config.Server.Auth.Tokens = make(map[string]*Token)
	for _, e := range section.entries {
		if !access.ValidName(e.key) {
			path := tokensKey + "." + e.key
			l.lines[path] = e.line
			l.fail(path, "", "is not a name for a token: 1 to 64 letters, digits, _ and -, and neither "+access.Anonymous+" nor "+access.Operator)
			continue
		}
		l.config.Server.Auth.Tokens[e.key] = new(Token)
	}
}

// checkTokens checks keys of tokens that depend on one another.
func (l *loader) checkTokens() {
	auth := &l.config.Server.Auth
	if auth.TokensFile != "" {
		auth.TokensFile = setting.Path(filepath.Dir(l.file), auth.TokensFile)
	}
	seen := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(auth.Tokens)) {
		t, path := auth.Tokens[name], tokensKey+"."+name
		switch {
		case t.SHA256 == "" && !l.failed(path+".sha256"):
			l.fail(path+".sha256", "", "is missing; jobstream token new prints one")
		case seen[t.SHA256] != "":
			l.fail(path+".sha256", "", "is that of "+seen[t.SHA256]+", too; each needs a token of its own")
		}
		seen[t.SHA256] = path
		if len(t.Scopes) == 0 && !l.failed(path+".scopes") {
			l.fail(path+".scopes", "", "is missing; name at least one of submit, read, manage, work, admin")
		}
	}
}

// checkReach refuses settings by which anybody on other machines may do something.
func (l *loader) checkReach() {
	c := l.config
	exposed := c.Exposed()
	if len(exposed) == 0 || c.Server.Insecure {
		return
	}
	for _, e := range exposed {
		key, host, _ := strings.Cut(e, " ")
		switch {
		case len(c.Server.Auth.Anonymous) > 0:
			l.fail("server.auth.anonymous", strings.Join(c.Server.Auth.Anonymous, ", "), "would be everybody's who reaches "+key+" "+host+
				"; leave it out, or confirm it by server.insecure: true")
			return
		case !c.Server.Auth.known():
			l.fail(key, quote(host), "is not loopback (127.0.0.1, ::1, localhost), and nobody would have to log in; "+
				"set server.auth.tokens (jobstream token new prints one) or server.auth.jwt, or confirm it by server.insecure: true")
		}
	}
}

// known reports whether anybody can log in.
func (a *Auth) known() bool { return len(a.Tokens) > 0 || a.TokensFile != "" || a.JWT.Issuer != "" }

// decideAnonymous sets the scopes of everybody without a token, if they are not set: all
// but admin on loopback, and elsewhere none. If nobody can log in, server.insecure has
// confirmed that everybody has them elsewhere, too.
func (c *Config) decideAnonymous() {
	a := &c.Server.Auth
	switch {
	case a.Anonymous != nil:
	case len(c.Exposed()) == 0 || !a.known():
		a.Anonymous = []string{string(access.Submit), string(access.Read), string(access.Manage), string(access.Work)}
	default:
		a.Anonymous = []string{}
	}
}

// Anonymous are the scopes of everybody without a token.
func (c *Config) Anonymous() []access.Scope { return scopesOf(c.Server.Auth.Anonymous) }

func scopesOf(names []string) []access.Scope {
	all := make([]access.Scope, len(names))
	for i, name := range names {
		all[i] = access.Scope(name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Keys are the tokens of the configuration and those of its file as they are now. The
// error is [Problems] that name the key in their file.
func (c *Config) Keys() ([]access.Token, error) {
	all, err := keysOf(c.Server.Auth.Tokens)
	if err != nil || c.Server.Auth.TokensFile == "" {
		return all, err
	}
	more, err := c.readTokens()
	if err != nil {
		return nil, err
	}
	for name := range more {
		if c.Server.Auth.Tokens[name] != nil {
			return nil, Problems{{Key: name, Text: "is in " + tokensKey + ", too; each token needs a name of its own", File: c.Server.Auth.TokensFile}}
		}
	}
	fromFile, err := keysOf(more)
	return append(all, fromFile...), err
}

func keysOf(tokens map[string]*Token) ([]access.Token, error) {
	var all []access.Token
	for _, name := range slices.Sorted(maps.Keys(tokens)) {
		t := tokens[name]
		hash, err := access.ParseHash(t.SHA256)
		expires, wrong := moment(t.Expires)
		if err := errors.Join(err, wrong); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		p := access.Principal{Name: name, Scopes: scopesOf(t.Scopes), Types: slices.Sorted(slices.Values(t.Types)), Expires: expires}
		all = append(all, access.Token{Hash: hash, Principal: p})
	}
	return all, nil
}

// readTokens reads the file of tokens, which has the section's entries at its top.
func (c *Config) readTokens() (map[string]*Token, error) {
	name := c.Server.Auth.TokensFile
	data, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, Problems{{Key: "server.auth.tokens_file", Value: strconv.Quote(name), Text: "does not exist"}}
	case err != nil:
		return nil, Problems{{Key: "server.auth.tokens_file", Value: strconv.Quote(name), Text: "cannot be read: " + err.Error()}}
	case len(data) > maxFile:
		return nil, Problems{{Key: "server.auth.tokens_file", Value: strconv.Quote(name), Text: "is larger than " + setting.FormatSize(maxFile)}}
	}
	root, problems, err := parseYAML(name, data)
	if err != nil {
		return nil, err
	}
	l := &loader{file: name, problems: problems, config: new(Config), lines: make(map[string]int)}
	l.declareTokens(root)
	l.keys = l.config.Server.Auth.keys()
	wrapped := root
	for _, section := range []string{"tokens", "auth", "server"} {
		wrapped = &node{section: true, entries: []entry{{key: section, node: wrapped}}}
	}
	if root == nil {
		wrapped = nil
	}
	if err := l.merge(wrapped, nil, nil); err != nil {
		return nil, err
	}
	l.decide()
	l.checkTokens()
	for i := range l.problems {
		l.problems[i].Key = strings.TrimPrefix(l.problems[i].Key, tokensKey+".")
	}
	if len(l.problems) > 0 {
		return nil, l.sorted()
	}
	return l.config.Server.Auth.Tokens, nil
}

package http

import (
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"maps"
	nethttp "net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/guard"
	"jobstream/jobs/handlers/internal/signature"
	"jobstream/jobs/handlers/internal/template"
	"jobstream/jobs/setting"
)

// Options are what a type of the kind http can be set to.
type Options struct {
	URL       string            // a template behind its host
	Method    string            // "POST", "PUT", "PATCH", "DELETE" or "GET"
	Headers   map[string]string // with secrets as ${env:NAME} and ${file:PATH}
	Body      string            // "payload", "job", "none" or "input:NAME"
	Secret    []string          // those that sign, in the same forms
	Permanent []int             // statuses that no retry cures
	Limits    struct {
		Output int64 // bytes of an answer
	}
	// Async is how long the endpoint may be silent after it has answered 202, until it
	// reports by the lease that it got; 0 = a 202 is an end like others.
	Async time.Duration
	CA    string   // the file of the certificates to trust; "" = the system's
	Proxy string   // its address; "" = none
	Allow []string // addresses and hosts that would be refused otherwise

	url     *template.Template
	fixed   *url.URL // all of it, if there is no template
	host    string   // as it stands in URL
	headers nethttp.Header
	secrets signature.Secrets
	roots   []byte // the content of CA
	proxy   *url.URL
	allow   guard.Allow
}

// NewOptions are the defaults.
func NewOptions() *Options {
	o := &Options{Method: nethttp.MethodPost, Body: "payload", Permanent: []int{400, 404, 410, 413, 415, 422}}
	o.Limits.Output = 64 << 20
	return o
}

// Settings binds the keys of a type.
func (o *Options) Settings() []setting.Setting {
	proxy := setting.Text("proxy", &o.Proxy)
	proxy.Get = func() any { return redacted(o.Proxy) }
	return []setting.Setting{
		setting.Text("url", &o.URL),
		setting.OneOf("method", &o.Method, nethttp.MethodPost, nethttp.MethodPut, nethttp.MethodPatch, nethttp.MethodDelete, nethttp.MethodGet),
		setting.Secret(setting.Map("headers", &o.Headers)),
		setting.Checked("body", &o.Body, "payload, job, none or input:NAME", func(v string) bool {
			return slices.Contains([]string{"payload", "job", "none"}, v) || strings.HasPrefix(v, bodyInput)
		}),
		setting.Secret(setting.OneOrMore("secret", &o.Secret)),
		setting.Wholes("permanent", &o.Permanent, 300, 599),
		setting.Size("limits.output", &o.Limits.Output, 1, 1<<40),
		setting.Duration("async", &o.Async, 0, jobs.MaxTimeout),
		setting.Text("ca", &o.CA),
		proxy,
		setting.Texts("allow", &o.Allow),
	}
}

// redacted is an address without the password in it.
func redacted(address string) string {
	if u, err := url.Parse(address); err == nil && u.User != nil {
		return u.Redacted()
	}
	return address
}

// LeaseTime is [jobs.Type.Lease].
func (o *Options) LeaseTime() time.Duration { return o.Async }

// HandsOver is [jobs.Type.HandsOver].
func (o *Options) HandsOver() bool { return o.Async > 0 }

// Grace is what the end of a request may take.
func (o *Options) Grace() time.Duration { return 5 * time.Second }

// Reads implements [jobstream/jobs/handlers.Reader] for the address and the body.
func (o *Options) Reads() iter.Seq2[string, []string] {
	return func(yield func(string, []string) bool) {
		if name, ok := strings.CutPrefix(o.Body, bodyInput); ok && !yield("body", []string{"inputs", name}) {
			return
		}
		if o.url == nil {
			return // it is wrong, which is said
		}
		for _, field := range o.url.Reads() {
			if !yield("url", field) {
				return
			}
		}
	}
}

// Describe says what the type calls, for people: secrets are not in the address.
func (o *Options) Describe() string { return o.Method + " " + o.URL }

// Check reads the address, the headers with their secrets, and the certificates. Relative
// paths begin at folder, that of the configuration's file.
func (o *Options) Check(folder string, fail func(path, text string)) {
	o.url, o.fixed = nil, nil
	allow, err := guard.ParseAllow(o.Allow)
	if err != nil {
		fail("allow", err.Error())
	}
	o.allow = allow
	if err := o.checkURL(); err != nil {
		fail("url", err.Error())
	}
	if o.Method == nethttp.MethodGet && o.Body != "none" {
		fail("body", "must be none with the method GET; name fields of the payload in url")
	}
	o.checkHeaders(folder, fail)
	o.checkSecret(folder, fail)
	if o.Async != 0 && o.Async < jobs.MinLease {
		fail("async", "must be 5s at least, or 0, so that the endpoint can report in time")
	}
	o.roots = nil
	if o.CA != "" {
		o.roots, err = os.ReadFile(setting.Path(folder, o.CA))
		switch {
		case err != nil:
			fail("ca", err.Error())
		case !x509.NewCertPool().AppendCertsFromPEM(o.roots):
			fail("ca", setting.Path(folder, o.CA)+" has no certificate in PEM")
		}
	}
	if o.proxy, err = parseProxy(o.Proxy); err != nil {
		fail("proxy", err.Error())
	}
}

// addresses is the language of URLs.
var addresses = template.Language{
	Makes: "an address", For: "the address", Roots: []string{"payload", "inputs", "job"},
	Max: 8 << 10, Escape: template.EscapeURL,
}

// checkURL wants everything that decides where a request goes to be literal.
func (o *Options) checkURL() error {
	if o.URL == "" {
		return errors.New(`is required: what is called, like http://127.0.0.1:9000/invoices/{{.payload.id}}`)
	}
	literal, _, isTemplate := strings.Cut(o.URL, "{{")
	u, err := parseHTTP(literal)
	switch {
	case err != nil:
		return err
	case u.User != nil:
		return errors.New("must have no user in it; set the header Authorization")
	case isTemplate && !strings.ContainsAny(strings.TrimPrefix(literal, u.Scheme+"://"), "/?"):
		return errors.New("must be literal up to its path: where a request goes stands in the configuration only")
	case strings.Contains(o.URL, "#"):
		return errors.New("must have no #: that part of an address is not sent")
	}
	if err := guard.LinkLocal(o.allow).Host(u.Hostname()); err != nil {
		return fmt.Errorf("%w; name it in allow if that is meant", err)
	}
	if o.host = u.Host; !isTemplate {
		o.fixed = u
	}
	o.url, err = addresses.Parse(o.URL)
	return err
}

// parseHTTP reads the address of a web server.
func parseHTTP(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return nil, fmt.Errorf("is no address: %w", err)
	}
	port, err := strconv.Atoi(u.Port())
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, errors.New("must begin with http:// or https:// and a host")
	case strings.HasSuffix(u.Host, ":") || u.Port() != "" && (err != nil || port < 1 || port > 65535):
		return nil, fmt.Errorf("has no port %q", u.Port())
	}
	return u, nil
}

func parseProxy(text string) (*url.URL, error) {
	if text == "" {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		return nil, errors.New("must be an address like http://proxy.example.com:3128, with http, https, socks5 or socks5h")
	}
	return u, nil
}

// own are the headers that the server sets, or that decide how a request is sent.
var own = []string{
	"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Expect", "Host", "Idempotency-Key", "Keep-Alive", "Proxy-Connection",
	"Te", "Traceparent", "Tracestate", "Trailer", "Transfer-Encoding", "Upgrade",
}

func isOwn(name string) bool {
	for _, prefix := range []string{"Ce-", "Jobstream-", "Webhook-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains(own, name)
}

var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

func (o *Options) checkHeaders(folder string, fail func(path, text string)) {
	o.headers = nethttp.Header{"User-Agent": {"jobstream"}}
	seen := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(o.Headers)) {
		canonical := nethttp.CanonicalHeaderKey(name)
		value, err := setting.Reveal(o.Headers[name], folder)
		switch {
		case !headerName.MatchString(name):
			fail("headers."+name, "must be the name of a header, like Authorization")
		case isOwn(canonical):
			fail("headers."+name, "is set by the server")
		case seen[canonical]:
			fail("headers."+name, "is there twice")
		case err != nil:
			fail("headers."+name, err.Error())
		case strings.Contains(o.Headers[name], "{{"):
			fail("headers."+name, "must not be a template; fields of a job can stand in url")
		case strings.ContainsFunc(value, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }):
			fail("headers."+name, "must have no line break or other control character")
		default:
			o.headers.Set(canonical, value)
		}
		seen[canonical] = true
	}
}

func (o *Options) checkSecret(folder string, fail func(path, text string)) {
	o.secrets = nil
	for i, text := range o.Secret {
		path := "secret"
		if len(o.Secret) > 1 {
			path = fmt.Sprintf("secret[%d]", i)
		}
		value, err := setting.Reveal(text, folder)
		if err != nil {
			fail(path, err.Error())
			continue
		}
		s, err := signature.Parse(value)
		if err != nil {
			fail(path, err.Error())
			continue
		}
		o.secrets = append(o.secrets, s...)
	}
}

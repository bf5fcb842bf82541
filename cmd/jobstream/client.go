package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs/handlers"
)

// clientFlags are the flags of commands that talk to a running server.
type clientFlags struct {
	configFlag
	URL   string `name:"url" placeholder:"URL" help:"REST address of the server (default: $$JOBSTREAM_URL, else server.host and server.port)."`
	Cert  string `name:"client-cert" placeholder:"FILE" help:"A client certificate and its key in one PEM file, for a server with server.tls.client_ca."`
	Token string `placeholder:"TOKEN" help:"A token for it (default: $$JOBSTREAM_TOKEN, else that of a server on this machine, whose data folder has one)."`
}

// clientTimeout is how long a server may take to answer.
const clientTimeout = time.Minute

// answered is an answer of a server.
type answered struct {
	status string // with its reason, like "200 OK"
	code   int
	body   []byte
}

// do sends a request without a body and reads the whole answer.
func (c *clientFlags) do(ctx context.Context, p *program, method, path string) (*answered, error) {
	answer, err := c.send(ctx, p, method, path) //nolint:bodyclose // whole closes it
	if err != nil {
		return nil, err
	}
	return whole(answer)
}

// whole reads the whole answer.
func whole(answer *http.Response) (*answered, error) {
	defer func() { _ = answer.Body.Close() }() // all of it has been read
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("the server's answer was cut off: %w", err)
	}
	return &answered{answer.Status, answer.StatusCode, body}, nil
}

// send sends a request without a body, and returns the answer with its body unread.
func (c *clientFlags) send(ctx context.Context, p *program, method, path string) (*http.Response, error) {
	base, err := c.base(p)
	if err != nil {
		return nil, &usageError{err}
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+path, nil)
	if err != nil {
		return nil, &usageError{fmt.Errorf("%s is no address of a server: %w", base, err)}
	}
	client, token, err := c.client(p, request.URL)
	if err != nil {
		return nil, &usageError{err}
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the server cannot be reached; name its address with --url if it is another one: %w", err)
	}
	return answer, nil
}

// base is the address of the server.
func (c *clientFlags) base(p *program) (string, error) {
	if c.URL != "" {
		return c.URL, nil
	}
	if value := variable(p.environ, config.URLVariable); value != "" {
		return value, nil
	}
	at, err := config.Running(c.File, handlers.Kinds(), p.environ)
	if err != nil {
		return "", err
	}
	if at.Port == 0 {
		return "", errors.New("server.port is 0, so the server has any port; name its address with --url")
	}
	host, scheme := at.Host, "http://"
	if at.TLS.Cert != "" {
		scheme = "https://"
	}
	if a, err := netip.ParseAddr(host); err == nil && a.IsUnspecified() {
		if host = "127.0.0.1"; a.Is6() {
			host = "::1"
		}
	}
	return scheme + net.JoinHostPort(host, strconv.Itoa(at.Port)), nil
}

// client is a client for the server at an address, and the token for it; "" = none.
func (c *clientFlags) client(p *program, to *url.URL) (client *http.Client, token string, err error) {
	t, err := c.transport(p, to.Hostname())
	if err != nil {
		return nil, "", err
	}
	client = &http.Client{Transport: t}
	if token = c.token(p); token != "" {
		return client, token, nil
	}
	token, at := c.operator(p, to)
	if token != "" {
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, at)
		}
	}
	return client, token, nil
}

// transport connects to the server by this name. It knows the server of the configuration
// by its very certificate. That need not be for the name, nor from an authority that this
// machine knows.
func (c *clientFlags) transport(p *program, name string) (*http.Transport, error) {
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Cert)
		if err != nil {
			return nil, fmt.Errorf("--client-cert: %w", err)
		}
		secure.Certificates = []tls.Certificate{pair}
	}
	at, err := config.Running(c.File, handlers.Kinds(), p.environ)
	if err == nil && at.TLS.Cert != "" {
		own, err := at.TLS.Certificate()
		if err == nil {
			secure.InsecureSkipVerify = true //nolint:gosec // known checks instead
			secure.VerifyConnection = func(s tls.ConnectionState) error { return known(own, name, s.PeerCertificates) }
		}
	}
	// A command sends one request.
	return &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment, TLSClientConfig: secure}, nil
}

// known returns an error unless a server's certificates begin with own, or lead from this
// name to an authority that this machine knows.
func known(own *x509.Certificate, name string, chain []*x509.Certificate) error {
	if chain[0].Equal(own) {
		return nil
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Intermediates: between})
	return err
}

// token is the token that the user has given.
func (c *clientFlags) token(p *program) string {
	if c.Token != "" {
		return c.Token
	}
	return variable(p.environ, config.TokenVariable)
}

// operator returns the token in the data folder, and the address of the server that has
// written it there. The token is for that server alone: as long as it runs, nobody else
// can listen there. Both are empty if the request is for another one.
func (c *clientFlags) operator(p *program, to *url.URL) (token, at string) {
	running, err := config.Running(c.File, handlers.Kinds(), p.environ)
	if err != nil { // the server still runs with what the file was
		running.Dir = config.Default(nil).Data.Dir
	}
	text, _ := os.ReadFile(filepath.Join(running.Dir, operatorFile)) // without one the server says what is missing
	token, at, _ = strings.Cut(strings.TrimSpace(string(text)), "\n")
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		return "", ""
	}
	name := to.Hostname()
	a, err := netip.ParseAddr(name)
	here := name == "localhost" || name == host || err == nil && a.IsLoopback()
	if given := to.Port(); !here || given != port && (given != "" || port != map[string]string{"http": "80", "https": "443"}[to.Scheme]) {
		return "", ""
	}
	return token, at
}

// variable is the value of an environment variable; "" if it is not set.
func variable(environ []string, name string) string {
	for _, v := range environ {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

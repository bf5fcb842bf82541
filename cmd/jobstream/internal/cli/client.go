package cli

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

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs/handlers"
)

// ServerFlags are the flags of commands that talk to a running server.
type ServerFlags struct {
	ConfigFlag
	URL   string `name:"url" placeholder:"URL" help:"REST address of the server (default: $$JOBSTREAM_URL, else server.host and server.port)."`
	Cert  string `name:"client-cert" placeholder:"FILE" help:"A client certificate and its key in one PEM file, for a server with server.tls.client_ca."`
	Token string `placeholder:"TOKEN" help:"A token for it (default: $$JOBSTREAM_TOKEN, else that of a server on this machine, whose data folder has one)."`
}

// OperatorFile is a file in the data folder with a token for whoever may read that folder,
// and so may do everything anyway: the commands of the operator on this machine use it. It
// is valid as long as the server runs. The second line is the server's address. They send
// the token nowhere else.
const OperatorFile = "operator-token"

// Connect returns a client for the server. Nothing is sent yet. The error is a
// [*UsageError].
func (c *ServerFlags) Connect(p *Program) (*Client, error) {
	base, err := c.Base(p)
	if err != nil {
		return nil, &UsageError{err}
	}
	base = strings.TrimSuffix(base, "/")
	at, err := url.Parse(base)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, Usagef("%s is no address of a server; one is like http://127.0.0.1:8080", base)
	}
	client, token, err := c.client(p, at)
	if err != nil {
		return nil, &UsageError{err}
	}
	return &Client{base: base, token: token, http: client}, nil
}

// Whole asks the server for something of all that it has, which may take long, and returns
// the answer unread. Without a running server one may look at its folder instead.
func (c *ServerFlags) Whole(ctx context.Context, p *Program, path string) (io.ReadCloser, error) {
	server, err := c.Connect(p)
	if err != nil {
		return nil, err
	}
	answer, err := server.Send(ctx, http.MethodGet, path, nil)
	var unreachable *UnreachableError
	if errors.As(err, &unreachable) {
		return nil, fmt.Errorf("%w\nIf it does not run, name its folder with --data", err)
	}
	if err != nil {
		return nil, err
	}
	return answer.Body, nil
}

// Base is the address of the server.
func (c *ServerFlags) Base(p *Program) (string, error) {
	if c.URL != "" {
		return c.URL, nil
	}
	if value := variable(p.Environ, config.URLVariable); value != "" {
		return value, nil
	}
	at, err := config.Running(c.File, handlers.Kinds(), p.Environ)
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
func (c *ServerFlags) client(p *Program, to *url.URL) (client *http.Client, token string, err error) {
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
func (c *ServerFlags) transport(p *Program, name string) (*http.Transport, error) {
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Cert)
		if err != nil {
			return nil, fmt.Errorf("--client-cert: %w", err)
		}
		secure.Certificates = []tls.Certificate{pair}
	}
	at, err := config.Running(c.File, handlers.Kinds(), p.Environ)
	if err == nil && at.TLS.Cert != "" {
		own, err := at.TLS.Certificate()
		if err == nil {
			secure.InsecureSkipVerify = true //nolint:gosec // known checks instead
			secure.VerifyConnection = func(s tls.ConnectionState) error { return known(own, name, s.PeerCertificates) }
		}
	}
	return &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: secure}, nil
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
func (c *ServerFlags) token(p *Program) string {
	if c.Token != "" {
		return c.Token
	}
	return variable(p.Environ, config.TokenVariable)
}

// operator returns the token in the data folder, and the address of the server that has
// written it there. The token is for that server alone: as long as it runs, nobody else
// can listen there. Both are empty if the request is for another one.
func (c *ServerFlags) operator(p *Program, to *url.URL) (token, at string) {
	running, err := config.Running(c.File, handlers.Kinds(), p.Environ)
	if err != nil { // the server still runs with what the file was
		running.Dir = config.Default(nil).Data.Dir
	}
	text, _ := os.ReadFile(filepath.Join(running.Dir, OperatorFile)) // without one the server says what is missing
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

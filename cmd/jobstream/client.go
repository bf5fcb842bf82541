package main

import (
	"context"
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
	base, err := c.base(p)
	if err != nil {
		return nil, &usageError{err}
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+path, nil)
	if err != nil {
		return nil, &usageError{fmt.Errorf("%s is no address of a server: %w", base, err)}
	}
	if token := c.token(p, request.URL); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the server cannot be reached; name its address with --url if it is another one: %w", err)
	}
	defer func() { _ = answer.Body.Close() }() // all of it has been read
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("the server's answer was cut off: %w", err)
	}
	return &answered{answer.Status, answer.StatusCode, body}, nil
}

// base is the address of the server.
func (c *clientFlags) base(p *program) (string, error) {
	if c.URL != "" {
		return c.URL, nil
	}
	if value := variable(p.environ, config.URLVariable); value != "" {
		return value, nil
	}
	host, port, _, err := config.Running(c.File, handlers.Kinds(), p.environ)
	if err != nil {
		return "", err
	}
	if port == 0 {
		return "", errors.New("server.port is 0, so the server has any port; name its address with --url")
	}
	if a, err := netip.ParseAddr(host); err == nil && a.IsUnspecified() {
		if host = "127.0.0.1"; a.Is6() {
			host = "::1"
		}
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// token is what the request is sent with. The token in the data folder is only for a
// server on this machine.
func (c *clientFlags) token(p *program, to *url.URL) string {
	if c.Token != "" {
		return c.Token
	}
	if value := variable(p.environ, config.TokenVariable); value != "" {
		return value
	}
	if a, err := netip.ParseAddr(to.Hostname()); to.Hostname() != "localhost" && (err != nil || !a.IsLoopback()) {
		return ""
	}
	_, _, dir, err := config.Running(c.File, handlers.Kinds(), p.environ)
	if err != nil { // the server still runs with what the file was
		dir = config.Default(nil).Data.Dir
	}
	text, _ := os.ReadFile(filepath.Join(dir, operatorFile)) // without one the server says what is missing
	return strings.TrimSpace(string(text))
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

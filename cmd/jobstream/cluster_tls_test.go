package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// encrypted are the keys for routes with a certificate of an authority, which is for
// 127.0.0.1.
func (n *nodeProcess) encrypted(a *authority) string {
	n.t.Helper()
	dir := filepath.Join(n.dir, "tls")
	mustDo(n.t, os.MkdirAll(dir, 0o700))
	f := a.files(dir, "127.0.0.1")
	return fmt.Sprintf("tls: {cert: %q, key: %q, ca: %q}", f.Cert, f.Key, f.ClientCA)
}

// TestClusterRoutesTLS has three members whose routes are encrypted. Whoever has the
// certificate of another authority, or none, stays outside, and the log of both says so.
func TestClusterRoutesTLS(t *testing.T) {
	t.Parallel()
	p := newNodes(t, "n1", "n2", "n3")
	ours, others := newAuthority(t), newAuthority(t)
	a, b, c := p.all[0], p.all[1], p.all[2]
	among := routes(a, b, c)
	a.member(among, a.encrypted(ours))
	b.member(among, b.encrypted(ours))
	c.member(among, c.encrypted(ours))
	for _, n := range p.all {
		n.start()
	}
	awaitReady(t, a, b, c)
	c.stop()
	id := a.submit("")
	b.has(id, "completed")

	for _, more := range [][]string{{c.encrypted(others)}, nil} { // another authority; no encryption
		c.member(among, more...)
		c.start()
		waitUntil(t, func() bool { code, _ := c.do(http.MethodGet, "/livez", ""); return code == http.StatusOK })
		select { // it has tried a route, and one side has refused the other
		case <-c.log.has("0 of 2 other members are connected"):
		case err := <-c.done:
			t.Fatalf("the stranger has ended: %v\n%s", err, c.log)
		}
		if code, body := c.do(http.MethodGet, "/readyz", ""); code != http.StatusServiceUnavailable {
			t.Errorf("a stranger is %d: %s", code, body)
		}
		for _, n := range a.list() {
			if n.Name == c.name && n.Ready {
				t.Errorf("a member takes the stranger for ready")
			}
		}
		c.kill()
	}
	if text := a.log.String() + b.log.String(); !strings.Contains(text, "tls: ") && !strings.Contains(text, "TLS") {
		t.Errorf("the members do not say that a handshake failed:\n%s", text)
	}

	c.member(among, c.encrypted(ours))
	c.start()
	awaitReady(t, a, b, c)
	c.has(id, "completed")
}

// TestClusterRoutesOpen: without encryption a start with routes beyond this machine is
// refused, whoever's address it is.
func TestClusterRoutesOpen(t *testing.T) {
	t.Parallel()
	p := newNodes(t, "n1")
	n := p.all[0]
	bin, err := built()
	mustDo(t, err)
	for _, among := range []string{`["10.0.0.1:6222", "10.0.0.2:6222", "10.0.0.3:6222"]`, fmt.Sprintf(`[%q, "127.0.0.1:1", "nodes.example.com:6222"]`, n.listen)} {
		n.member(among)
		c := exec.CommandContext(t.Context(), bin)
		c.Dir, c.Env = n.dir, cleanEnviron()
		out, err := c.CombinedOutput()
		if c.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(out), "set broker.cluster.tls") {
			t.Errorf("routes %s: the start ends with %v and\n%s", among, err, out)
		}
		if _, err := os.Stat(filepath.Join(n.dir, "data")); !os.IsNotExist(err) {
			t.Errorf("it has made a data folder: %v", err)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs/jobstest"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64 // serial number
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	made := &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key = a.sign(made)
	return a
}

func (a *authority) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	mustDo(a.t, err)
	a.last++
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(a.last), time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	mustDo(a.t, err)
	made, err := x509.ParseCertificate(der)
	mustDo(a.t, err)
	return made, key
}

// pair makes a certificate for these names and addresses, and its key, both in PEM.
func (a *authority) pair(names ...string) (cert, key []byte) {
	a.t.Helper()
	c := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "somebody"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	made, k := a.sign(c)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	mustDo(a.t, err)
	return inPEM("CERTIFICATE", made.Raw), inPEM("PRIVATE KEY", der)
}

func inPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// files writes such a pair and the authority into a folder.
func (a *authority) files(dir string, names ...string) config.TLS {
	a.t.Helper()
	t := config.TLS{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), ClientCA: filepath.Join(dir, "ca.pem")}
	cert, key := a.pair(names...)
	for name, data := range map[string][]byte{t.Cert: cert, t.Key: key, t.ClientCA: inPEM("CERTIFICATE", a.cert.Raw)} {
		mustDo(a.t, os.WriteFile(name, data, 0o600))
	}
	return t
}

// trusts is the configuration of a client that trusts the authority.
func (a *authority) trusts() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// client is such a client with a certificate of this authority.
func (a *authority) client(from *authority) *tls.Config {
	c := a.trusts()
	cert, key := from.pair()
	pair, err := tls.X509KeyPair(cert, key)
	mustDo(a.t, err)
	c.Certificates = []tls.Certificate{pair}
	return c
}

// openTLS starts a server with these files, which h.client trusts.
func openTLS(t *testing.T, files config.TLS, a *authority) *house {
	t.Helper()
	h := open(t, t.TempDir(), setup{change: func(c *config.Config) { c.Server.TLS = files }})
	h.client = dials(a.trusts())
	return h
}

// dials is a client with these settings. It never uses a connection for two requests.
func dials(c *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: c.Clone(), ForceAttemptHTTP2: true, DisableKeepAlives: true}, Timeout: patience}
}

// page is an answer, and the protocol that it came by.
type page struct {
	code  int
	proto string
	body  string
}

func visit(client *http.Client, url string) (*page, error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	return &page{answer.StatusCode, answer.Proto, string(body)}, errors.Join(err, answer.Body.Close())
}

// doors are attempts to use both doors with these settings of a client; an error means
// that they were refused.
func (h *house) doors(c *tls.Config) map[string]error {
	get := func() error {
		got, err := visit(dials(c), h.rest+"/jobs")
		if err == nil && got.code != http.StatusOK {
			err = errors.New(got.body)
		}
		return err
	}
	connect := func() error {
		nc, err := nats.Connect(h.nats, nats.Secure(c.Clone()), nats.NoReconnect(), nats.Timeout(patience))
		if err != nil {
			return err
		}
		defer nc.Close()
		_, err = nc.Request("jobstream.stats", nil, patience)
		return err
	}
	return map[string]error{"REST": get(), "NATS": connect()}
}

// TestContractTLS: both doors encrypt, and refuse whoever does not.
func TestContractTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	files := a.files(t.TempDir(), "127.0.0.1")
	files.ClientCA = ""
	h := openTLS(t, files, a)
	if !strings.HasPrefix(h.rest, "https://127.0.0.1:") || !strings.HasPrefix(h.nats, "tls://127.0.0.1:") {
		t.Errorf("the doors are at %s and %s", h.rest, h.nats)
	}
	if line := h.log.line("msg=ready"); !strings.Contains(line, "curl --cacert "+files.Cert+" https://") {
		t.Errorf("the log suggests %s", line)
	}
	got, err := visit(h.client, h.rest+"/livez")
	mustDo(t, err)
	if got.code != http.StatusOK || got.proto != "HTTP/2.0" {
		t.Errorf("REST answers %+v", got)
	}
	job := h.submit(`{"type":"report"}`) // it runs over the connections in the process
	h.await(job.ID, "completed")
	nc, err := nats.Connect(h.nats, nats.Secure(a.trusts()), nats.NoReconnect())
	mustDo(t, err)
	defer nc.Close()
	m, err := nc.Request("jobstream.submit", []byte(`{"type":"report"}`), patience)
	mustDo(t, err)
	h.await(readJob(t, m.Data).ID, "completed")
	for door, err := range h.doors(a.trusts()) {
		if err != nil {
			t.Errorf("%s: %v", door, err)
		}
	}
	for door, err := range h.doors(newAuthority(t).trusts()) {
		if unknown := new(x509.UnknownAuthorityError); !errors.As(err, unknown) {
			t.Errorf("%s, with another authority: %v", door, err)
		}
	}
	old := a.trusts()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for door, err := range h.doors(old) {
		if err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("%s, with TLS 1.1: %v", door, err)
		}
	}
	plain, err := visit(http.DefaultClient, "http"+strings.TrimPrefix(h.rest, "https")+"/jobs")
	mustDo(t, err)
	if plain.code != http.StatusBadRequest || !strings.Contains(plain.body, "HTTP request to an HTTPS server") {
		t.Errorf("a request that is not encrypted gets %+v", plain)
	}
	// a login may be longer than the 4 KiB that a line of the protocol may have by default
	_, err = nats.Connect(h.nats, nats.Secure(a.trusts()), nats.UserInfo("ci", strings.Repeat("x", 15_000)), nats.NoReconnect())
	if !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a long token gets %v", err)
	}
}

// TestContractTLSClients: with authorities for clients nobody comes in without a
// certificate of theirs.
func TestContractTLSClients(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	files := a.files(t.TempDir(), "127.0.0.1")
	h := openTLS(t, files, a)
	for door, err := range h.doors(a.client(a)) {
		if err != nil {
			t.Errorf("%s: %v", door, err)
		}
	}
	for door, err := range h.doors(a.trusts()) {
		if err == nil {
			t.Errorf("%s lets in a client without a certificate", door)
		}
	}
	for door, err := range h.doors(a.client(newAuthority(t))) {
		if err == nil {
			t.Errorf("%s lets in a client with a certificate of a stranger", door)
		}
	}
	tool := jobstest.Tool(t, "nats")
	ask := func(more ...string) (string, error) {
		args := append([]string{"--server", h.nats, "--tlsca", files.ClientCA, "--timeout", patience.String()}, more...)
		cmd := exec.CommandContext(t.Context(), tool, append(args, "req", "jobstream.stats", "{}")...)
		cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := ask("--tlscert", files.Cert, "--tlskey", files.Key); err != nil || !strings.Contains(out, `"active_workers"`) {
		t.Errorf("the nats tool: %v\n%s", err, out)
	}
	if out, err := ask(); err == nil {
		t.Errorf("the nats tool is let in without a certificate:\n%s", out)
	}
}

// TestContractTLSFilesChange exchanges the files while clients are at work. Connections
// go on, and the next one has the new certificate. Half a change changes nothing.
func TestContractTLSFilesChange(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	files := a.files(t.TempDir(), "127.0.0.1")
	h := openTLS(t, files, a)
	secure := a.client(a)
	h.client = dials(secure)
	serial := func() map[string]string {
		all := make(map[string]string)
		for door, url := range map[string]string{"REST": h.rest, "NATS": h.nats} {
			c := secure.Clone()
			c.VerifyConnection = func(s tls.ConnectionState) error {
				all[door] = s.PeerCertificates[0].SerialNumber.String()
				return nil
			}
			if door == "NATS" {
				nc, err := nats.Connect(url, nats.Secure(c.Clone()), nats.NoReconnect())
				mustDo(t, err)
				nc.Close()
				continue
			}
			_, err := visit(dials(c), url+"/livez")
			mustDo(t, err)
		}
		return all
	}
	before := serial()
	load, stop := context.WithCancel(t.Context())
	defer stop()
	lost := func(*nats.Conn, error) { t.Error("a NATS connection was lost") }
	nc, err := nats.Connect(h.nats, nats.Secure(secure.Clone()), nats.NoReconnect(), nats.DisconnectErrHandler(lost))
	mustDo(t, err)
	keeps := &http.Client{Transport: &http.Transport{TLSClientConfig: secure.Clone(), MaxConnsPerHost: 1}, Timeout: patience}
	var cut atomic.Int64
	keeps.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &ends{c, &cut}, err
	}
	var clients sync.WaitGroup
	for _, work := range []func() error{
		func() error { _, err := nc.Request("jobstream.stats", nil, patience); return err },
		func() error { _, err := h.try(context.Background(), "GET", "/livez", ""); return err },
		func() error { _, err := visit(keeps, h.rest+"/livez"); return err },
	} {
		clients.Go(func() {
			for load.Err() == nil {
				if err := work(); err != nil {
					t.Errorf("under load: %v", err)
					return
				}
			}
		})
	}
	await := func(text string) {
		t.Helper()
		select {
		case <-h.log.has(text):
		case <-time.After(patience):
			t.Fatalf("no %q in the log", text)
		}
	}
	cert, key := a.pair("127.0.0.1")
	mustDo(t, os.WriteFile(files.Cert, cert, 0o600))
	await("server.tls.key: ")
	if now := serial(); now["REST"] != before["REST"] || now["NATS"] != before["NATS"] {
		t.Errorf("half a change has changed %v to %v", before, now)
	}
	mustDo(t, os.WriteFile(files.Key, key, 0o600))
	await("the certificate is that of its file as it is now")
	now := serial()
	if now["REST"] == before["REST"] || now["REST"] != now["NATS"] {
		t.Errorf("the certificates are %v, and were %v", now, before)
	}
	stop()
	clients.Wait()
	if n := cut.Load(); n != 0 {
		t.Errorf("%d connections of a client were cut", n)
	}
	nc.SetDisconnectErrHandler(nil)
	nc.Close()
	if n := strings.Count(h.log.String(), "the certificate stays as it was"); n != 1 {
		t.Errorf("half a change is logged %d times", n)
	}
	// other authorities count for the next connection, too
	other := newAuthority(t)
	mustDo(t, os.WriteFile(files.ClientCA, inPEM("CERTIFICATE", other.cert.Raw), 0o600))
	waitUntil(t, func() bool {
		errs := h.doors(a.client(other))
		return errs["REST"] == nil && errs["NATS"] == nil
	})
	for door, err := range h.doors(secure) {
		if err == nil {
			t.Errorf("%s lets in clients of the authority that has gone", door)
		}
	}
}

// ends counts the connections that the other side has closed.
type ends struct {
	net.Conn
	count *atomic.Int64
}

func (e *ends) Read(b []byte) (int, error) {
	n, err := e.Conn.Read(b)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		e.count.Add(1)
	}
	return n, err
}

// TestContractTLSMistakes: files that cannot be used stop the start, by the name of
// their key.
func TestContractTLSMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	newAuthority(t).files(dir)
	_, key := newAuthority(t).pair()
	mustDo(t, os.WriteFile(filepath.Join(dir, "other-key.pem"), key, 0o600))
	mustDo(t, os.WriteFile(filepath.Join(dir, "empty.pem"), nil, 0o600))
	mustDo(t, os.WriteFile(filepath.Join(dir, "bad.pem"), inPEM("CERTIFICATE", []byte("nonsense")), 0o600))
	file := filepath.Join(dir, "config.yaml")
	for section, want := range map[string]string{
		"cert: cert.pem":                                       "server.tls.key: is missing",
		"key: key.pem":                                         "server.tls.cert: is missing",
		"client_ca: ca.pem":                                    "server.tls.cert: is missing",
		"cert: nope.pem, key: key.pem":                         `nope.pem" does not exist`,
		"cert: empty.pem, key: key.pem":                        `empty.pem" has no certificate in PEM`,
		"cert: bad.pem, key: key.pem":                          `bad.pem" has a certificate that cannot be read`,
		"cert: cert.pem, key: nope.pem":                        `nope.pem" does not exist`,
		"cert: cert.pem, key: .":                               `" cannot be read: `,
		"cert: cert.pem, key: other-key.pem":                   `other-key.pem" is not the key of the certificate in server.tls.cert`,
		"cert: cert.pem, key: key.pem, client_ca: nope.pem":    `nope.pem" does not exist`,
		"cert: cert.pem, key: key.pem, client_ca: key.pem":     `key.pem" has no certificate in PEM`,
		"cert: cert.pem, key: key.pem, client_ca: ca.pem, x: ": "server.tls.x",
	} {
		mustDo(t, os.WriteFile(file, []byte("server: {port: 0, tls: {"+section+"}}\nbroker: {port: -1}\n"), 0o600))
		var out bytes.Buffer
		code := run(t.Context(), []string{"serve", "--config", file, "--data", t.TempDir()}, nil, &out, &out)
		if !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "server.tls.") || code != exitUsage {
			t.Errorf("%s: exit code %d, and\n%s", section, code, &out)
		}
		if bytes.Contains(out.Bytes(), key[30:60]) {
			t.Errorf("%s shows a key", section)
		}
	}
}

// TestContractReloadTLS: the command knows the server by the certificate of its
// configuration, whatever names that has.
func TestContractReloadTLS(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	files := a.files(dir, "jobs.example.com")
	text := "server: {tls: {cert: cert.pem, key: key.pem%s}}\njobs: {%s: {run: report}}\n"
	h := openReloadIn(t, dir, fmt.Sprintf(text, ", client_ca: ca.pem", "one"))
	port := h.rest[strings.LastIndexByte(h.rest, ':')+1:]
	cert, key := a.pair()
	mine := filepath.Join(dir, "mine.pem")
	mustDo(t, os.WriteFile(mine, append(cert, key...), 0o600))
	reload := func(args ...string) (int, string) {
		var both bytes.Buffer
		args = append([]string{"reload", "-o", "table", "--config", h.file}, args...)
		code := run(t.Context(), args, []string{"JOBSTREAM_SERVER_PORT=" + port, "JOBSTREAM_TOKEN=" + adminToken}, &both, &both)
		return code, both.String()
	}
	mustDo(t, os.WriteFile(h.file, fmt.Appendf(nil, text, ", client_ca: ca.pem", "two"), 0o600))
	if code, out := reload(); code != exitBroken || !strings.Contains(out, "certificate required") {
		t.Errorf("without a certificate: %d %s", code, out)
	}
	if code, out := reload("--client-cert", files.Cert); code != exitUsage || !strings.Contains(out, "--client-cert") {
		t.Errorf("with half a certificate: %d %s", code, out)
	}
	if code, out := reload("--client-cert", mine); code != exitOK || !strings.Contains(out, "added: two") {
		t.Errorf("%d %s", code, out)
	}
	// a server with another certificate is not the one of the configuration
	other := filepath.Join(dir, "other")
	mustDo(t, os.Mkdir(other, 0o700))
	newAuthority(t).files(other, "127.0.0.1")
	mustDo(t, os.WriteFile(h.file, fmt.Appendf(nil, strings.ReplaceAll(text, ": cert.pem", ": other/cert.pem"), "", "two"), 0o600))
	if code, out := reload("--client-cert", mine); code != exitBroken || !strings.Contains(out, "x509") {
		t.Errorf("a stranger: %d %s", code, out)
	}
}

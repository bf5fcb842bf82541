package guard

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// addresses are looked at by both guards: "" passes; the words are those of the refusal.
var addresses = []struct {
	address   string
	public    string
	linkLocal string
}{
	// the public Internet, and the neighbours of all that is refused
	{"1.1.1.1", "", ""},
	{"8.8.8.8", "", ""},
	{"9.255.255.255", "", ""},
	{"11.0.0.0", "", ""},
	{"100.63.255.255", "", ""},
	{"100.128.0.0", "", ""},
	{"126.255.255.255", "", ""},
	{"128.0.0.0", "", ""},
	{"168.63.129.15", "", ""},
	{"168.63.129.17", "", ""},
	{"169.253.255.255", "", ""},
	{"169.255.0.0", "", ""},
	{"172.15.255.255", "", ""},
	{"172.32.0.0", "", ""},
	{"191.255.255.255", "", ""},
	{"192.0.1.0", "", ""},
	{"192.0.3.0", "", ""},
	{"192.88.98.255", "", ""},
	{"192.167.255.255", "", ""},
	{"192.169.0.0", "", ""},
	{"198.17.255.255", "", ""},
	{"198.20.0.0", "", ""},
	{"198.51.99.255", "", ""},
	{"198.51.101.0", "", ""},
	{"203.0.112.255", "", ""},
	{"203.0.114.0", "", ""},
	{"223.255.255.255", "", ""},
	{"2606:4700:4700::1111", "", ""},
	{"2a00:1450:4001:81b::200e", "", ""},
	{"2001:200::1", "", ""},
	{"2001:db7:ffff::1", "", ""},
	{"2001:db9::1", "", ""},
	{"2003::1", "", ""},
	{"3ffe::1", "", ""},

	// IPv4
	{"0.0.0.0", "this network", ""},
	{"0.255.255.255", "this network", ""},
	{"10.0.0.0", "private", ""},
	{"10.255.255.255", "private", ""},
	{"100.64.0.0", "CGNAT", ""},
	{"100.100.100.200", "CGNAT", ""}, // Alibaba's metadata
	{"100.127.255.255", "CGNAT", ""},
	{"127.0.0.1", "loopback", ""},
	{"127.255.255.255", "loopback", ""},
	{"168.63.129.16", "a cloud's own", ""},
	{"169.254.0.0", "link-local", "link-local"},
	{"169.254.169.254", "link-local", "link-local"}, // AWS, GCP and Azure
	{"169.254.170.2", "link-local", "link-local"},   // credentials of ECS
	{"169.254.255.255", "link-local", "link-local"},
	{"172.16.0.0", "private", ""},
	{"172.31.255.255", "private", ""},
	{"192.0.0.0", "reserved", ""},
	{"192.0.0.192", "reserved", ""}, // Oracle's metadata
	{"192.0.0.255", "reserved", ""},
	{"192.0.2.1", "documentation", ""},
	{"192.88.99.1", "6to4", ""},
	{"192.168.0.0", "private", ""},
	{"192.168.255.255", "private", ""},
	{"198.18.0.0", "measurements", ""},
	{"198.19.255.255", "measurements", ""},
	{"198.51.100.7", "documentation", ""},
	{"203.0.113.7", "documentation", ""},
	{"224.0.0.1", "multicast", ""},
	{"239.255.255.255", "multicast", ""},
	{"240.0.0.0", "reserved", ""},
	{"255.255.255.254", "reserved", ""},
	{"255.255.255.255", "broadcast", ""},

	// IPv6
	{"::", "unspecified", ""},
	{"::1", "loopback", ""},
	{"::2", "not global", ""},
	{"::7f00:1", "not global", ""}, // IPv4-compatible, as it once was
	{"100::1", "not global", ""},
	{"1fff:ffff::1", "not global", ""},
	{"2001::1", "reserved", ""}, // Teredo
	{"2001:0:7f00:1::1", "reserved", ""},
	{"2001:1ff:ffff::1", "reserved", ""},
	{"2001:db8::1", "documentation", ""},
	{"3fff::1", "documentation", ""},
	{"4000::1", "not global", ""},
	{"5f00::1", "not global", ""},
	{"8000::1", "not global", ""},
	{"fbff::1", "not global", ""},
	{"fc00::1", "private", ""},
	{"fd00:ec2::254", "private", ""}, // AWS's metadata
	{"fdff:ffff::1", "private", ""},
	{"fe80::1", "link-local", "link-local"},
	{"fe80::1%eth0", "link-local", "link-local"},
	{"febf:ffff::1", "link-local", "link-local"},
	{"fec0::1", "site-local", ""},
	{"ff02::1", "multicast", ""},
	{"ff02::1%eth0", "multicast", ""},

	// IPv4 inside of IPv6
	{"::ffff:1.1.1.1", "", ""},
	{"::ffff:127.0.0.1", "loopback", ""},
	{"::ffff:7f00:1", "loopback", ""},
	{"::ffff:10.0.0.1", "private", ""},
	{"::ffff:169.254.169.254", "link-local", "link-local"},
	{"::ffff:169.254.169.254%eth0", "link-local", "link-local"},
	{"::ffff:0.0.0.0", "this network", ""},
	{"::ffff:0:127.0.0.1", "not global", ""}, // IPv4-translated
	{"64:ff9b::1.1.1.1", "", ""},
	{"64:ff9b::127.0.0.1", "loopback", ""},
	{"64:ff9b::a9fe:a9fe", "link-local", "link-local"},
	{"64:ff9b::192.168.1.1", "private", ""},
	{"64:ff9b::1:1.1.1.1", "not global", ""}, // beyond the 96 bits
	{"64:ff9b:1::a00:1", "not global", ""},
	{"2002:101:101::1", "", ""},
	{"2002:7f00:1::1", "loopback", ""},
	{"2002:a9fe:a9fe::1", "link-local", "link-local"},
	{"2002:c0a8:101::", "private", ""},
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	public, link := Public(Allow{}), LinkLocal(Allow{})
	for _, c := range addresses {
		a := netip.MustParseAddr(c.address)
		refused(t, "public", public.Address(a), c.address, c.public)
		refused(t, "public host", public.Host(c.address), c.address, c.public)
		refused(t, "link-local", link.Address(a), c.address, c.linkLocal)
	}
}

func refused(t *testing.T, who string, err error, address, want string) {
	t.Helper()
	var refused *RefusedError
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %s: %v", who, address, err)
	case want != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %s: %v, want a refusal with %q", who, address, err, want)
	case want != "" && !strings.Contains(err.Error(), netip.MustParseAddr(address).String()):
		t.Errorf("%s: %s: %v does not name the address", who, address, err)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"example.com": true, "localhost.example.com": true, "notlocalhost": true, "": true,
		"localhost": false, "LOCALHOST": false, "localhost.": false, "a.localhost": false, "127.0.0.1": false,
		"127.0.0.1.": false,
	} {
		if err := Public(Allow{}).Host(host); (err == nil) != want {
			t.Errorf("%q: %v", host, err)
		}
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	allow, err := ParseAllow([]string{"10.1.0.0/16", "192.168.7.7", "fd12::/16", "Hooks.Internal", "intern.", "::ffff:10.9.9.9"})
	if err != nil {
		t.Fatal(err)
	}
	g := Public(allow)
	for address, want := range map[string]bool{
		"10.1.0.0": true, "10.1.255.255": true, "10.2.0.0": false, "10.0.255.255": false,
		"::ffff:10.1.2.3": true, "64:ff9b::10.1.2.3": true, "2002:a01:203::1": true, "2002:a02:203::1": false,
		"192.168.7.7": true, "192.168.7.8": false, "fd12::9": true, "fd12::9%eth0": true, "fd13::9": false,
		"10.9.9.9": true, "127.0.0.1": false, "1.1.1.1": true,
	} {
		a := netip.MustParseAddr(address)
		if err := g.Address(a); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
		if err := g.Host(address); (err == nil) != want {
			t.Errorf("host %s: %v", address, err)
		}
	}
	for host, want := range map[string]bool{
		"hooks.internal": true, "HOOKS.internal.": true, "a.hooks.internal": false, "internal": false, "intern": true,
		"10.1.2.3": true, "10.2.2.3": false, "1.1.1.1": false, "": false,
	} {
		if allow.Host(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

func TestAllowRefuses(t *testing.T) {
	t.Parallel()
	for entry, want := range map[string]string{
		"10.1.2.0/16":            "the range is 10.1.0.0/16",
		"10.1.0.0/33":            "like 10.1.0.0/16",
		"http://host":            "without a scheme",
		"host/path":              "without a scheme",
		"::ffff:10.0.0.0/104":    "as IPv4",
		"host:8080":              "without a port",
		"":                       "a host's name",
		".":                      "a host's name",
		"a..b":                   "a host's name",
		"*.example.com":          "a host's name",
		"127.1":                  "a host's name",
		"2130706433":             "a host's name",
		"fe80::1%eth0":           "no zone",
		"[::1]":                  "a host's name",
		"user@host":              "a host's name",
		strings.Repeat("a", 254): "a host's name",
	} {
		if _, err := ParseAllow([]string{"10.0.0.0/8", entry}); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), `"`+entry+`"`) {
			t.Errorf("%q: %v, want %q", entry, err, want)
		}
	}
}

// client asks through a guard. Names are resolved by resolve.
func client(g *Guard, resolve *net.Resolver) *http.Client {
	return &http.Client{
		Transport: &http.Transport{DialContext: g.Dialer(net.Dialer{Resolver: resolve}), DisableKeepAlives: true},
		Timeout:   time.Minute,
	}
}

func get(t *testing.T, c *http.Client, url string) error {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(r)
	if err == nil {
		answer.Body.Close()
	}
	return err
}

// TestDial asks a real server on loopback by all the names that it has.
func TestDial(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::ffff:7f00:1]", "127.1", "0x7f.1", "2130706433", "0177.0.0.1"} {
		if err := get(t, client(Public(Allow{}), nil), "http://"+host+":"+port); err == nil {
			t.Errorf("%s was reached", host)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	for _, allow := range []string{"127.0.0.0/8", "127.0.0.1"} {
		a, err := ParseAllow([]string{allow})
		if err != nil {
			t.Fatal(err)
		}
		if err := get(t, client(Public(a), nil), server.URL); err != nil {
			t.Errorf("allowed: %v", err)
		}
	}
	if err := get(t, client(LinkLocal(Allow{}), nil), server.URL); err != nil {
		t.Errorf("loopback is no link-local address: %v", err)
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("the server was asked %d times, want 3", n)
	}
}

// TestRebinding has a name that is public when it is looked at and loopback when it is
// dialled, and one that has a public and a private address at once.
func TestRebinding(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var looks atomic.Int32
	resolver := nameServer(t, func(string) [4]byte {
		if looks.Add(1) == 1 {
			return [4]byte{203, 0, 112, 7}
		}
		return [4]byte{127, 0, 0, 1}
	})
	if a, err := resolver.LookupNetIP(t.Context(), "ip4", "rebind.example."); err != nil || a[0].String() != "203.0.112.7" {
		t.Fatalf("the first look: %v %v", a, err)
	}
	var refused *RefusedError
	if err := get(t, client(Public(Allow{}), resolver), "http://rebind.example.:"+port); !errors.As(err, &refused) {
		t.Errorf("the name was dialled: %v", err)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	allow, err := ParseAllow([]string{"rebind.example"})
	if err != nil {
		t.Fatal(err)
	}
	if err := get(t, client(Public(allow), resolver), "http://rebind.example.:"+port); err != nil {
		t.Errorf("the host is allowed by its name: %v", err)
	}
}

// TestRedirectedDial follows a redirect to the metadata service, as a client without a
// rule about redirects would.
func TestRedirectedDial(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.RedirectHandler("http://169.254.169.254/latest/meta-data/", http.StatusFound))
	defer server.Close()
	allow, err := ParseAllow([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Guard{Public(allow), LinkLocal(Allow{})} {
		var refused *RefusedError
		if err := get(t, client(g, nil), server.URL); !errors.As(err, &refused) {
			t.Errorf("the redirect was followed: %v", err)
		}
	}
}

// nameServer answers questions for IPv4 addresses on a UDP port of loopback, and returns
// a resolver that asks it.
func nameServer(t *testing.T, answer func(name string) [4]byte) *net.Resolver {
	t.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			q := m.Questions[0]
			if q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: answer(q.Name.String())},
				}}
			}
			if b, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(b, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp4", conn.LocalAddr().String())
	}}
}

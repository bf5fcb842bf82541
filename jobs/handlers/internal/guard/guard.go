// Package guard keeps outgoing connections away from addresses that are not for those who
// named the host: this machine, its network, the metadata service of a cloud. Start at
// [Public] or [LinkLocal], and give [Guard.Dialer] to an HTTP transport.
//
// The guard looks at the address that is really dialled, after the name was resolved and
// for each of its addresses. So a name whose address changes between two looks (DNS
// rebinding), a redirect, or another spelling of an address does not get past it. A
// transport that uses it must have no proxy: then only the proxy's address is dialled.
package guard

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
)

// block is a part of the address space, and the words for it.
type block struct {
	prefix netip.Prefix
	is     string
}

// linkLocal is where clouds have their metadata services.
var linkLocal = []block{
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
}

// special is everything that is not an address of one machine in the public Internet. Of
// several blocks that have an address the first one words the refusal.
var special = slices.Concat(linkLocal, []block{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "a provider's own (CGNAT)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("168.63.129.16/32"), "a cloud's own"}, // Azure's wire server
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), "for documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "a 6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "for measurements"},
	{netip.MustParsePrefix("198.51.100.0/24"), "for documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "for documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},

	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("2001:db8::/32"), "for documentation"},
	{netip.MustParsePrefix("2001::/23"), "reserved"}, // Teredo is in it, which hides an IPv4 address
	{netip.MustParsePrefix("3fff::/20"), "for documentation"},
	// Only 2000::/3 is global unicast.
	{netip.MustParsePrefix("::/3"), "not global"},
	{netip.MustParsePrefix("4000::/2"), "not global"},
	{netip.MustParsePrefix("8000::/1"), "not global"},
})

// Guard refuses addresses. It may be used at the same time by several goroutines.
type Guard struct {
	refused []block
	allow   Allow
}

// Public lets only addresses of the public Internet through, and those that allow names.
func Public(allow Allow) *Guard { return &Guard{special, allow} }

// LinkLocal refuses link-local addresses only, unless allow names them.
func LinkLocal(allow Allow) *Guard { return &Guard{linkLocal, allow} }

// RefusedError is the refusal of an address.
type RefusedError struct {
	Address netip.Addr
	// Is words the kind of address.
	Is string
}

// Error names the address and its kind.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("the address %s is refused: it is %s", e.Address, e.Is)
}

// Address refuses an address with a [*RefusedError], or returns nil.
func (g *Guard) Address(a netip.Addr) error {
	dialled := inside(a)
	if g.allow.address(dialled) || g.allow.address(a.WithZone("")) {
		return nil
	}
	for _, b := range g.refused {
		if b.prefix.Contains(dialled) {
			return &RefusedError{a, b.is}
		}
	}
	return nil
}

// Host refuses a host, as it stands in a URL, whose address is known without resolving it:
// a literal address, or a name of this machine. Any other host passes; its addresses are
// looked at when they are dialled. Brackets around an IPv6 address must be removed before.
func (g *Guard) Host(host string) error {
	if g.allow.Host(host) {
		return nil
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return g.Address(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	a, err := netip.ParseAddr(name)
	if err != nil {
		return nil //nolint:nilerr // it is a name
	}
	return g.Address(a)
}

// Dialer makes d the dialer of an HTTP transport, with the guard at each address that it
// dials. Hosts that the guard's [Allow] names are dialled without it. The guard takes the
// place of d's own Control and ControlContext.
func (g *Guard) Dialer(d net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	d.Control, d.ControlContext = nil, nil
	guarded := d
	guarded.Control = g.control
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if host, _, err := net.SplitHostPort(address); err == nil && g.allow.Host(host) {
			return d.DialContext(ctx, network, address)
		}
		return guarded.DialContext(ctx, network, address)
	}
}

// control sees each address just before the socket connects to it.
func (g *Guard) control(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%q is not an address: %w", address, err)
	}
	return g.Address(a.Addr())
}

var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
)

// inside returns the IPv4 address that packets to a reach in the end, if a is IPv6 and has
// one inside, else a. It has no zone: a prefix contains no address with a zone.
func inside(a netip.Addr) netip.Addr {
	a = a.WithZone("").Unmap()
	b := a.As16()
	switch {
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixTo4.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}

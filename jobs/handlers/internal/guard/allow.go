package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Allow is what a guard lets through although it would refuse it. The zero value is
// nothing.
type Allow struct {
	prefixes []netip.Prefix
	hosts    map[string]bool
}

// ParseAllow reads a list whose entries are ranges of addresses (10.1.0.0/16), addresses
// or names of hosts. The error names the first entry that is none of these.
func ParseAllow(list []string) (Allow, error) {
	var a Allow
	for _, entry := range list {
		if err := a.entry(entry); err != nil {
			return Allow{}, fmt.Errorf("%q: %w", entry, err)
		}
	}
	return a, nil
}

func (a *Allow) entry(entry string) error {
	if strings.Contains(entry, "/") {
		p, err := netip.ParsePrefix(entry)
		switch {
		case err != nil:
			return errors.New("must be a range of addresses like 10.1.0.0/16, without a scheme or a path")
		case p.Addr().Is4In6():
			return errors.New("write it as IPv4")
		case p != p.Masked():
			return fmt.Errorf("has bits behind its length; the range is %s", p.Masked())
		}
		a.prefixes = append(a.prefixes, p)
		return nil
	}
	if ip, err := netip.ParseAddr(entry); err == nil {
		if ip.Zone() != "" {
			return errors.New("must have no zone")
		}
		ip = ip.Unmap()
		a.prefixes = append(a.prefixes, netip.PrefixFrom(ip, ip.BitLen()))
		return nil
	}
	if !hostName(entry) {
		return errors.New("must be a range of addresses, an address, or a host's name without a port")
	}
	if a.hosts == nil {
		a.hosts = make(map[string]bool)
	}
	a.hosts[fold(entry)] = true
	return nil
}

// hostName looks for what cannot be in a name; it does not ask whether the name exists. A
// name whose last part is a number is an address in a spelling of its own.
func hostName(s string) bool {
	s = fold(s)
	last := s[strings.LastIndexByte(s, '.')+1:]
	if s == "" || len(s) > 253 || last == "" || strings.Trim(last, "0123456789") == "" || strings.Contains(s, "..") {
		return false
	}
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '-', r == '_', r == '.', r > 0x7f:
		default:
			return false
		}
	}
	return true
}

// Empty says that the list is empty.
func (a Allow) Empty() bool { return len(a.prefixes)+len(a.hosts) == 0 }

// Host reports whether the list has a host, as it stands in a URL: its name, or the
// literal address. Brackets around an IPv6 address must be removed before.
func (a Allow) Host(host string) bool {
	if a.hosts[fold(host)] {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (a.address(inside(ip)) || a.address(ip.WithZone("")))
}

func (a Allow) address(ip netip.Addr) bool {
	for _, p := range a.prefixes {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func fold(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

package httpapi

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"jobstream/jobs"
)

// sources decides whose requests are answered. Nobody has to log in. Without it, any
// page in a browser on this machine could use the server: by a request to it, or by a
// name that leads first to the page and then here.
type sources struct {
	hosts  map[string]bool // names in lower case, addresses as netip writes them
	origin http.CrossOriginProtection
}

func newSources(hosts []string) *sources {
	s := &sources{hosts: make(map[string]bool)}
	for _, name := range hosts {
		if a, err := netip.ParseAddr(name); err == nil {
			name = plainAddress(a).String()
			if a.IsUnspecified() { // listening by one is listening by both
				s.hosts["0.0.0.0"], s.hosts["::"] = true, true
			}
		}
		s.hosts[plainName(name)] = true
	}
	return s
}

// check returns the reason why the request is refused, or nil.
func (s *sources) check(r *http.Request) error {
	if !s.knows(r) {
		return &jobs.Error{Kind: jobs.Forbidden, Detail: fmt.Sprintf(
			"this server does not go by the name %.100q; add the name to server.hosts in the configuration, or use localhost or the address that it listens on", r.Host)}
	}
	if s.foreign(r) {
		return &jobs.Error{Kind: jobs.Forbidden, Detail: "a browser sent this for a page from elsewhere (see its headers Origin and Sec-Fetch-Site), " +
			"and only pages of this server may do that; send it without a browser, or through the server that the page comes from"}
	}
	return nil
}

// knows reports whether the request is for a name of this server: one from the
// configuration, one that only this machine has, or the address of the connection. An
// address is safe, because no page can make it lead elsewhere. Browsers always send a
// name; HTTP/1.0 need not.
func (s *sources) knows(r *http.Request) bool {
	host := (&url.URL{Host: r.Host}).Hostname()
	if host == "" {
		return r.Host == ""
	}
	if a, err := netip.ParseAddr(host); err == nil {
		a = plainAddress(a)
		return a.IsLoopback() || s.hosts[a.String()] || a == localAddress(r.Context())
	}
	name := plainName(host)
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || s.hosts[name]
}

// foreign reports whether a browser sent the request for a page of another origin.
// Links of such a page to this server are always allowed.
func (s *sources) foreign(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		site := r.Header.Get("Sec-Fetch-Site")
		if site == "" && r.Header.Get("Origin") == "" || r.Header.Get("Sec-Fetch-Mode") == "navigate" {
			return false
		}
		unsafe := *r
		unsafe.Method = http.MethodPost // net/http lets these methods pass, but reading costs something, too
		r = &unsafe
	}
	return s.origin.Check(r) != nil
}

// localAddress is the address of this machine that the client has connected to.
func localAddress(ctx context.Context) netip.Addr {
	if a, ok := ctx.Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return plainAddress(a.AddrPort().Addr())
	}
	return netip.Addr{}
}

func plainAddress(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func plainName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

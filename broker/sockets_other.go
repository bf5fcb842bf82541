//go:build !linux

package broker

import "net/netip"

// shortenBacklog does something on Linux only.
func shortenBacklog(port, most int) {}

// hangUp does something on Linux only; elsewhere the server gives up at its deadline.
func hangUp(port int, peers map[netip.AddrPort]bool) {}

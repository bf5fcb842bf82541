package broker

import (
	"net/netip"
	"os"
	"strconv"
	"syscall"
)

// nats-server hands out neither its listener nor its connections; the files of this
// process are searched for them.

// shortenBacklog has no more than most connections wait to be accepted at a port that
// this process listens on. nats-server takes all that wait before it looks whether there
// are too many, so this is how far it may go beyond [Options.MaxConns] for a moment.
func shortenBacklog(port, most int) {
	eachFile(func(fd int) {
		on, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		if err != nil || on == 0 {
			return
		}
		if at, err := syscall.Getsockname(fd); err == nil && int(address(at).Port()) == port {
			_ = syscall.Listen(fd, most) // for a socket that listens this changes nothing else
		}
	})
}

// hangUp ends the connections between a port of this process and these addresses. A
// server that waits to write to them then finds out at once, and not at its deadline.
func hangUp(port int, peers map[netip.AddrPort]bool) {
	matches := func(fd int) bool {
		peer, err := syscall.Getpeername(fd)
		if err != nil || !peers[address(peer)] {
			return false
		}
		at, err := syscall.Getsockname(fd)
		return err == nil && int(address(at).Port()) == port
	}
	eachFile(func(fd int) {
		if !matches(fd) {
			return
		}
		// The server may close it any time, and another file get its number; not so
		// with a copy.
		syscall.ForkLock.RLock()
		own, err := syscall.Dup(fd)
		if err == nil {
			syscall.CloseOnExec(own)
		}
		syscall.ForkLock.RUnlock()
		if err != nil {
			return
		}
		if matches(own) {
			_ = syscall.Shutdown(own, syscall.SHUT_RDWR)
		}
		_ = syscall.Close(own)
	})
}

func eachFile(f func(fd int)) {
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // it goes without
	}
	for _, file := range files {
		if fd, err := strconv.Atoi(file.Name()); err == nil {
			f(fd)
		}
	}
}

func address(at syscall.Sockaddr) netip.AddrPort {
	switch at := at.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(at.Addr).Unmap(), uint16(at.Port))
	}
	return netip.AddrPort{}
}

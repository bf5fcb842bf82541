package broker

import (
	"net/netip"
	"os"
	"strconv"
	"syscall"
)

// nats-server hands out neither its listener nor its connections. So the functions here
// search the open files of this process for them.

// shortenBacklog lets no more than most connections wait to be accepted at a port of this
// process. nats-server accepts all that wait before it counts them. So this bounds how far
// it goes beyond [Options.MaxConns] for a moment.
func shortenBacklog(port, most int) {
	eachFile(func(fd int) {
		on, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		if err != nil || on == 0 {
			return
		}
		if at, err := syscall.Getsockname(fd); err == nil && int(address(at).Port()) == port {
			_ = syscall.Listen(fd, most) // on a listening socket this sets the backlog only
		}
	})
}

// hangUp ends the connections between a port of this process and these addresses. A write
// of the server that waits for them then fails at once, not at its deadline.
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
		// The server may close the file any time, and another one get its number. A copy
		// stays what it is.
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
		return // without /proc the server's own bounds have to do
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

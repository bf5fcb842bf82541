package broker

import (
	"os"
	"strconv"
	"syscall"
)

// shortenBacklog has no more than most connections wait to be accepted at a port that
// this process listens on. nats-server takes all that wait before it looks whether there
// are too many, so this is how far it may go beyond [Options.MaxConns] for a moment. It
// does not hand out its listener; this finds it.
func shortenBacklog(port, most int) {
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // it goes without
	}
	for _, f := range files {
		fd, err := strconv.Atoi(f.Name())
		if err != nil {
			continue
		}
		if on, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil || on == 0 {
			continue
		}
		found := 0
		switch at, _ := syscall.Getsockname(fd); at := at.(type) {
		case *syscall.SockaddrInet4:
			found = at.Port
		case *syscall.SockaddrInet6:
			found = at.Port
		}
		if found == port {
			_ = syscall.Listen(fd, most) // for a socket that listens this changes nothing else
		}
	}
}

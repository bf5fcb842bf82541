package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// adopt makes this process the one that gets the orphans among the descendants of its
// programs, and returns a file that lists the children of its first thread, which gets
// them; none if the kernel has no such file.
var adopt = sync.OnceValue(func() int {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return none
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		_ = unix.Close(fd) // nothing was written
		return none
	}
	return fd
})

// orphans reaps the orphans that have ended, and says whether there may be others. The
// children that this process has for other reasons are in its own session, where
// programs never are.
func orphans() bool {
	list := adopt()
	if list == none {
		return true
	}
	own, err := unix.Getsid(0)
	if err != nil {
		return true
	}
	var buf [4 << 10]byte
	for range 100 {
		n, err := unix.Pread(list, buf[:], 0)
		if err != nil || n == len(buf) {
			return true
		}
		some, changed := survey(own, buf[:n])
		if some || !changed {
			return some
		}
		// While one vanishes the kernel may pass over the next.
	}
	return true
}

// survey looks at a list of children: whether there are orphans that run, and whether some
// child was not there any more, or has been reaped.
func survey(own int, list []byte) (some, changed bool) {
	for field := range bytes.FieldsSeq(list) {
		pid, err := strconv.Atoi(string(field))
		if err != nil {
			return true, false
		}
		session, err := unix.Getsid(pid)
		switch {
		case err != nil:
			changed = true
		case session == own:
		case reaped(pid):
			changed = true
		default:
			some = true
		}
	}
	return some, changed
}

// reaped reaps a child if it has ended, and says whether it is none any more.
func reaped(pid int) bool {
	n, err := unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
	return n == pid || errors.Is(err, unix.ECHILD)
}

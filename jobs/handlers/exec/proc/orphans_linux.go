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

// orphans reaps the orphans that have ended, and says whether there may be others, and
// whether some of them are of a group that has got a KILL. The children that this process
// has for other reasons are in its own session, where programs never are.
func orphans(group int) (some, dying bool) {
	list := adopt()
	if list == none {
		return true, false
	}
	own, err := unix.Getsid(0)
	if err != nil {
		return true, false
	}
	s := survey{own: own, group: group}
	var buf [4 << 10]byte
	for range 100 {
		n, err := unix.Pread(list, buf[:], 0)
		if err != nil || n == len(buf) {
			return true, false
		}
		if s.some, s.changed = false, false; !s.look(buf[:n]) || s.some || !s.changed {
			return s.some, s.dying
		}
		// While one vanishes the kernel may pass over the next.
	}
	return true, s.dying
}

// survey is what a list of children shows.
type survey struct {
	own, group int
	some       bool // there are orphans that run
	dying      bool // some of them are of the group
	changed    bool // some child was not there any more, or has been reaped
}

// look looks at a list. It returns false if that cannot be read.
func (s *survey) look(list []byte) bool {
	for field := range bytes.FieldsSeq(list) {
		pid, err := strconv.Atoi(string(field))
		if err != nil {
			s.some = true
			return false
		}
		session, err := unix.Getsid(pid)
		switch {
		case err != nil:
			s.changed = true
		case session == s.own:
		case reaped(pid):
			s.changed = true
		default:
			s.some = true
			group, err := unix.Getpgid(pid)
			s.dying = s.dying || err == nil && group == s.group
		}
	}
	return true
}

// reaped reaps a child if it has ended, and says whether it is none any more.
func reaped(pid int) bool {
	n, err := unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
	return n == pid || errors.Is(err, unix.ECHILD)
}

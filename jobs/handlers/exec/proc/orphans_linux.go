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
// them; none if the kernel has no such file, or nobody wants that.
var adopt = sync.OnceValue(func() int {
	if !adopting.Load() {
		return none
	}
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
// whether some of them are of the group of r, which has got a KILL. The children that this
// process has for other reasons are in its own group, and have no mark.
func orphans(r *run) (some, dying bool) {
	list := adopt()
	if list == none {
		return true, false
	}
	s := survey{own: unix.Getpgrp(), r: r}
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
	own     int
	r       *run
	some    bool // there are orphans that run
	dying   bool // some of them are of r's group
	changed bool // some child was not there any more, or has been reaped
}

// look looks at a list. It returns false if that cannot be read.
func (s *survey) look(list []byte) bool {
	for field := range bytes.FieldsSeq(list) {
		pid, err := strconv.Atoi(string(field))
		if err != nil {
			s.some = true
			return false
		}
		group, err := unix.Getpgid(pid)
		switch {
		case err != nil:
			s.changed = true
		case group == s.own:
			s.some = s.some || s.r.has(pid)
		case reaped(pid):
			s.changed = true
		default:
			s.some = true
			s.dying = s.dying || group == s.r.pid
		}
	}
	return true
}

// has says whether a process is one of this run, by its mark.
func (r *run) has(pid int) (is bool) {
	_ = elsewhere(func() error {
		is = has(environ(pid, nil), append([]byte(r.c.Mark), 0))
		return nil
	})
	return is
}

// reaped reaps a child if it has ended, and says whether it is none any more.
func reaped(pid int) bool {
	n, err := unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
	return n == pid || errors.Is(err, unix.ECHILD)
}

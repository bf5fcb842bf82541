//go:build unix && !linux

package proc

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pipe makes a pipe.
func pipe() (r, w int, err error) {
	var ends [2]int
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := syscall.Pipe(ends[:]); err != nil {
		return none, none, os.NewSyscallError("pipe", err)
	}
	syscall.CloseOnExec(ends[0])
	syscall.CloseOnExec(ends[1])
	return ends[0], ends[1], nil
}

// supervise starts the program, and returns when it has ended and what it wrote has been
// read.
func (r *run) supervise(p *pipes) {
	defer p.close()
	sys := &syscall.SysProcAttr{Setsid: true}
	if u := r.c.User; u != nil {
		sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID}
	}
	end, ended, err := pipe()
	if err == nil {
		defer unix.Close(end)
		defer unix.Close(ended)
		r.pid, err = p.start(r.c, sys)
	}
	p.closeTheirs()
	r.started <- err
	if err != nil {
		return
	}
	go r.wait(ended)
	r.follow(p, end)
	close(r.ended)
}

// wait waits for the leader's end and writes it to a descriptor. Here nothing waits for
// the end of a process without reaping it. The group keeps its number while it has a
// member, so that there is hardly a chance to hit another.
func (r *run) wait(ended int) {
	status, err := wait(r.pid)
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = syscall.Kill(-r.pid, syscall.SIGKILL) // there may be nobody left
	r.note(status, err)
	_, _ = unix.Write(ended, []byte{0}) // it has room
}

// reap does nothing: the leader has been reaped.
func (r *run) reap() {}

// watch does nothing: there is no /proc to look into.
func (r *run) watch() (tick <-chan time.Time, stop func()) { return nil, func() {} }

func (r *run) look() {}

// adjust does nothing.
func (r *run) adjust() {}

// sweep does nothing: what has left the group is not known here.
func (r *run) sweep() {}

// Sweep finds nothing here.
func Sweep(string) int { return 0 }

// Left finds nothing here.
func Left(string) []int { return nil }

// LandlockABI is 0: there is none.
func LandlockABI() int { return 0 }

// Missing says that there is no sandbox.
func (s *Sandbox) Missing() string {
	if s.Off {
		return ""
	}
	return "this system has no Landlock, so programs may write wherever their user may"
}

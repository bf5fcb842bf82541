//go:build unix

package proc

import (
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// none is in place of a descriptor that there is not.
const none = -1

// pipes are the descriptors that a program begins with, and our ends of them.
type pipes struct {
	theirs [4]int // stdin, stdout, stderr and the events
	ours   [4]int
	stdin  *os.File // our end of that, while there is more to feed than fits into a pipe
	fed    sync.WaitGroup
}

// pipeRoom is what fits into each empty pipe, in bytes.
const pipeRoom = 4 << 10

// newPipes makes the pipes of a program. Short input is in its pipe then.
func newPipes(c *Command) (p *pipes, err error) {
	p = &pipes{theirs: [4]int{none, none, none, none}, ours: [4]int{none, none, none, none}}
	defer func() {
		if err != nil {
			p.closeTheirs()
			p.close()
		}
	}()
	if err := p.input(c); err != nil {
		return nil, err
	}
	for fd := 1; fd < len(p.theirs); fd++ {
		if p.ours[fd], p.theirs[fd], err = pipe(); err != nil {
			return nil, err
		}
		if err := unix.SetNonblock(p.ours[fd], true); err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		if err := c.User.owns(p.theirs[fd]); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// input makes what the program reads.
func (p *pipes) input(c *Command) (err error) {
	if c.Stdin == nil {
		p.theirs[0], err = unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return os.NewSyscallError("open", err)
	}
	if file, ok := c.Stdin.(*os.File); ok {
		p.theirs[0], err = unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		return os.NewSyscallError("fcntl", err)
	}
	if p.theirs[0], p.ours[0], err = pipe(); err != nil {
		return err
	}
	if err := c.User.owns(p.theirs[0]); err != nil {
		return err
	}
	if err := unix.SetNonblock(p.ours[0], true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	p.stdin = os.NewFile(uintptr(p.ours[0]), "|0")
	p.ours[0] = none
	if short, ok := c.Stdin.(interface{ Len() int }); ok && short.Len() <= pipeRoom {
		p.feed(c.Stdin) // without waiting
	} else {
		p.fed.Go(func() { p.feed(c.Stdin) })
	}
	return nil
}

// feed writes what the program reads.
func (p *pipes) feed(stdin io.Reader) {
	_, _ = io.Copy(p.stdin, stdin) // it need not read all of it
	_ = p.stdin.Close()
}

// owns has the user open a pipe by its name, too: /dev/fd/3, /dev/stderr.
func (u *User) owns(fd int) error {
	if u == nil {
		return nil
	}
	return os.NewSyscallError("fchown", unix.Fchown(fd, int(u.UID), int(u.GID)))
}

// start starts a program with these descriptors, and closes them here.
func (p *pipes) start(c *Command, sys *syscall.SysProcAttr) (pid int, err error) {
	attr := &syscall.ProcAttr{Dir: c.Dir, Env: append(c.Env[:len(c.Env):len(c.Env)], c.Mark), Sys: sys}
	for _, fd := range p.theirs {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	pid, _, err = syscall.StartProcess(c.Argv[0], c.Argv, attr)
	if err != nil {
		err = &os.PathError{Op: "fork/exec", Path: c.Argv[0], Err: err}
	}
	return pid, err
}

func (p *pipes) closeTheirs() { closeAll(&p.theirs) }

// close closes our ends. Nobody reads any more.
func (p *pipes) close() {
	if p.stdin != nil {
		_ = p.stdin.SetWriteDeadline(time.Now()) // it may be closed already
		p.fed.Wait()
		_ = p.stdin.Close()
	}
	closeAll(&p.ours)
}

func closeAll(fds *[4]int) {
	for i, fd := range fds {
		if fd != none {
			_ = unix.Close(fd) // everything was written
			fds[i] = none
		}
	}
}

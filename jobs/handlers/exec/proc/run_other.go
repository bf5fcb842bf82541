//go:build unix && !linux

package proc

import (
	"os"
	"syscall"
)

// pipe makes a pipe; theirs is its end 0, to read, or 1, to write.
func pipe(int) (r, w *os.File, err error) { return os.Pipe() }

// supervise starts the program and returns when it has ended and been reaped.
func (r *run) supervise(files []*os.File, started chan<- error) {
	attr := &syscall.SysProcAttr{Setsid: true}
	if u := r.c.User; u != nil {
		attr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID}
	}
	var err error
	r.process, err = os.StartProcess(r.c.Argv[0], r.c.Argv, &os.ProcAttr{
		Dir: r.c.Dir, Env: append(r.c.Env[:len(r.c.Env):len(r.c.Env)], r.c.Mark), Files: files, Sys: attr,
	})
	started <- err
	if err != nil {
		return
	}
	// Here nothing waits for the end of a process without reaping it. The group keeps its
	// number while it has a member, so that there is hardly a chance to hit another.
	state, err := r.process.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = syscall.Kill(-r.process.Pid, syscall.SIGKILL) // there may be nobody left
	r.ended(state, err)
}

// watch does nothing: there is no /proc to look into.
func (r *run) watch() (stop func()) { return func() {} }

// sweep does nothing: what has left the group is not known here.
func (r *run) sweep() {}

// Sweep finds nothing here.
func Sweep(string, ...*User) int { return 0 }

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

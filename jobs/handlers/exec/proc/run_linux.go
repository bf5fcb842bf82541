package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// supervise starts the program and returns when it has ended and been reaped. Its thread
// never does anything else: it is confined, which the program inherits, and the program
// gets a KILL when it ends.
func (r *run) supervise(files []*os.File, started chan<- error) {
	runtime.LockOSThread() // for good: the thread ends with this goroutine
	if err := r.start(files); err != nil {
		started <- err
		return
	}
	limited := make(chan error)
	go func() { limited <- r.limit() }() // this thread may not do that any more
	err := <-limited
	if r.halted {
		_ = unix.PtraceDetach(r.process.Pid) // it may have been killed
	}
	started <- err
	r.await(0)
	r.reap()
}

// reap kills what is left of the group of a leader that has ended, and only then lets
// go of its number.
func (r *run) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = syscall.Kill(-r.process.Pid, syscall.SIGKILL) // there may be nobody left
	r.ended(r.process.Wait())
}

// start starts the program.
func (r *run) start(files []*os.File) (err error) {
	if err := r.c.Sandbox.confine(); err != nil {
		return err
	}
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if u := r.c.User; u != nil {
		attr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID}
	}
	// Traced, it halts before its first instruction, so that nothing that it starts
	// escapes its limits.
	attr.Ptrace = true
	start := func() (*os.Process, error) {
		return os.StartProcess(r.c.Argv[0], r.c.Argv, &os.ProcAttr{
			Dir: r.c.Dir, Env: append(r.c.Env[:len(r.c.Env):len(r.c.Env)], r.c.Mark), Files: files, Sys: attr,
		})
	}
	r.process, err = start()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) {
		attr.Ptrace = false // some containers forbid it; the limits come a little later there
		r.process, err = start()
	}
	if err == nil && attr.Ptrace {
		r.halted = true
		r.await(unix.WSTOPPED)
	}
	return err
}

// await waits until the program halts or ends, as flags say, and does not reap it.
func (r *run) await(flags int) {
	for {
		err := unix.Waitid(unix.P_PID, r.process.Pid, nil, flags|unix.WEXITED|unix.WNOWAIT|unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return // Wait says how it has ended
		}
	}
}

// as calls f on a thread that acts as the user, so that it may look at and kill the user's
// processes even where root may not: many containers have taken those rights away. Its
// real user stays this process's: programs of the user could kill it otherwise, and this
// process with it. Without a user it only calls f.
func as(u *User, f func() error) error {
	if u == nil {
		return f()
	}
	return u.call(false, f)
}

// call calls f on a thread of its own that acts as the user, or is the user's wholly.
func (u *User) call(wholly bool, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		err := u.become(wholly)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// become makes this thread the user's for good.
func (u *User) become(wholly bool) error {
	gid, uid, keep := uintptr(u.GID), uintptr(u.UID), ^uintptr(0)
	realGID, realUID := keep, keep
	if wholly {
		realGID, realUID = gid, uid
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, realGID, gid, realGID); errno != 0 {
		return fmt.Errorf("user: %w", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, realUID, uid, realUID); errno != 0 {
		return fmt.Errorf("user: %w", errno)
	}
	return nil
}

// limit bounds the program before its first instruction, where it halts.
func (r *run) limit() error {
	l, pid := r.c.Limits, r.process.Pid
	bounds := map[int]uint64{unix.RLIMIT_CORE: 0}
	if l.CPU > 0 {
		bounds[unix.RLIMIT_CPU] = uint64(max(l.CPU/time.Second, 1))
	}
	if l.Files > 0 {
		bounds[unix.RLIMIT_NOFILE] = uint64(l.Files)
	}
	if l.FileSize > 0 {
		bounds[unix.RLIMIT_FSIZE] = uint64(l.FileSize)
	}
	if l.Processes > 0 {
		// The kernel counts those of the user, not those of the program.
		_ = as(r.c.User, func() error { // which does not fail
			bounds[unix.RLIMIT_NPROC] = uint64(tasks(r.uid()) + l.Processes)
			return nil
		})
	}
	err := r.bound(bounds)
	if u := r.c.User; u != nil && errors.Is(err, unix.EPERM) {
		// Without CAP_SYS_RESOURCE only the real user may. A program of the user could kill
		// that thread, but it is there for an instant.
		err = u.call(true, func() error { return r.bound(bounds) })
	}
	if err != nil {
		r.signal(syscall.SIGKILL)
		return fmt.Errorf("limits: %w", err)
	}
	return as(r.c.User, func() error {
		if l.Nice != 0 {
			_ = unix.Setpriority(unix.PRIO_PGRP, pid, l.Nice)
		}
		if l.OOM != 0 {
			_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(l.OOM)), 0)
		}
		return nil
	})
}

// bound sets limits of the program, by resource.
func (r *run) bound(limits map[int]uint64) error {
	for resource, n := range limits {
		err := unix.Prlimit(r.process.Pid, resource, &unix.Rlimit{Cur: n, Max: n}, nil)
		if err != nil && !errors.Is(err, unix.ESRCH) { // or it has ended
			return err
		}
	}
	return nil
}

// uid is whose processes the program's are.
func (r *run) uid() uint32 {
	if r.c.User != nil {
		return r.c.User.UID
	}
	return uint32(os.Getuid())
}

// tasks is how many processes and threads a user has.
func tasks(uid uint32) (n int) {
	for _, pid := range processes() {
		info, err := os.Lstat(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == uid {
			n += int(st.Nlink) - 2 // a folder for each
		}
	}
	return n
}

// watchEvery is how often the memory is looked at.
const watchEvery = 100 * time.Millisecond

// watch looks at the memory until stop is called.
func (r *run) watch() (stop func()) {
	if r.c.Limits.Memory <= 0 {
		return func() {}
	}
	done := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r.look()
			case <-done:
				return
			}
		}
	})
	return func() { close(done); looking.Wait() }
}

func (r *run) look() {
	var used int64
	_ = as(r.c.User, func() error {
		for _, pid := range r.members(time.Time{}) {
			used += resident(pid)
		}
		return nil
	})
	if l := r.c.Limits.Memory; used > l {
		r.exceed(fmt.Sprintf("used more than %d bytes of memory (limits.memory)", l))
	}
}

// resident is how many bytes of memory a process uses, 0 if it has ended.
func resident(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if fields := bytes.Fields(b); len(fields) > 1 {
		pages, _ := strconv.ParseInt(string(fields[1]), 10, 64)
		return pages * int64(os.Getpagesize())
	}
	return 0
}

// short is how long a run takes in which the numbers of processes cannot come round.
const short = time.Second

// sweep kills what has left the group, a daemon for instance.
func (r *run) sweep() {
	since := r.began
	if time.Since(since) > short {
		since = time.Time{} // look at all
	}
	_ = as(r.c.User, func() error {
		killAll(func() []int { return r.members(since) })
		return nil
	})
}

// members are the processes of this run. With since they are those with a number that
// was given after the leader's, which is right for a short run and much less work.
func (r *run) members(since time.Time) []int {
	least := 0
	if !since.IsZero() && lastPID() >= r.process.Pid {
		least = r.process.Pid
	}
	mark := append([]byte(r.c.Mark), 0)
	return find(least, func(environ []byte) bool { return has(environ, mark) })
}

// lastPID is the number that was given last.
func lastPID() int {
	b, _ := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(b))
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(fields[len(fields)-1])
	return n
}

// has says whether an environment begins with an entry, or has it later.
func has(environ, entry []byte) bool {
	return bytes.HasPrefix(environ, entry) || bytes.Contains(environ, append([]byte{0}, entry...))
}

// find lists the processes, from a number on, whose environment ours says yes to. This
// one is not among them, nor are those that have ended.
func find(least int, ours func(environ []byte) bool) (pids []int) {
	for _, pid := range processes() {
		if pid < least || pid == os.Getpid() {
			continue
		}
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err == nil && len(b) > 0 && ours(b) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// processes are the numbers of all that there are.
func processes() (pids []int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // as many as can be read
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killTime bounds how long ended processes are waited for.
const killTime = 5 * time.Second

// killAll kills the processes that list finds until it finds none, and returns how many
// there were at first.
func killAll(list func() []int) int {
	first := -1
	wait := time.Millisecond
	for until := time.Now().Add(killTime); time.Now().Before(until); wait = min(2*wait, 50*time.Millisecond) {
		pids := list()
		if first < 0 {
			first = len(pids)
		}
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
		time.Sleep(wait) // there is no signal for the end of a process that is not a child
	}
	return max(first, 0)
}

// Sweep kills all processes of these users, and of this process's own, whose environment
// has an entry that begins like this. It returns how many there were. They are those of a
// server that was killed: they must not run beside what runs again.
func Sweep(prefix string, users ...*User) (n int) {
	p := []byte(prefix)
	for _, u := range append(users, nil) {
		_ = as(u, func() error {
			n += killAll(func() []int { return find(0, func(environ []byte) bool { return has(environ, p) }) })
			return nil
		})
	}
	return n
}

// Left lists the processes that [Sweep] would kill.
func Left(prefix string) []int {
	return find(0, func(environ []byte) bool { return has(environ, []byte(prefix)) })
}

package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pipe makes a pipe.
func pipe() (r, w int, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return none, none, os.NewSyscallError("pipe2", err)
	}
	return ends[0], ends[1], nil
}

// supervise starts the program, and returns when it has ended and what it wrote has been
// read. Its thread never does anything else: it is confined, which the program inherits,
// and the program gets a KILL when it ends. It does all that it can by itself, since each
// wait for another thread costs more than what would be done there.
func (r *run) supervise(p *pipes) { onItsOwn(func() { r.live(p) }) }

// onItsOwn calls f on a thread that ends with the calling goroutine, which ends with f.
func onItsOwn(f func()) {
	runtime.LockOSThread() // for good
	if unix.Gettid() != os.Getpid() {
		f()
		return
	}
	// The first thread never ends: it would keep what f does to it. It gets the orphans as
	// well, and is to have no other children. While it is locked, the next goroutine has
	// another one.
	done := make(chan struct{})
	go func() {
		defer close(done)
		onItsOwn(f)
	}()
	<-done
	runtime.UnlockOSThread()
}

// live is the life of the program.
func (r *run) live(p *pipes) {
	defer p.close()
	adopt()
	end, err := r.start(p)
	p.closeTheirs()
	if err != nil {
		r.started <- err
		return
	}
	defer unix.Close(end)
	err = r.limit()
	if r.halted {
		_ = unix.PtraceDetach(r.pid) // it may have been killed
	}
	if err != nil {
		r.signal(syscall.SIGKILL)
		r.reap()
		r.started <- fmt.Errorf("limits: %w", err)
		return
	}
	r.started <- nil
	r.follow(p, end)
	close(r.ended)
}

// start starts the program, and returns a descriptor that can be read when it has ended.
func (r *run) start(p *pipes) (end int, err error) {
	if err := r.c.Sandbox.confine(); err != nil {
		return none, err
	}
	// A session of its own keeps the program from the terminal. Where there is none it has only
	// a group: the kernel shares processors out to sessions (autogroup), so with one for each
	// program, this process would get no more than a single one of them.
	sys := &syscall.SysProcAttr{Setsid: terminal(), Setpgid: !terminal(), Pdeathsig: syscall.SIGKILL, PidFD: &end}
	if u := r.c.User; u != nil {
		sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID}
	}
	// Traced, it halts before its first instruction, so that nothing that it starts
	// escapes its limits.
	sys.Ptrace = true
	r.pid, err = p.start(r.c, sys)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) {
		sys.Ptrace = false // some containers forbid it; the limits come a little later there
		r.pid, err = p.start(r.c, sys)
	}
	if err != nil {
		return none, err
	}
	leaders.Store(r.pid, r)
	if sys.Ptrace {
		r.halted = true
		await(r.pid, unix.WSTOPPED)
	}
	if end < 0 { // an old kernel
		end, err = endOf(r.pid)
	}
	return end, err
}

// reap kills what is left of the group of a leader that has ended, and only then lets
// go of its number.
func (r *run) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = syscall.Kill(-r.pid, syscall.SIGKILL) // there may be nobody left
	r.note(wait(r.pid))
}

// terminal says whether this process has a terminal.
var terminal = sync.OnceValue(func() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd) // nothing was written
	return true
})

// endOf is a descriptor whose other end is closed when a process has ended.
func endOf(pid int) (int, error) {
	r, w, err := pipe()
	if err == nil {
		go func() {
			await(pid, 0)
			_ = unix.Close(w) // nothing was written
		}()
	}
	return r, err
}

// leaders are the runs of this process by the number of their leaders. A number is there
// only while it cannot be another process's.
var leaders sync.Map

// await waits until a process halts or ends, as flags say, and does not reap it.
func await(pid, flags int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, flags|unix.WEXITED|unix.WNOWAIT|unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return // Wait4 says how it has ended
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
	done := make(chan error, 1)
	go onItsOwn(func() {
		err := u.become(wholly)
		if err == nil {
			err = f()
		}
		done <- err
	})
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
	l, u := r.c.Limits, r.c.User
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
		_ = elsewhere(func() error { // which does not fail
			return as(u, func() error {
				bounds[unix.RLIMIT_NPROC] = uint64(tasks(r.uid()) + l.Processes)
				return nil
			})
		})
	}
	err := r.bound(bounds)
	if u != nil && errors.Is(err, unix.EPERM) {
		// Without CAP_SYS_RESOURCE only the real user may. A program of the user could kill
		// that thread, but it is there for an instant.
		err = u.call(true, func() error { return r.bound(bounds) })
	}
	if err != nil {
		return err
	}
	return as(u, func() error {
		if l.Nice != 0 {
			_ = unix.Setpriority(unix.PRIO_PGRP, r.pid, l.Nice)
		}
		return nil
	})
}

// adjust has the kernel prefer the program when it lacks memory. The program's own thread
// is not allowed to.
func (r *run) adjust() {
	if r.c.Limits.OOM == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return
	}
	_ = as(r.c.User, func() error {
		fd, err := unix.Open("/proc/"+strconv.Itoa(r.pid)+"/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.Write(fd, strconv.AppendInt(nil, int64(r.c.Limits.OOM), 10))
		return err
	})
}

// elsewhere calls f on a thread that is not confined.
func elsewhere(f func() error) error {
	done := make(chan error)
	go func() { done <- f() }()
	return <-done
}

// bound sets limits of the program, by resource.
func (r *run) bound(limits map[int]uint64) error {
	for resource, n := range limits {
		err := unix.Prlimit(r.pid, resource, &unix.Rlimit{Cur: n, Max: n}, nil)
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
	for _, pid := range processes(0) {
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

// watch ticks when the memory should be looked at, until stop is called.
func (r *run) watch() (tick <-chan time.Time, stop func()) {
	if r.c.Limits.Memory <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(watchEvery)
	return t.C, t.Stop
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

// sweep kills what has left the group, a daemon for instance, and waits for the end of all.
// One of these processes has lost its parent, however many steps it is from the leader.
func (r *run) sweep() {
	leaders.Delete(r.pid)
	wait := time.Millisecond
	for until := time.Now().Add(killTime); time.Now().Before(until); wait = min(2*wait, 50*time.Millisecond) {
		some, dying := orphans(r)
		if !some || !dying && r.kill() == 0 {
			return // those that there are belong to other runs
		}
		time.Sleep(wait) // there is no signal for the end of a process that is not a child
	}
}

// kill kills the processes of this run that there are, and returns how many it has found.
func (r *run) kill() (n int) {
	since := r.began
	if time.Since(since) > short {
		since = time.Time{} // look at all
	}
	_ = elsewhere(func() error {
		return as(r.c.User, func() error {
			pids := r.members(since)
			n = len(pids)
			killThese(pids)
			return nil
		})
	})
	return n
}

// members are the processes of this run. With since they are looked for only among the
// numbers that were given after the leader's, which is right for a short run and much
// less work.
func (r *run) members(since time.Time) []int {
	var pids []int
	if since.IsZero() {
		pids = processes(0)
	} else {
		pids = given(r.pid)
	}
	mark := append([]byte(r.c.Mark), 0)
	return find(pids, func(pid int) bool {
		other, ok := leaders.Load(pid)
		return !ok || other == r
	}, func(environ []byte) bool { return has(environ, mark) })
}

// given are the processes whose numbers were given after first, itself included. After
// the highest number the kernel goes on with low ones.
func given(first int) []int {
	pids := processes(first)
	last := lastPID()
	if last >= first {
		return slices.DeleteFunc(pids, func(pid int) bool { return pid > last })
	}
	pids = processes(0)
	last = lastPID()
	return slices.DeleteFunc(pids, func(pid int) bool { return last < pid && pid < first })
}

// lastPID is the number that was given last.
func lastPID() int {
	b, _ := readFile("/proc/loadavg", nil)
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

// find lists those of the processes whose number may be of one of ours, and whose
// environment is. This process is not among them, nor are those that have ended.
func find(all []int, may func(pid int) bool, ours func(environ []byte) bool) (pids []int) {
	var buf []byte
	for _, pid := range all {
		if pid == os.Getpid() || !may(pid) {
			continue
		}
		if buf = environ(pid, buf); len(buf) > 0 && ours(buf) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// environ is the environment of a process, nothing if it has ended or is another user's.
// It uses the memory of buf.
func environ(pid int, buf []byte) []byte {
	at := "/proc/" + strconv.Itoa(pid)
	for wait := 100 * time.Microsecond; wait < killTime; wait *= 2 {
		var ok bool
		buf, ok = readFile(at+"/environ", buf)
		if !ok || len(buf) > 0 || !changing(at) {
			break
		}
		time.Sleep(wait) // there is no signal for it
	}
	return buf
}

// changing says whether a program has taken the place of another in the process at this
// place in /proc, or is about to: there is memory, and no environment in it yet, or one that
// is not empty.
func changing(at string) bool {
	stat, _ := readFile(at+"/stat", nil)
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // from the third on
	const size, begin, end = 23 - 3, 50 - 3, 51 - 3                 // the environment's
	if len(fields) <= end || string(fields[size]) == "0" {
		return false // it has ended, or is a part of the kernel
	}
	return string(fields[end]) == "0" || !bytes.Equal(fields[begin], fields[end])
}

// readFile reads a file of /proc into buf, if it can be read. There is no
// [os.File], which costs as much as the rest.
func readFile(path string, buf []byte) (all []byte, ok bool) {
	buf = buf[:0]
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return buf, false
	}
	defer unix.Close(fd)
	for {
		buf = slices.Grow(buf, 4<<10)
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return buf[:0], false
		case n == 0:
			return buf, true
		default:
			buf = buf[:len(buf)+n]
		}
	}
}

func anyPID(int) bool { return true }

// processes are the numbers of all that there are, from one on.
func processes(first int) (pids []int) {
	fd, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	if first > 0 && seekable() {
		_, _ = unix.Seek(fd, offsetOf(first), io.SeekStart) // else there are more to look at
	}
	var names []string
	for buf := make([]byte, 8<<10); ; {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return pids
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil && pid >= first {
				pids = append(pids, pid)
			}
		}
	}
}

// offsetOf is where a process stands in /proc: the kernel lists them behind its own
// entries, by number.
func offsetOf(pid int) int64 { return int64(pid) + 258 }

// seekable says whether that is so here: this process stands there, and not behind it.
var seekable = sync.OnceValue(func() bool {
	at := func(offset int64) bool {
		fd, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return false
		}
		defer unix.Close(fd)
		if _, err := unix.Seek(fd, offset, io.SeekStart); err != nil {
			return false
		}
		buf := make([]byte, 8<<10)
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			return false
		}
		_, _, names := unix.ParseDirent(buf[:n], 1, nil)
		return len(names) > 0 && names[0] == strconv.Itoa(os.Getpid())
	}
	offset := offsetOf(os.Getpid())
	return at(offset) && !at(offset+1)
})

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
		killThese(pids)
		time.Sleep(wait) // there is no signal for the end of a process that is not a child
	}
	return max(first, 0)
}

func killThese(pids []int) {
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
	}
}

// Sweep kills all processes whose environment has an entry that begins like this, whoever's
// they are. It returns how many there were. They are those of a server that was killed:
// they must not run beside what runs again.
func Sweep(prefix string) (n int) {
	p := []byte(prefix)
	for _, u := range append(others(), nil) {
		_ = as(u, func() error { // fails unless this process is root, which alone has programs of others
			n += killAll(func() []int { return find(processes(0), anyPID, func(environ []byte) bool { return has(environ, p) }) })
			return nil
		})
	}
	return n
}

// others are the users besides this process's that have processes.
func others() (users []*User) {
	seen := map[uint32]bool{uint32(os.Getuid()): true}
	for _, pid := range processes(0) {
		var st unix.Stat_t
		if unix.Stat("/proc/"+strconv.Itoa(pid), &st) == nil && !seen[st.Uid] {
			seen[st.Uid] = true
			users = append(users, &User{st.Uid, st.Gid})
		}
	}
	return users
}

// Left lists the processes that [Sweep] would kill.
func Left(prefix string) []int {
	return find(processes(0), anyPID, func(environ []byte) bool { return has(environ, []byte(prefix)) })
}

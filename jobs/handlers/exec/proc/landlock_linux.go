package proc

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What each version of Landlock can refuse, see
// https://docs.kernel.org/userspace-api/landlock.html.
const (
	writeAccess = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	readAccess = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// devices are never made, not even where a program may write.
	devices = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK
	// fileAccess are those that a rule for a file may have.
	fileAccess = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	networkAccess = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	networkABI    = 4
	signalABI     = 6
)

// always are the files that every program may use.
var always = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}

// The system calls of Landlock are made by hand: x/sys has their numbers and structures,
// and no functions.

// LandlockABI is the version of Landlock that the kernel has, 0 if none.
var LandlockABI = sync.OnceValue(func() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
})

// Missing says what of s the kernel cannot do, "" if nothing.
func (s *Sandbox) Missing() string {
	switch abi := LandlockABI(); {
	case s.Off:
		return ""
	case abi == 0:
		return "this kernel has no Landlock, so programs may write wherever their user may"
	case s.NoNetwork && abi < networkABI:
		return fmt.Sprintf("Landlock %d of this kernel cannot keep programs from the network; it takes %d", abi, networkABI)
	}
	return ""
}

// confine restricts this thread and what it starts for good. The calling goroutine must
// be locked to it for good.
func (s *Sandbox) confine() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	abi := LandlockABI()
	if s.Off || abi == 0 {
		return nil
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: writeAccess}
	if abi >= 2 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	write := attr.Handled_access_fs
	if len(s.Read) > 0 {
		attr.Handled_access_fs |= readAccess
	}
	if s.NoNetwork && abi >= networkABI {
		attr.Handled_access_net = networkAccess
	}
	if abi >= signalABI {
		attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	defer unix.Close(int(fd))
	for _, file := range alwaysOpen() {
		if err := file.allow(int(fd), attr.Handled_access_fs); err != nil {
			return err
		}
	}
	for _, path := range s.Write {
		if err := allow(int(fd), path, attr.Handled_access_fs&^devices); err != nil {
			return err
		}
	}
	for _, path := range s.Read {
		if err := allow(int(fd), path, attr.Handled_access_fs&^write); err != nil {
			return err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	return nil
}

// alwaysOpen are those of the files that every program may use that there are. They stay
// open, as opening them takes longer than the rest of a rule.
var alwaysOpen = sync.OnceValue(func() (all []place) {
	for _, path := range always {
		if p, err := open(path); err == nil {
			all = append(all, p)
		}
	}
	return all
})

// allow lets a ruleset allow some accesses below a path.
func allow(ruleset int, path string, access uint64) error {
	p, err := open(path)
	if err != nil {
		return err
	}
	defer unix.Close(p.fd)
	return p.allow(ruleset, access)
}

// place is an open file or folder that rules can name.
type place struct {
	path string
	fd   int
	file bool
}

func open(path string) (place, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return place{}, &os.PathError{Op: "sandbox", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd) // nothing was written
		return place{}, &os.PathError{Op: "sandbox", Path: path, Err: err}
	}
	return place{path, fd, st.Mode&unix.S_IFMT != unix.S_IFDIR}, nil
}

func (p place) allow(ruleset int, access uint64) error {
	if p.file {
		access &= fileAccess
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(p.fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
		return &os.PathError{Op: "sandbox", Path: p.path, Err: errno}
	}
	return nil
}

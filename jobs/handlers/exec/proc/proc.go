// Package proc runs one program as a whole: it and all processes that it starts end
// together, whatever ends it.
//
// Start reading at [Run]. On Linux the program may be confined, see [Sandbox], and a
// mark in the environment finds its processes again, see [Sweep]; elsewhere it only has
// a process group of its own.
//
// After [AdoptOrphans], processes that a program leaves behind become children of this
// process, which reaps them. Otherwise they become children of init.
package proc

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// adopting says that AdoptOrphans was called.
var adopting atomic.Bool

// AdoptOrphans makes this process the one that gets the processes that programs leave
// behind, and reaps them. Then their ends cost less to find out. Call it before the first
// [Run], and only in a process that starts no other children: one with a group of its own
// could be reaped as well, before whoever started it. It does nothing but on Linux.
func AdoptOrphans() { adopting.Store(true) }

// Command is what [Run] runs.
type Command struct {
	Argv []string // Argv[0] is the path of the executable, which must not be relative
	Dir  string   // the working directory
	Env  []string // the whole environment; Mark is appended to it
	// Mark is an entry NAME=value by which processes of this run are known. It must not be
	// the same as another run's.
	Mark string
	// Stdin is what the program reads; nil: nothing. A file it gets itself.
	Stdin  io.Reader
	Stdout io.Writer // what is written there; nil: it is thrown away
	Stderr io.Writer
	Events io.Writer // what is written to file descriptor 3
	// KillAfter is what the program has to end by itself between a TERM and a KILL.
	KillAfter time.Duration
	User      *User // nil: as this process
	Limits    Limits
	Sandbox   Sandbox
}

// User is who runs a program.
type User struct{ UID, GID uint32 }

// Limits bound what a program may use. A zero is no bound, unless it says otherwise.
type Limits struct {
	Output int64         // bytes that it writes, all three streams together
	Memory int64         // resident bytes of all its processes together; looked at ten times a second
	CPU    time.Duration // of each process, in whole seconds
	// Processes is how many processes and threads its user may have beyond those that it
	// has when the program starts. The kernel does not keep root to it.
	Processes int
	Files     int   // open in each process
	FileSize  int64 // bytes of each file that it writes
	Nice      int   // added to the niceness; 0 = as this process
	OOM       int   // oom_score_adj; 0 = as this process
}

// Sandbox says what a program may touch, as far as the kernel has Landlock.
type Sandbox struct {
	Off       bool
	Write     []string // it may write only below these
	Read      []string // it may read only below these and Write; none: everything
	NoNetwork bool     // no TCP
}

// End is how a program ended.
type End struct {
	Code   int            // its exit status, if Signal is 0
	Signal syscall.Signal // that ended it
	// Over is the limit because of which it was ended, for people; "" if none was.
	Over string
	// Stopped: it was ended because the context was.
	Stopped bool
}

// OK says whether the program ended by itself with status 0.
func (e *End) OK() bool { return e.Code == 0 && e.Signal == 0 && e.Over == "" }

// String is like "exit status 2", "killed by SIGKILL" or "more than 20 processes".
func (e *End) String() string {
	switch {
	case e.Over != "":
		return e.Over
	case e.Signal != 0:
		return "ended by " + signalName(e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// signalName is like SIGKILL, with the limit that it tells of, if it does.
func signalName(s syscall.Signal) string {
	name := cmp.Or(unix.SignalName(s), fmt.Sprintf("signal %d", int(s)))
	switch s {
	case syscall.SIGXCPU:
		name += " (limits.cpu)"
	case syscall.SIGXFSZ:
		name += " (limits.file_size)"
	}
	return name
}

// ErrNotStarted is what an error of [Run] wraps if the program never ran.
var ErrNotStarted = errors.New("the program could not be started")

// drainTime is how long the rest of the output may take to come once all processes
// have ended: it is in the kernel's buffers then.
const drainTime = 2 * time.Second

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal opens a terminal: the side of its window, and the side of its programs.
func openTerminal(t *testing.T) (window, inside *os.File) {
	t.Helper()
	window, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	mustDo(t, unix.IoctlSetPointerInt(int(window.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(window.Fd()), unix.TIOCGPTN)
	mustDo(t, err)
	inside, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	mustDo(t, err)
	return window, inside
}

// TestTerminalIsClosed: a server ends cleanly with the terminal in which it was started,
// unless nohup started it. Otherwise SIGHUP is a reload there, too.
func TestTerminalIsClosed(t *testing.T) {
	t.Parallel()
	for _, nohup := range []bool{false, true} {
		t.Run(fmt.Sprint("nohup ", nohup), func(t *testing.T) {
			window, inside := openTerminal(t)
			cmd := exec.Command(os.Args[0]) //nolint:noctx // it is ended by hand
			if nohup {
				path, err := exec.LookPath("nohup")
				if err != nil {
					t.Skip(err)
				}
				cmd = exec.Command(path, os.Args[0]) //nolint:noctx // likewise
			}
			cmd.Stdin = inside
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			c := startAs(t, cmd, t.TempDir())
			mustDo(t, inside.Close())
			reloads := func() int { return strings.Count(c.logged(), "the configuration was not taken up") }
			mustDo(t, cmd.Process.Signal(syscall.SIGHUP))
			waitUntil(t, func() bool { return reloads() == 1 })
			mustDo(t, window.Close())
			if nohup {
				waitUntil(t, func() bool { return reloads() >= 2 })
				mustDo(t, cmd.Process.Signal(syscall.SIGTERM))
			}
			select {
			case err := <-c.done:
				if err != nil {
					t.Errorf("it ended with %v", err)
				}
			case <-time.After(patience):
				t.Fatal("it does not end")
			}
			if !strings.Contains(c.logged(), "msg=stopped") {
				t.Errorf("the stop was not clean:\n%s", c.logged())
			}
		})
	}
}

package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/handlers/importer"
)

// typist is somebody at a terminal, in which a command runs.
type typist struct {
	t      *testing.T
	window *os.File
	screen *logged // all that was written to it
	cmd    *exec.Cmd
	done   chan error
}

// typing starts the built program in a terminal of 130 by 40.
func typing(t *testing.T, h *house, args ...string) *typist {
	t.Helper()
	bin, err := built()
	mustDo(t, err)
	window, inside := openTerminal(t)
	mustDo(t, unix.IoctlSetWinsize(int(window.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 130}))
	p := &typist{t: t, window: window, screen: newLogged(), cmd: exec.Command(bin, args...), done: make(chan error, 1)} //nolint:noctx // it ends by its keys
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = inside, inside, inside
	p.cmd.Env = append(cleanEnviron(), "JOBSTREAM_URL="+h.rest, "TERM=xterm-256color")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	mustDo(t, p.cmd.Start())
	mustDo(t, inside.Close())
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(p.screen, window) // until nobody has it open
	}()
	go func() {
		err := p.cmd.Wait()
		<-read
		p.done <- err
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = window.Close()
	})
	return p
}

// sees waits until a text has been on the screen.
func (p *typist) sees(text string) {
	p.t.Helper()
	select {
	case <-p.screen.has(text):
	case <-time.After(patience):
		p.t.Fatalf("%q does not appear:\n%q", text, p.screen)
	}
}

func (p *typist) enters(keys string) {
	p.t.Helper()
	_, err := io.WriteString(p.window, keys)
	mustDo(p.t, err)
}

// ends waits for the end of the command.
func (p *typist) ends(code int) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%q does not end:\n%q", p.cmd.Args, p.screen)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("%q ends with %d, want %d:\n%s", p.cmd.Args, got, code, p.screen)
	}
}

// TestTop: a picture of the whole terminal that is live, pauses a type, and leaves the
// terminal as it was.
func TestTop(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{
		"aaa": jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil }),
	}})
	p := typing(t, h, "top")
	p.sees("\x1b[?1049h")
	p.sees("Just now")
	p.sees("cleanup")
	h.do(http.MethodPost, "/jobs", `{"type":"aaa"}`)
	p.sees("#1")
	paused := func(want string) func() bool {
		return func() bool { return strings.Contains(string(h.do(http.MethodGet, "/types/aaa", "").body), want) }
	}
	p.enters("jkp")
	waitUntil(t, paused(`"paused":true`))
	p.sees("aaa is paused")
	waitUntil(t, func() bool {
		p.enters("p") // until a picture shows the pause, it pauses again
		return paused(`"paused":false`)()
	})
	p.enters("q")
	p.ends(exitOK)
	if !strings.Contains(p.screen.String(), "\x1b[?1049l") {
		t.Error("the terminal is not as it was")
	}
	p = typing(t, h, "top", "--token", "wrong")
	p.sees("the token is unknown")
	p.ends(exitBroken)
}

// TestAtTheTerminal: tables with colours, questions, progress; and nothing that a job says
// changes the terminal.
func TestAtTheTerminal(t *testing.T) {
	t.Parallel()
	half := make(chan struct{})
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{
		"slow": jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
			task.Progress(50, "half of it")
			select {
			case <-half:
			case <-ctx.Done():
			}
			return jobs.Result{}, ctx.Err()
		}),
		"evil": jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) {
			return jobs.Result{}, jobs.Permanent(errors.New("\x1b]0;owned\x07 \u202eback"))
		}),
	}})
	p := typing(t, h, "submit", "slow", "--wait", "--tag", "x")
	p.sees("[##########..........] 50 %")
	close(half)
	p.sees("slow #1 is \x1b[32mcompleted\x1b[m after ")
	p.ends(exitOK)

	p = typing(t, h, "submit", "evil", "--wait", "--tag", "x")
	p.sees("the job is failed: ")
	p.ends(exitFailed)
	for _, args := range [][]string{{"jobs"}, {"job", "2"}, {"job", "2", "-o", "json"}, {"log", "2"}, {"failures"}} {
		p := typing(t, h, args...)
		p.ends(exitOK)
		if s := p.screen.String(); strings.Contains(s, "\x1b]0;") || strings.Contains(s, "\u202e") || strings.Contains(s, "\x07") {
			t.Errorf("%q lets a job change the terminal: %q", args, s)
		}
	}
	p = typing(t, h, "jobs")
	p.ends(exitOK)
	if s := p.screen.String(); !strings.Contains(s, "\x1b[31mfailed") || !strings.Contains(s, "CREATED") {
		t.Errorf("jobs shows %q", s)
	}

	p = typing(t, h, "jobs", "--watch", "--every=100ms")
	p.sees("Ctrl-C ends it")
	h.do(http.MethodPost, "/jobs", `{"type":"slow","delay":"1h","tags":["x"]}`)
	p.sees("scheduled")
	p.enters("\x03")
	p.ends(exitOK)

	for _, c := range []struct {
		keys string
		code int
		says string
	}{{"n\n", exitBroken, "nothing has been changed"}, {"\n", exitBroken, "nothing has been changed"}, {"y\n", exitOK, "completed"}} {
		p = typing(t, h, "cancel", "--tag", "x", "--status", "scheduled")
		p.sees("1 job will be cancelled. Go on? [y/N] ")
		p.enters(c.keys)
		p.sees(c.says)
		p.ends(c.code)
	}
}

// TestProgressAtTheTerminal: whatever takes long says how far it is, in the same form, and
// only on a terminal.
func TestProgressAtTheTerminal(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{change: func(c *config.Config) {
		c.Jobs["import"] = config.JobType{Run: "import", Timeout: time.Minute, Inputs: importer.Inputs()}
	}})
	dir := t.TempDir()
	rows, copied := filepath.Join(dir, "rows.csv"), filepath.Join(dir, "copy.tar")
	mustDo(t, os.WriteFile(rows, []byte("older_than,dry_run\n"+strings.Repeat("30d,true\n", 100)), 0o600))
	for _, c := range []struct {
		args []string
		sees string
	}{
		{[]string{"submit", "import", "-p", `{"type":"cleanup"}`, "--input", "file=" + rows}, "sending " + rows + ": ["},
		{[]string{"backup", copied}, "backup: ["},
		{[]string{"restore", copied, "--data", filepath.Join(dir, "restored")}, "restore: ["},
		{[]string{"doctor"}, "inspecting, 0 s"},
		{[]string{"bench", "--phase", "sustained", "--jobs", "1000", "--dir", dir}, "sustained ["},
	} {
		if c.args[0] != "restore" && c.args[0] != "bench" {
			c.args = append(c.args, "--token", adminToken)
		}
		p := typing(t, h, c.args...)
		p.sees(c.sees)
		p.ends(exitOK)
		if c.args[0] == "restore" || c.args[0] == "bench" {
			continue
		}
		bin, err := built()
		mustDo(t, err)
		cmd := exec.CommandContext(t.Context(), bin, c.args...)
		cmd.Env = append(cleanEnviron(), "JOBSTREAM_URL="+h.rest)
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "\x1b") || strings.Contains(string(out), " [#") {
			t.Errorf("into a pipe %q prints %q, %v", c.args, out, err)
		}
	}
}

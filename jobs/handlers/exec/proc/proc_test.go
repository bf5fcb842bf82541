//go:build linux

package proc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func init() { AdoptOrphans() }

var runs atomic.Int64

// shell is a command that runs a script.
func shell(t *testing.T, script string) *Command {
	t.Helper()
	return &Command{
		Argv: []string{"/bin/sh", "-c", script}, Dir: t.TempDir(), Env: []string{"PATH=/usr/bin:/bin"},
		Mark: fmt.Sprintf("PROC_TEST=%d.%d.", os.Getpid(), runs.Add(1)), KillAfter: 5 * time.Second,
	}
}

// nothingLeft fails the test if a process of c is still there.
func nothingLeft(t *testing.T, c *Command) {
	t.Helper()
	if left := Left(c.Mark); len(left) > 0 {
		t.Errorf("%d processes are left: %v", len(left), left)
	}
}

func TestRun(t *testing.T) {
	var out, errs, events bytes.Buffer
	c := shell(t, `read line; echo "out $line"; echo err >&2; echo progress 50 >&3; pwd; exit 3`)
	c.Stdin, c.Stdout, c.Stderr, c.Events = strings.NewReader("in\nmore\n"), &out, &errs, &events
	end, err := Run(context.Background(), c)
	if err != nil || end.Code != 3 || end.String() != "exit status 3" {
		t.Fatalf("ended with %+v, %v", end, err)
	}
	if want := "out in\n" + c.Dir + "\n"; out.String() != want || errs.String() != "err\n" || events.String() != "progress 50\n" {
		t.Errorf("wrote %q, %q, %q", out.String(), errs.String(), events.String())
	}
	nothingLeft(t, c)
}

// TestShapes ends programs of every shape in every way.
func TestShapes(t *testing.T) {
	shapes := map[string]string{
		"sleep":             `sleep 1000`,
		"in background":     `sleep 1000 & sleep 1000`,
		"subshell":          `(sleep 1000)`,
		"pipe":              `sleep 1000 | cat`,
		"setsid":            `setsid sleep 1000 & sleep 1000`,
		"double fork":       `(setsid sh -c 'sleep 1000 & sleep 1000' &) ; sleep 1000`,
		"closes its output": `exec >&- 2>&- 3>&-; sleep 1000`,
		"ignores TERM":      `trap '' TERM; sleep 1000; sleep 1000`,
		"stopped":           `sh -c 'kill -STOP $$; sleep 1000'`,
		"writes for ever":   `yes`,
	}
	for name, script := range shapes {
		for _, how := range []string{"ends", "context"} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				began := &first{then: cancel}
				c := shell(t, `echo begun >&3; `+script)
				c.Events = began
				if strings.Contains(script, "TERM") || strings.Contains(script, "STOP") {
					c.KillAfter = 100 * time.Millisecond
				}
				if how == "ends" {
					// the shell ends at once, and what it has started does not
					c.Argv[2] = `echo begun >&3; (` + script + `) & sleep 0.1; exit 0`
					began.then = func() {}
				}
				end, err := Run(ctx, c)
				if err != nil {
					t.Fatal(err)
				}
				if end.Stopped != (how == "context") || how == "ends" && !end.OK() {
					t.Errorf("ended with %+v", end)
				}
				nothingLeft(t, c)
			})
		}
	}
}

// TestLeavesAtOnce ends while what it has started leaves its group and becomes another
// program, again and again.
func TestLeavesAtOnce(t *testing.T) {
	runs := make([]*Command, 20)
	for i := range runs {
		runs[i] = shell(t, `setsid /bin/sh -c 'n=$1; [ "$n" -lt 100 ] || exec sleep 1000; exec /bin/sh -c "$0" "$0" $((n+1))' 'n=$1; [ "$n" -lt 100 ] || exec sleep 1000; exec /bin/sh -c "$0" "$0" $((n+1))' 0 & sleep 0.01`)
		if end, err := Run(context.Background(), runs[i]); err != nil || !end.OK() {
			t.Fatal(end, err)
		}
	}
	for _, c := range runs {
		nothingLeft(t, c)
		Sweep(c.Mark)
	}
}

// TestOrphans has programs leave processes behind that end by themselves, beside children
// of this process that are none of theirs.
func TestOrphans(t *testing.T) {
	if adopt() == none {
		t.Skip("this kernel does not list the children of a thread: the reaping of orphans is NOT tested")
	}
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			c := shell(t, `(setsid true &); (setsid sleep 0.02 &); (true &); sleep 0.05; (setsid sleep 1000 &)`)
			if end, err := Run(context.Background(), c); err != nil || !end.OK() {
				t.Errorf("ended with %v, %v", end.String(), err)
			}
			nothingLeft(t, c)
		})
		group.Go(func() {
			for range 20 {
				if err := exec.Command("/bin/sh", "-c", "exit 3").Run(); err == nil || err.Error() != "exit status 3" { //nolint:noctx // it ends at once
					t.Errorf("a child of somebody else ended with %v", err)
				}
			}
		})
	}
	group.Wait()
	if some, _ := orphans(&run{c: new(Command)}); some { // no other test runs beside this one
		b, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
		t.Errorf("orphans are left among the children %s", b)
	}
}

// TestStreams moves more than the pipes hold, in both directions at once, and to a reader
// that is slow at first.
func TestStreams(t *testing.T) {
	in := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	path := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(path, in, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, stdin := range map[string]io.Reader{"memory": bytes.NewReader(in), "reader": io.MultiReader(bytes.NewReader(in)), "file": file} {
		var out, errs, events bytes.Buffer
		c := shell(t, `tee /dev/stderr /dev/fd/3`)
		c.Stdin, c.Stdout, c.Stderr, c.Events = stdin, &out, &errs, &events
		if end, err := Run(context.Background(), c); err != nil || !end.OK() {
			t.Fatalf("%s: ended with %v, %v", name, end.String(), err)
		}
		if !bytes.Equal(out.Bytes(), in) || !bytes.Equal(errs.Bytes(), in) || !bytes.Equal(events.Bytes(), in) {
			t.Errorf("%s: of %d bytes come %d, %d and %d", name, len(in), out.Len(), errs.Len(), events.Len())
		}
	}
	for name, stdin := range map[string]io.Reader{"memory": bytes.NewReader(in), "never": neverReads{}} {
		c := shell(t, `exit 0`) // reads nothing
		c.Stdin = stdin
		if end, err := Run(context.Background(), c); err != nil || !end.OK() {
			t.Errorf("%s: ended with %v, %v", name, end.String(), err)
		}
	}
}

// neverReads always has more.
type neverReads struct{}

func (neverReads) Read(b []byte) (int, error) { return len(b), nil }

// TestReadsItsOwnOutput lets a program take what it wrote out of the pipe again.
func TestReadsItsOwnOutput(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := shell(t, `cat /dev/fd/3 & cat /dev/fd/3 & i=0; while [ $i -lt 2000 ]; do echo line >&3; i=$((i+1)); done; exit 0`)
	if end, err := Run(ctx, c); err != nil || !end.OK() {
		t.Errorf("ended with %v, %v", end.String(), err)
	}
	nothingLeft(t, c)
}

// first calls then at the first byte.
type first struct {
	then func()
	done atomic.Bool
}

func (f *first) Write(b []byte) (int, error) {
	if f.done.CompareAndSwap(false, true) {
		f.then()
	}
	return len(b), nil
}

func TestLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		limits Limits
		want   string
	}{
		"output":    {`yes`, Limits{Output: 1 << 20}, "wrote more than 1048576 bytes (limits.output)"},
		"a line":    {`head -c 100000000 /dev/zero`, Limits{Output: 1 << 20}, "wrote more than 1048576 bytes (limits.output)"},
		"cpu":       {`while :; do :; done`, Limits{CPU: time.Second}, "ended by"},
		"files":     {`sleep 0.1; exec 4</dev/null 5</dev/null 6</dev/null 7</dev/null 8</dev/null 9</dev/null`, Limits{Files: 6}, "exit status"},
		"file size": {`head -c 100000 /dev/zero > big; echo "$?"; exit 5`, Limits{FileSize: 1000}, "exit status 5"},
		"memory":    {`head -c 300m /dev/zero | tail`, Limits{Memory: 64 << 20}, "used more than 67108864 bytes of memory (limits.memory)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := shell(t, tt.script)
			c.Limits = tt.limits
			end, err := Run(context.Background(), c)
			if err != nil || end.OK() || !strings.HasPrefix(end.String(), tt.want) {
				t.Errorf("ended with %q, %v; want %q", end.String(), err, tt.want)
			}
			nothingLeft(t, c)
			if info, err := os.Stat(filepath.Join(c.Dir, "big")); err == nil && info.Size() > 1000 {
				t.Errorf("a file has %d bytes", info.Size())
			}
		})
	}
}

// TestLimitsHoldAtOnce runs a program whose first act is to start another one, which must
// not escape the limits.
func TestLimitsHoldAtOnce(t *testing.T) {
	for range 50 {
		var out bytes.Buffer
		c := shell(t, "")
		c.Argv = []string{"/usr/bin/env", "cat", "/proc/self/limits"} // no time is lost before it reads
		c.Limits, c.Stdout = Limits{Files: 77, FileSize: 12345, CPU: 99 * time.Second}, &out
		if end, err := Run(context.Background(), c); err != nil || !end.OK() {
			t.Fatal(end, err)
		}
		for _, n := range []string{"77", "12345", "99"} {
			if !strings.Contains(out.String(), " "+n+" ") {
				t.Fatalf("the program runs without the limit %s:\n%s", n, out.String())
			}
		}
	}
}

// ownUser is a user whose processes nobody else counts or makes.
func ownUser() *User {
	id := uint32(50000 + os.Getpid()%10000)
	return &User{id, id}
}

// TestProcesses lets a program make processes as fast as it can. It does so only where
// it has seen the limit, since nothing else stops it.
func TestProcesses(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root, so no user of its own: the limit of processes is NOT tested")
	}
	var out bytes.Buffer
	c := shell(t, `sleep 0.1
		limit=$(awk '/Max processes/ {print $3}' /proc/self/limits)
		[ "$limit" -lt 100 ] || exit 9
		for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do sleep 1000 & done
		exit 0`)
	c.Dir, c.User, c.Limits.Processes, c.Stderr = "/", ownUser(), 20, &out
	end, err := Run(context.Background(), c)
	if err != nil || end.OK() || end.Code == 9 || !strings.Contains(out.String(), "fork") {
		t.Errorf("ended with %v, %v: %s", end.String(), err, out.String())
	}
	nothingLeft(t, c)
}

func TestSandbox(t *testing.T) {
	if LandlockABI() == 0 {
		t.Skip("this kernel has no Landlock: the sandbox is NOT tested")
	}
	outside := t.TempDir()
	c := shell(t, `echo in > mine && echo null > /dev/null && echo event > "$JOBSTREAM_EVENTS"; cat /etc/passwd > copy; echo out > `+outside+`/theirs; mknod dev c 1 3; ls; grep NoNewPrivs /proc/self/status`)
	c.Env = append(c.Env, "JOBSTREAM_EVENTS=/dev/fd/3")
	c.Sandbox.Write = []string{c.Dir}
	var out, errs, events bytes.Buffer
	c.Stdout, c.Stderr, c.Events = &out, &errs, &events
	if _, err := Run(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	if out.String() != "copy\nmine\nNoNewPrivs:\t1\n" || events.String() != "event\n" {
		t.Errorf("wrote %q, %q; errors: %s", out.String(), events.String(), errs.String())
	}
	if _, err := os.Stat(outside + "/theirs"); err == nil {
		t.Error("wrote outside of its folder")
	}
	if err := os.WriteFile(outside+"/ours", nil, 0o600); err != nil {
		t.Errorf("this process is confined, too: %v", err)
	}
	c = shell(t, `cat /etc/passwd`)
	c.Sandbox.Write, c.Sandbox.Read = []string{c.Dir}, []string{"/usr", "/bin", "/lib", "/lib64"}
	if end, err := Run(context.Background(), c); err != nil || end.OK() {
		t.Errorf("read what is not listed: %v, %v", end, err)
	}
}

func TestUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: another user is NOT tested")
	}
	var out, errs, events bytes.Buffer
	c := shell(t, `id -u; id -g; id -G; echo err > /dev/stderr; echo event > /dev/fd/3; read line < /dev/stdin; echo "$line" > /dev/stdout`)
	c.Dir, c.User, c.Stdin, c.Stdout, c.Stderr, c.Events = "/", &User{65534, 65534}, strings.NewReader("in\n"), &out, &errs, &events
	if end, err := Run(context.Background(), c); err != nil || !end.OK() || out.String() != "65534\n65534\n65534\nin\n" {
		t.Errorf("%v, %v: %q, %q", end, err, out.String(), errs.String())
	}
	if errs.String() != "err\n" || events.String() != "event\n" {
		t.Errorf("opened by their names, the streams get %q and %q", errs.String(), events.String())
	}
}

// TestActingThreadIsNotTheUsers tries what a program of a user could do to a thread that
// looks at it: to kill that is to kill this process.
func TestActingThreadIsNotTheUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: another user is NOT tested")
	}
	u := ownUser()
	var uids string
	err := as(u, func() error {
		b, err := os.ReadFile("/proc/thread-self/status")
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "Uid:") {
				uids = strings.Join(strings.Fields(line)[1:], " ")
			}
		}
		return err
	})
	if want := fmt.Sprintf("0 %[1]d 0 %[1]d", u.UID); err != nil || uids != want { // real, effective, saved, of files
		t.Errorf("users are %q, %v; want %q", uids, err, want)
	}
	for range 100 {
		_ = as(u, func() error { return nil })
	}
	if n := tasks(u.UID); n > 0 { // the first thread stays, and all count as its user's
		t.Errorf("%d threads of this process are left to the user", n)
	}
}

// TestSweep finds the processes of a server that was killed, whoever's they are.
func TestSweep(t *testing.T) {
	for name, credential := range map[string]*syscall.Credential{"own": nil, "another user's": {Uid: 65531, Gid: 65531}} {
		t.Run(name, func(t *testing.T) {
			if credential != nil && os.Getuid() != 0 {
				t.Skip("not root: another user is NOT tested")
			}
			prefix := fmt.Sprintf("PROC_SWEEP=%d.%d.", os.Getpid(), runs.Add(1))
			p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "setsid sleep 1000 & sleep 1000"}, &os.ProcAttr{
				Dir: "/", Env: []string{"PATH=/usr/bin:/bin", prefix + "1"}, Sys: &syscall.SysProcAttr{Setpgid: true, Credential: credential},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = p.Wait() }()
			all := func() (n int) { // root may not look at the others' everywhere
				u := (*User)(nil)
				if credential != nil {
					u = &User{credential.Uid, credential.Gid}
				}
				_ = as(u, func() error {
					n = len(Left(prefix))
					return nil
				})
				return n
			}
			for all() < 2 { // the shell and what it starts
				time.Sleep(time.Millisecond) // there is no signal for it
			}
			if Sweep(prefix) < 2 || all() > 0 {
				t.Errorf("%d are left", all())
			}
		})
	}
}

func TestNotStarted(t *testing.T) {
	c := shell(t, "")
	c.Argv = []string{"/no/such/program"}
	if _, err := Run(context.Background(), c); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

// A run looks for what is left of it among newer processes only.
func TestProcessesFrom(t *testing.T) {
	own := os.Getpid()
	if all := processes(0); !slices.Contains(all, own) || !slices.Contains(all, 1) {
		t.Errorf("%v is not all", all)
	}
	if some := processes(own); !slices.Contains(some, own) || slices.Contains(some, own-1) {
		t.Errorf("%v does not begin with %d", some, own)
	}
	if some := processes(own + 1); slices.Contains(some, own) {
		t.Errorf("%v begins before %d", some, own+1)
	}
	child, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Kill()
		_, _ = child.Wait()
	}()
	if some := given(own); !slices.Contains(some, child.Pid) { // whether the numbers have begun again or not
		t.Errorf("%v is without %d", some, child.Pid)
	}
}

// BenchmarkRun compares with [os.StartProcess] alone.
func BenchmarkRun(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := p.Wait(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("run", func(b *testing.B) {
		dir := b.TempDir()
		defer cpu(b)()
		for b.Loop() {
			c := &Command{Argv: []string{"/bin/true"}, Dir: dir, Mark: fmt.Sprintf("PROC_BENCH=%d.", runs.Add(1)), Sandbox: Sandbox{Write: []string{dir}}}
			if _, err := Run(context.Background(), c); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// cpu reports the processor time of this process and of its children.
func cpu(b *testing.B) func() {
	used := func(who int) time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	own, children := used(syscall.RUSAGE_SELF), used(syscall.RUSAGE_CHILDREN)
	return func() {
		b.ReportMetric(float64((used(syscall.RUSAGE_SELF)-own).Microseconds())/float64(b.N), "own-µs/op")
		b.ReportMetric(float64((used(syscall.RUSAGE_CHILDREN)-children).Microseconds())/float64(b.N), "children-µs/op")
	}
}

// TestNoTerminal has no program read or write the terminal of the server.
func TestNoTerminal(t *testing.T) {
	var out bytes.Buffer
	c := shell(t, `cut -d' ' -f1,5,7 < /proc/$$/stat; (exec 4</dev/tty) 2>/dev/null && echo terminal; exit 0`)
	c.Stdout = &out
	if _, err := Run(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(out.String())
	if len(f) != 3 || f[0] != f[1] || f[2] != "0" {
		t.Errorf("pid, group and terminal are %q", out.String())
	}
}

// TestAnotherGroup has programs join the group of this process, which a KILL must not hit.
func TestAnotherGroup(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("no python3: programs that leave their group for another are NOT tested")
	}
	for name, then := range map[string]string{
		"and end":            `os.fork() or time.sleep(1000)`,
		"and are ended":      `print("begun", file=os.fdopen(3, "w"), flush=True); time.sleep(1000)`,
		"and do not want it": `signal.signal(signal.SIGTERM, signal.SIG_IGN); print("begun", file=os.fdopen(3, "w"), flush=True); time.sleep(1000)`,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			c := shell(t, fmt.Sprintf("exec python3 -c 'import os, signal, time\ntry: os.setpgid(0, %d)\nexcept PermissionError: pass\n%s'", syscall.Getpgrp(), then))
			c.Events, c.KillAfter = &first{then: cancel}, 100*time.Millisecond
			if _, err := Run(ctx, c); err != nil {
				t.Fatal(err)
			}
			nothingLeft(t, c)
		})
	}
}

// TestNoEnvironment takes no time for a process that has none.
func TestNoEnvironment(t *testing.T) {
	child, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{Env: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Kill()
		_, _ = child.Wait()
	}()
	at := fmt.Sprintf("/proc/%d", child.Pid)
	for until := time.Now().Add(10 * time.Second); changing(at); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			b, _ := os.ReadFile(at + "/stat")
			t.Fatalf("it becomes another program for ever: %s", b)
		}
	}
	if got := environ(child.Pid, nil); len(got) > 0 {
		t.Errorf("it has the environment %q", got)
	}
}

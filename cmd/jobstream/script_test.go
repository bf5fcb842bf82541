package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestScript runs testdata/script: the built binary, used as people use it.
// Besides testscript's own commands a script has:
//
//	serve [nohup] [NAME=VALUE…] [ARG…]   starts jobstream on free ports, waits for its ready line, sets REST and NATS
//	unread                       reads no more of what the server logs
//	logged TEXT                  waits until the server has logged TEXT
//	signal NAME                  sends a signal (TERM, INT, HUP, KILL)
//	end NAME CODE                sends a signal and waits for this exit code; stderr is the whole log
//	ended CODE                   waits for this exit code
//	exits CODE ARG…              runs jobstream ARG… to its end, and wants this exit code
//	try                          does what the ready line proposes
//	http [-until RE] METHOD PATH [BODY]   a request as curl -i makes it; stdout is the answer
//	nats [-until RE] SUBJECT [BODY]       a NATS request; stdout is the answer
//	tarpit                       listens on SMTP_PORT and never says a word
func TestScript(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	name := "jobstream"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(bin, name), ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Values[stageKey{}] = &stage{bin: filepath.Join(bin, name), env: env}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": cmdServe, "logged": cmdLogged, "signal": cmdSignal, "end": cmdEnd, "ended": cmdEnded,
			"exits": cmdExits, "try": cmdTry, "http": cmdHTTP, "nats": cmdNATS, "tarpit": cmdTarpit, "unread": cmdUnread,
		},
	})
}

type stageKey struct{}

// stage is what the commands of one script share.
type stage struct {
	bin    string
	env    *testscript.Env
	server *exec.Cmd
	log    *logged
	reader *os.File // where the log comes from
	done   chan error
}

func stageOf(ts *testscript.TestScript) *stage {
	s, ok := ts.Value(stageKey{}).(*stage)
	if !ok {
		ts.Fatalf("the script has no stage")
	}
	return s
}

func cmdServe(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	env := append(append([]string{}, s.env.Vars...), "JOBSTREAM_SERVER_PORT=0", "JOBSTREAM_BROKER_PORT=-1")
	command := []string{s.bin}
	if len(args) > 0 && args[0] == "nohup" {
		command, args = []string{"nohup", s.bin}, args[1:]
	}
	for len(args) > 0 && strings.HasPrefix(args[0], "JOBSTREAM_") {
		env, args = append(env, args[0]), args[1:]
	}
	command = append(command, args...)
	s.server = exec.Command(command[0], command[1:]...) //nolint:noctx // it is stopped by hand
	s.server.Dir, s.server.Env = ts.MkAbs("."), env
	s.log, s.done = newLogged(), make(chan error, 1)
	reader, writer, err := os.Pipe()
	ts.Check(err)
	s.reader, s.server.Stderr = reader, writer
	ts.Check(s.server.Start())
	ts.Check(writer.Close())
	server, log, done := s.server, s.log, s.done
	go func() {
		_, _ = io.Copy(log, reader) // until the server has ended, or nobody reads
		err := server.Wait()
		_ = reader.Close()
		done <- err
	}()
	ts.Defer(func() { _ = server.Process.Kill() })
	select {
	case <-s.log.has("msg=ready"):
	case err := <-done:
		ts.Fatalf("the server ended before it was ready: %v\n%s", err, s.log)
	case <-time.After(patience):
		ts.Fatalf("the server is not ready\n%s", s.log)
	}
	line := s.log.line("msg=ready")
	ts.Setenv("REST", attribute(line, "rest="))
	ts.Setenv("NATS", attribute(line, "nats="))
	_, _ = fmt.Fprintln(ts.Stdout(), line)
}

func cmdLogged(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	select {
	case <-s.log.has(strings.Join(args, " ")):
	case <-time.After(patience):
		ts.Fatalf("%q was not logged:\n%s", args, s.log)
	}
}

var signals = map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL}

func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(stageOf(ts).server.Process.Signal(signals[args[0]]))
}

func cmdUnread(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(stageOf(ts).reader.Close()) }

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	cmdSignal(ts, neg, args[:1])
	cmdEnded(ts, neg, args[1:])
}

func cmdEnded(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	select {
	case <-s.done:
	case <-time.After(patience):
		ts.Fatalf("the server does not end:\n%s", s.log)
	}
	_, _ = io.WriteString(ts.Stderr(), s.log.String())
	if code := s.server.ProcessState.ExitCode(); strconv.Itoa(code) != args[0] {
		ts.Fatalf("the server ended with %d, want %s:\n%s", code, args[0], s.log)
	}
}

func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	s := stageOf(ts)
	cmd := exec.Command(s.bin, args[1:]...) //nolint:noctx // it ends by itself
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append([]string{}, s.env.Vars...)
	for _, name := range []string{"JOBSTREAM_SERVER_PORT", "JOBSTREAM_BROKER_PORT", "JOBSTREAM_DATA_DIR", "JOBSTREAM_WORKER_MAX_WORKERS", "JOBSTREAM_URL"} {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	_ = cmd.Run() // the code says it
	if code := cmd.ProcessState.ExitCode(); strconv.Itoa(code) != args[0] {
		ts.Fatalf("it ended with %d, want %s", code, args[0])
	}
}

var curl = regexp.MustCompile(`^curl (\S+) -d '(.*)'$`)

func cmdTry(ts *testscript.TestScript, neg bool, _ []string) {
	_, quoted, _ := strings.Cut(stageOf(ts).log.line("msg=ready"), "try=")
	command, err := strconv.Unquote(quoted)
	ts.Check(err)
	parts := curl.FindStringSubmatch(command)
	if parts == nil {
		ts.Fatalf("the ready line proposes %q", command)
	}
	cmdHTTP(ts, neg, []string{"POST", strings.TrimPrefix(parts[1], ts.Getenv("REST")), parts[2]})
}

// until repeats ask, if the arguments say so, until its answer matches.
func until(ts *testscript.TestScript, args []string, ask func(args []string) string) {
	want := regexp.MustCompile("")
	if args[0] == "-until" {
		want, args = regexp.MustCompile(args[1]), args[2:]
	}
	deadline := time.After(patience)
	for {
		answer := ask(args)
		if want.MatchString(answer) {
			_, _ = io.WriteString(ts.Stdout(), answer)
			return
		}
		select {
		case <-time.After(5 * time.Millisecond): // what is awaited is in another process
		case <-deadline:
			ts.Fatalf("the last answer was\n%s", answer)
		}
	}
}

func cmdHTTP(ts *testscript.TestScript, _ bool, args []string) {
	until(ts, args, func(args []string) string {
		body := ""
		if len(args) > 2 {
			body = args[2]
		}
		req, err := http.NewRequest(args[0], ts.Getenv("REST")+args[1], strings.NewReader(body)) //nolint:noctx // the server is here
		ts.Check(err)
		if body != "" {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl -d does
		}
		resp, err := http.DefaultClient.Do(req)
		ts.Check(err)
		defer func() { _ = resp.Body.Close() }()
		var text strings.Builder
		_, _ = fmt.Fprintf(&text, "%s\n", resp.Status)
		ts.Check(resp.Header.Write(&text))
		text.WriteString("\n")
		_, err = io.Copy(&text, resp.Body)
		ts.Check(err)
		return text.String()
	})
}

func cmdNATS(ts *testscript.TestScript, _ bool, args []string) {
	nc, err := nats.Connect(ts.Getenv("NATS"))
	ts.Check(err)
	defer nc.Close()
	until(ts, args, func(args []string) string {
		var body []byte
		if len(args) > 1 {
			body = []byte(args[1])
		}
		m, err := nc.Request(args[0], body, patience)
		ts.Check(err)
		code := m.Header.Get("Nats-Service-Error-Code")
		return fmt.Sprintf("%s\n%s\n", code, m.Data)
	})
}

func cmdTarpit(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it ends with the script
	ts.Check(err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var callers []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			callers = append(callers, c) // and let it wait
		}
		for _, c := range callers {
			_ = c.Close()
		}
	}()
	ts.Defer(func() {
		_ = l.Close()
		<-ended
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv("SMTP_PORT", port)
}

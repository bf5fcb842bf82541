package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs/jobstest"
)

// TestReadme types the commands of the README's first two sections against the built
// binary, one after the other, in an empty folder. Their output must agree with the
// comments behind them: a status, "job N" (its seq), pieces of JSON up to an ellipsis,
// and texts in backticks. A command without a status must succeed. A comment may name
// another form of the command ("or curl …", up to a semicolon), which must succeed as
// well. Between two commands it waits as long as a reader takes.
func TestReadme(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"sh", "curl"} {
		jobstest.Tool(t, name)
	}
	text, err := os.ReadFile("../../README.md")
	mustDo(t, err)
	_, rest, ok := strings.Cut(string(text), "\n## A minute with it\n")
	tour, _, end := strings.Cut(rest, "\n## What you can rely on\n")
	if !ok || !end {
		t.Fatal("the README has other sections")
	}
	r := startReader(t, tour)
	typed := 0
	for line := range strings.Lines(tour) {
		if line, ok := strings.CutPrefix(line, "    "); ok {
			r.settle()
			r.enter(strings.TrimSpace(line))
			typed++
		}
	}
	if typed < 30 {
		t.Errorf("only %d commands were found", typed)
	}
}

// reader is somebody who reads the README and types.
type reader struct {
	*house
	dir    string
	prefix string // assignments so far
	nc     *nats.Conn
	sub    *nats.Subscription
}

// configures is the command that starts the server of the README.
var configures = regexp.MustCompile(`(?m)^    jobstream --config (\S+)`)

func startReader(t *testing.T, tour string) *reader {
	t.Helper()
	found := configures.FindStringSubmatch(tour)
	if found == nil {
		t.Fatal("the README does not start the server")
	}
	config, err := os.ReadFile(filepath.Join("../..", found[1]))
	mustDo(t, err)
	dir := t.TempDir()
	mustDo(t, os.WriteFile(filepath.Join(dir, "config.yaml"), config, 0o600))
	h := startProgram(t, dir)
	return &reader{house: h, dir: dir, nc: h.dial()}
}

// builtIn is the folder of the program that one test builds for all; "" = none has.
// TestMain removes it.
var builtIn string

// built is the path of that program.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "jobstream-built-")
	if err != nil {
		return "", err
	}
	builtIn = dir
	bin := filepath.Join(dir, "jobstream")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, ".").CombinedOutput() //nolint:noctx // all tests share it
	if err != nil {
		err = fmt.Errorf("build: %w\n%s", err, out)
	}
	return bin, err
})

// cleanEnviron is the environment without the settings of the tests.
func cleanEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "JOBSTREAM_") })
}

// startProgram starts the built program in a folder; env are further variables.
func startProgram(t *testing.T, dir string, env ...string) *house {
	t.Helper()
	bin, err := built()
	mustDo(t, err)
	cmd := exec.Command(bin, "--port=0", "--nats-port=-1") //nolint:noctx // it is stopped by hand
	cmd.Dir, cmd.Env = dir, append(cleanEnviron(), env...)
	return startServer(t, cmd, os.Interrupt)
}

// startServer starts a server by a command, and stops it by a signal.
func startServer(t *testing.T, cmd *exec.Cmd, stop os.Signal) *house {
	t.Helper()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // if it has not stopped by then
	h := newHouse(t, func() { _ = cmd.Process.Signal(stop) })
	cmd.Stderr = h.log
	mustDo(t, cmd.Start())
	go func() {
		if err := cmd.Wait(); err != nil {
			h.ended <- err.Error()
		}
		close(h.ended)
	}()
	h.awaitReady()
	return h
}

// settle waits until nothing is under way but what is held back, or is there to be watched.
func (r *reader) settle() {
	r.t.Helper()
	waitUntil(r.t, func() bool {
		jobs, _ := r.list("?status=pending&status=processing&status=retrying")
		return !slices.ContainsFunc(jobs, func(j *seen) bool {
			if j.Type == "try" {
				return false
			}
			var kind struct{ Paused bool }
			mustDo(r.t, json.Unmarshal(r.do(http.MethodGet, "/types/"+j.Type, "").body, &kind))
			return !kind.Paused
		})
	})
}

var (
	assignment = regexp.MustCompile(`^[A-Z]+=\S+$`)
	otherForm  = regexp.MustCompile(`\bor ((?:curl|jobstream) [^;]+)`)
	changing   = regexp.MustCompile(` -d | -X |^jobstream (submit|cancel|retry|run|delete|pause|resume) `)
)

// enter types one line and looks at what it shows. It does so with each of its forms.
func (r *reader) enter(line string) {
	r.t.Helper()
	command, says, _ := strings.Cut(line, " #")
	r.t.Log(line)
	r.enterOne(line, command, otherForm.ReplaceAllString(says, ""))
	if other := otherForm.FindStringSubmatch(says); other != nil {
		r.enterOne(line, other[1], "")
	}
}

func (r *reader) enterOne(line, command, says string) {
	r.t.Helper()
	command = strings.ReplaceAll(strings.TrimSpace(command), "localhost:8080", strings.TrimPrefix(r.rest, "http://"))
	name, _, _ := strings.Cut(command, " ")
	wrong := ""
	switch {
	case configures.MatchString("    " + command): // it runs
	case assignment.MatchString(command):
		r.prefix += command + "; "
	case name == "go": // what it does has been done, or takes too long
	case name == "nats":
		wrong = compare(says, r.natsCommand(command))
	case name == "curl" || name == "jobstream":
		wrong = compare(says, r.shell(command))
		for deadline := time.Now().Add(patience); wrong != "" && !changing.MatchString(command) && time.Now().Before(deadline); {
			wrong = compare(says, r.shell(command)) // the reader was too fast
		}
	case name == "ls":
		if wrong = "nothing"; strings.TrimSpace(r.shell(command)) != "" {
			wrong = ""
		}
	default:
		wrong = "something that nobody knows how to try"
	}
	if wrong != "" {
		r.t.Errorf("%s\nshows %s", line, wrong)
	}
}

// shell runs a command. What curl gets has the status as its last line, and what jobstream
// prints has 200 there, in the form that it has on a terminal.
func (r *reader) shell(command string) string {
	r.t.Helper()
	bin, err := built()
	mustDo(r.t, err)
	script := `curl() { command curl -sS -w '\n%{http_code}' "$@"; }; jobstream() { command jobstream "$@" -o table && printf '\n200'; }; ` + r.prefix + command
	cmd := exec.CommandContext(r.t.Context(), "sh", "-c", script)
	cmd.Dir = r.dir
	cmd.Env = append(cleanEnviron(), "JOBSTREAM_URL="+r.rest, "PATH="+filepath.Dir(bin)+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Errorf("%s: %v", command, err)
	}
	return string(out)
}

// natsCommand does what the program nats does with a command line.
func (r *reader) natsCommand(command string) string {
	r.t.Helper()
	args := strings.Split(strings.TrimSpace(r.shell(strings.Replace(command, "nats ", `printf '%s\n' `, 1))), "\n")
	switch args[0] {
	case "sub":
		sub, err := r.nc.SubscribeSync(args[1])
		mustDo(r.t, err)
		mustDo(r.t, r.nc.Flush())
		r.sub = sub
	case "pub":
		mustDo(r.t, r.nc.Publish(args[1], []byte(args[2])))
		if r.sub != nil {
			if _, err := r.sub.NextMsg(patience); err != nil {
				r.t.Errorf("the subscription to %s has heard nothing of %s: %v", r.sub.Subject, command, err)
			}
		}
	case "req":
		m, err := r.nc.Request(args[1], []byte(args[2]), patience)
		mustDo(r.t, err)
		status := m.Header.Get("Nats-Service-Error-Code")
		if status == "" {
			status = "200"
		}
		return string(m.Data) + "\n" + status
	default:
		r.t.Errorf("nats %s is not known", args[0])
	}
	return "\n200"
}

var (
	saysStatus = regexp.MustCompile(`^\s*([1-5][0-9][0-9])\b`)
	saysJob    = regexp.MustCompile(`\bjob ([0-9]+)\b`)
	saysJSON   = regexp.MustCompile(`"[a-z_]+":[^… ;` + "`" + `]+`)
	saysText   = regexp.MustCompile("`([^`]+)`")
)

// compare says what is shown, unless it is what the comment says.
func compare(says, shown string) (wrong string) {
	end := strings.LastIndexByte(shown, '\n')
	body, status := shown[:max(end, 0)], shown[end+1:]
	if want := saysStatus.FindStringSubmatch(says); want == nil && status[:1] != "2" || want != nil && status != want[1] {
		return shown
	}
	if want := saysJob.FindStringSubmatch(says); want != nil && !strings.Contains(body, `"seq":`+want[1]+",") {
		return "another job: " + body
	}
	for _, want := range saysText.FindAllStringSubmatch(says, -1) {
		if !strings.Contains(body, want[1]) {
			return "no " + want[1] + ": " + body
		}
	}
	for _, want := range saysJSON.FindAllString(saysText.ReplaceAllString(says, ""), -1) {
		if !strings.Contains(body, want) {
			return "no " + want + ": " + body
		}
	}
	return ""
}

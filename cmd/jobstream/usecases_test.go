//go:build unix

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-smtp"

	"jobstream/jobs/jobstest"
)

const useCases = "../../jobs/examples/USE-CASES.md"

// TestUseCases does what jobs/examples/USE-CASES.md says, with the built program and the
// programs that each case needs. A case is a section: its files are written into a folder, a
// server starts there, and its commands print what stands below them.
func TestUseCases(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(useCases)
	mustDo(t, err)
	found := 0
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		found++
		t.Run(strings.ReplaceAll(title, " ", "-"), func(t *testing.T) {
			t.Parallel()
			runUseCase(t, title, body)
		})
	}
	for title := range around {
		if !strings.Contains(string(text), "\n## "+title+"\n") {
			t.Errorf("there is no use case %q", title)
		}
	}
	if found == 0 {
		t.Error("no use case was found")
	}
}

// around is what cases need around them: variables of the server and of the commands.
var around = map[string]func(t *testing.T) (env []string){
	"Email through a mail server":      aroundMailServer,
	"Data export with PostgreSQL":      aroundPostgres,
	"Database cleanup with PostgreSQL": aroundPostgres,
	"Batch operations":                 aroundService,
}

var (
	fences = regexp.MustCompile("(?ms)^```(\\w+) ?(\\S*)\n(.*?)^```$")
	needs  = regexp.MustCompile("(?m)^Needs ((?:`[^`]+`(?:, )?)+)")
	quoted = regexp.MustCompile("`[^`]+`")
)

// runUseCase runs one section.
func runUseCase(t *testing.T, title, body string) {
	tools := needs.FindString(body)
	if tools == "" {
		t.Fatal("the section does not say what it needs")
	}
	for _, name := range append(quoted.FindAllString(tools, -1), "bash") {
		jobstest.Tool(t, strings.Trim(name, "`"))
	}
	var env []string
	if f := around[title]; f != nil {
		env = f(t)
	}
	dir := t.TempDir()
	blocks := fences.FindAllStringSubmatch(body, -1)
	for _, b := range blocks {
		if name := b[2]; name != "" {
			mustDo(t, os.WriteFile(filepath.Join(dir, name), []byte(b[3]), 0o600))
		}
	}
	h := startProgram(t, dir, env...)
	ran := 0
	for i, b := range blocks {
		if b[1] != "sh" || b[2] != "" {
			continue
		}
		if i+1 == len(blocks) || blocks[i+1][1] != "text" {
			t.Fatalf("what these commands print is not shown:\n%s", b[3])
		}
		ran++
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", "J=localhost:8080/jobs\n"+b[3])
		cmd.Args[len(cmd.Args)-1] = strings.ReplaceAll(cmd.Args[len(cmd.Args)-1], "localhost:8080", strings.TrimPrefix(h.rest, "http://"))
		cmd.Dir, cmd.Env = dir, append(cleanEnviron(), env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := cmd.CombinedOutput()
		if group := -cmd.Process.Pid; syscall.Kill(group, 0) == nil { // it has left something running
			t.Cleanup(func() { _ = syscall.Kill(group, syscall.SIGKILL) })
		}
		if err != nil || !prints(blocks[i+1][3]).Match(out) {
			t.Fatalf("%s\nprints\n%s\n(%v), not\n%s", b[3], out, err, blocks[i+1][3])
		}
	}
	if ran == 0 {
		t.Error("the section has no commands")
	}
}

// prints is the pattern of an output in which … stands for anything within a line.
func prints(text string) *regexp.Regexp {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(text), "…", "[^\n]*") + "$")
}

// aroundService chooses the port of the service that the case starts.
func aroundService(t *testing.T) []string {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	mustDo(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	mustDo(t, err)
	return []string{"PORT=" + port, "JOBSTREAM_JOBS_CHARGE_URL=http://127.0.0.1:" + port + "/charge"}
}

// aroundMailServer starts the mail server of the case. It defers one address once, and does
// not know another one at first.
func aroundMailServer(t *testing.T) []string {
	later := &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "greylisted, come back later"}
	never := &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	m := &mailServer{mails: map[string][]string{}, answers: map[string][]error{
		"greylisted@example.com": {later}, "nobody@example.com": {never},
	}}
	_, env := m.serve(t)
	return append(env, "JOBSTREAM_EMAIL_SMTP_USERNAME=", "JOBSTREAM_EMAIL_SMTP_PASSWORD=", "JOBSTREAM_JOBS_MAIL_BACKOFF_BASE=10ms")
}

// aroundPostgres starts a PostgreSQL server for the case, if the machine has one.
func aroundPostgres(t *testing.T) []string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pg_ctl")
	if path, err := exec.LookPath("pg_ctl"); err == nil {
		found = append(found, path)
	}
	if len(found) == 0 {
		t.Skip("NOT TESTED: there is no PostgreSQL server here")
	}
	bin := filepath.Dir(found[len(found)-1])
	dir, err := os.MkdirTemp("/tmp", "jobstream-postgres-") //nolint:usetesting // where another user can go
	mustDo(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	as := postgresUser(t, dir)
	do := func(name string, args ...string) error {
		cmd := exec.Command(filepath.Join(bin, name), args...) //nolint:noctx // pg_ctl has a limit of its own
		cmd.Dir, cmd.SysProcAttr, cmd.Env = dir, as, append(cleanEnviron(), "LC_ALL=C")
		out, err := cmd.Output() // the server keeps no other pipe open: its log goes to a file
		if err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	data := filepath.Join(dir, "data")
	mustDo(t, do("initdb", "-D", data, "-A", "trust", "-U", "app", "--no-sync", "-E", "UTF8"))
	t.Cleanup(func() { _ = do("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop") })
	mustDo(t, do("pg_ctl", "-D", data, "-l", filepath.Join(dir, "log"), "-w", "-t", "120", "-o", "-F -h '' -k "+dir, "start"))
	return []string{"PGHOST=" + dir, "PGUSER=app", "PGDATABASE=postgres"}
}

// postgresUser says as whom a PostgreSQL server runs, which must not be root, and gives that
// user the folder.
func postgresUser(t *testing.T, dir string) *syscall.SysProcAttr {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Skip("NOT TESTED: there is no user postgres here")
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	mustDo(t, err)
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	mustDo(t, err)
	mustDo(t, os.Chown(dir, int(uid), int(gid)))
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

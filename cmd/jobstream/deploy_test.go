package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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

	"github.com/nats-io/nats.go"

	"jobstream/jobs/access"
	"jobstream/jobs/jobstest"
)

// instruction is one line of a Containerfile.
type instruction struct{ name, arguments string }

// readContainerfile reads the instructions of the last stage, and the command that builds
// the program in the first.
func readContainerfile(t *testing.T) (build string, last []instruction) {
	t.Helper()
	text, err := os.ReadFile("deploy/Containerfile")
	mustDo(t, err)
	for line := range strings.Lines(string(text)) {
		name, arguments, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if name == "FROM" {
			last = nil
		}
		if name == "RUN" && strings.Contains(arguments, "go build") {
			build = arguments
		}
		last = append(last, instruction{name, arguments})
	}
	return build, last
}

// etc fills a folder as the page says: the configuration, a certificate, a token.
func etc(t *testing.T, dir string, a *authority) (token string) {
	t.Helper()
	cert, key := a.pair("127.0.0.1", "jobs.example.com")
	cfg, err := os.ReadFile("deploy/config.yaml")
	mustDo(t, err)
	token = access.NewToken()
	for name, data := range map[string][]byte{
		"config.yaml": cfg, "cert.pem": cert, "key.pem": key,
		"tokens.yaml": fmt.Appendf(nil, "web: {sha256: %s, scopes: [submit, read]}\n", access.HashOf(token)),
	} {
		mustDo(t, os.WriteFile(filepath.Join(dir, name), data, 0o644)) //nolint:gosec // the user of the container reads it
	}
	return token
}

// TestDeployContainer does what the Containerfile says, without an engine: it builds the
// binary by its command, and runs it as its user, in a root that is read-only but for its
// volume and has nothing else. Both doors work there, for a token, by TLS.
func TestDeployContainer(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("NOT TESTED: a root of its own needs root on Linux")
	}
	build, last := readContainerfile(t)
	root, volume := t.TempDir(), t.TempDir()
	var user uint32
	var env, entry, command []string
	home := ""
	for _, in := range last {
		var err error
		switch in.name {
		case "USER":
			id, _, _ := strings.Cut(in.arguments, ":")
			n, parsed := strconv.ParseUint(id, 10, 32)
			user, err = uint32(n), parsed
		case "ENV":
			env = append(env, in.arguments)
		case "VOLUME":
			home = in.arguments
		case "ENTRYPOINT":
			err = json.Unmarshal([]byte(in.arguments), &entry)
		case "CMD":
			err = json.Unmarshal([]byte(in.arguments), &command)
		case "FROM", "COPY", "WORKDIR", "EXPOSE", "STOPSIGNAL":
		default:
			t.Errorf("the test does not know %s", in.name)
		}
		mustDo(t, err)
	}
	if user == 0 || home == "" || len(entry) != 1 {
		t.Fatalf("user %d, volume %q, entry %q", user, home, entry)
	}

	compile := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(build, "-o /jobstream", "-buildvcs=false -o "+filepath.Join(root, entry[0]), 1))
	compile.Dir = "../.."
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	a := newAuthority(t)
	for _, dir := range []string{"/etc/jobstream", home, "/proc", "/dev"} {
		mustDo(t, os.MkdirAll(filepath.Join(root, dir), 0o755)) //nolint:gosec // the user of the container passes through
	}
	token := etc(t, filepath.Join(root, "etc/jobstream"), a)
	mustDo(t, os.Chmod(root, 0o755)) //nolint:gosec // likewise
	h := contained(t, root, volume+":"+home, user, env, append(entry, command...))
	h.client = dials(a.trusts())

	for given, want := range map[string]int{"": http.StatusUnauthorized, token: http.StatusAccepted} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.rest+"/jobs", strings.NewReader(`{"type":"report"}`))
		mustDo(t, err)
		if given != "" {
			r.Header.Set("Authorization", "Bearer "+given)
		}
		answer, err := h.client.Do(r)
		mustDo(t, err)
		mustDo(t, answer.Body.Close())
		if answer.StatusCode != want {
			t.Errorf("REST answers %d, want %d", answer.StatusCode, want)
		}
	}
	nc, err := nats.Connect(h.nats, nats.Secure(a.trusts()), nats.UserInfo("web", token), nats.NoReconnect())
	mustDo(t, err)
	defer nc.Close()
	m, err := nc.Request("jobs.email", []byte(`{"to":"a@example.com","subject":"s","body":"b"}`), patience)
	if err != nil || !bytes.Contains(m.Data, []byte(`"seq"`)) {
		t.Errorf("NATS: %v", err)
	}
	if _, err := nats.Connect(h.nats, nats.Secure(a.trusts()), nats.NoReconnect()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("NATS without a token: %v", err)
	}
}

// contained runs a program as an engine of containers does: as a user that is not root, in
// a root that is read-only, with one volume, in the form path:place.
func contained(t *testing.T, root, volume string, user uint32, env, argv []string) *house {
	t.Helper()
	from, to, _ := strings.Cut(volume, ":")
	mustDo(t, os.Chown(from, int(user), int(user)))
	const script = `set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount --bind "$2" "$1$3"
mount -o remount,bind,ro "$1"
root=$1 user=$4
shift 4
exec chroot --userspec="$user:$user" --groups= "$root" "$@"`
	args := append([]string{"--mount", "sh", "-c", script, "sh", root, from, to, strconv.Itoa(int(user))}, argv...)
	cmd := exec.Command("unshare", args...) //nolint:noctx // it is stopped by hand
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "JOBSTREAM_SERVER_PORT=0", "JOBSTREAM_BROKER_PORT=-1", "JOBSTREAM_LOG_FORMAT=text", "JOBSTREAM_DATA_MIN_FREE=0"}, env...)
	h := startServer(t, cmd, syscall.SIGTERM)
	for _, door := range []*string{&h.rest, &h.nats} { // it listens on every address
		*door = strings.NewReplacer("[::]", "127.0.0.1", "0.0.0.0", "127.0.0.1").Replace(*door)
	}
	return h
}

// TestDeployUnit has systemd check the unit, and judge what it leaves open.
func TestDeployUnit(t *testing.T) {
	t.Parallel()
	analyze := jobstest.Tool(t, "systemd-analyze")
	text, err := os.ReadFile("deploy/jobstream.service")
	mustDo(t, err)
	const program = "/usr/local/bin/jobstream"
	if !bytes.Contains(text, []byte("ExecStart="+program+" serve --config /etc/jobstream/config.yaml")) {
		t.Error("the unit starts something else")
	}
	unit := filepath.Join(t.TempDir(), "jobstream.service")
	mustDo(t, os.WriteFile(unit, bytes.ReplaceAll(text, []byte(program), []byte("/bin/true")), 0o600))
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", "--recursive-errors=no", unit).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("jobstream.service")) {
		t.Errorf("systemd finds mistakes: %v\n%s", err, out)
	}
	// 0 is a unit that can do nothing, 100 one without any walls
	out, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=20", "--no-pager", unit).CombinedOutput()
	if err != nil {
		t.Errorf("too much is open: %v\n%s", err, out)
	}
	stop, grace := regexp.MustCompile(`TimeoutStopSec=(\d+)`).FindSubmatch(text), 30
	if n, err := strconv.Atoi(string(stop[1])); err != nil || n <= grace {
		t.Errorf("it kills after %s s, and jobs get %d", stop[1], grace)
	}
}

// TestDeployPage: the files that the page names are there, and the commands that it shows
// are ones of the program.
func TestDeployPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("deploy/README.md")
	mustDo(t, err)
	for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join("deploy", string(link[1]))); err != nil {
			t.Error(err)
		}
	}
	made := 0
	for _, line := range regexp.MustCompile(`(?m)^    jobstream (token .*)$`).FindAllSubmatch(page, -1) {
		var out, log bytes.Buffer
		if code := run(t.Context(), strings.Fields(string(line[1])), nil, &out, &log); code != 0 || !strings.Contains(out.String(), "sha256: ") {
			t.Errorf("%s: %d %s", line[1], code, &log)
		}
		made++
	}
	if made == 0 {
		t.Error("it makes no token")
	}
}

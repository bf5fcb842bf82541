package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestOutside builds, vets, tests and runs programs in a module of its own that uses this one
// by replace, as jobs/README.md says: one that uses everything, and the program of the
// README. It needs no network, since what both modules use is in the module cache.
func TestOutside(t *testing.T) {
	t.Parallel()
	m := newModule(t)
	mustDo(t, os.CopyFS(filepath.Join(m.dir, "program"), os.DirFS("testdata/outside")))
	mustDo(t, os.Mkdir(filepath.Join(m.dir, "readme"), 0o750))
	mustDo(t, os.WriteFile(filepath.Join(m.dir, "readme", "main.go"), programOfReadme(t), 0o600))
	m.run(t, "go", "vet", "./...")
	m.run(t, "go", "test", "./...")
	m.run(t, "go", "build", "-o", m.dir+"/bin/", "./...")
	for name, want := range map[string]string{
		"readme": "HELLO <nil>\n",
		"program": "here 9 server <nil>\nhere 9 server <nil>\nthere 9 worker <nil>\nthere 9 worker <nil>\n" +
			"true permanent there is nothing to count\n422 true <nil>\n",
	} {
		if got := m.run(t, filepath.Join(m.dir, "bin", name)); got != want {
			t.Errorf("%s prints\n%swant\n%s", name, got, want)
		}
	}
}

// programOfReadme is the program in Go of the README. Its first line has the imports.
func programOfReadme(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	mustDo(t, err)
	all := regexp.MustCompile("(?s)```go\n// imports ([^\n]*)\n(.*?)```").FindAllSubmatch(text, -1)
	if len(all) != 1 {
		t.Fatalf("the README has %d programs in Go whose imports are named, want 1", len(all))
	}
	if n := bytes.Count(all[0][0], []byte("\n")); n > 18 {
		t.Errorf("the program has %d lines", n)
	}
	var b bytes.Buffer
	b.WriteString("package main\n\n")
	for name := range strings.SplitSeq(string(all[0][1]), ", ") {
		fmt.Fprintf(&b, "import %q\n", name)
	}
	b.Write(all[0][2])
	return b.Bytes()
}

// module is a module outside of this one.
type module struct{ dir string }

func newModule(t *testing.T) *module {
	t.Helper()
	root, err := filepath.Abs("../..")
	mustDo(t, err)
	m := &module{t.TempDir()}
	own, err := os.ReadFile(filepath.Join(root, "go.mod"))
	mustDo(t, err)
	required, found := strings.CutPrefix(string(own), "module jobstream\n")
	if !found {
		t.Fatal("go.mod has another form")
	}
	mustDo(t, os.WriteFile(filepath.Join(m.dir, "go.mod"), []byte("module outside\n"+required+"\nrequire jobstream v0.0.0\n\nreplace jobstream => "+root+"\n"), 0o600))
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	mustDo(t, err)
	mustDo(t, os.WriteFile(filepath.Join(m.dir, "go.sum"), sums, 0o600))
	return m
}

// run runs a program in the folder of the module, and returns what it prints.
func (m *module) run(t *testing.T, program string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), program, args...)
	c.Dir, c.WaitDelay = m.dir, time.Second
	c.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOSUMDB=off", "GOWORK=off")
	var out, problems bytes.Buffer
	c.Stdout, c.Stderr = &out, &problems
	if err := c.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", program, args, err, out.String(), problems.String())
	}
	return out.String()
}

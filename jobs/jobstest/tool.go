package jobstest

import (
	"os"
	"os/exec"
	"testing"
)

// Tool is the path of a program that a test needs beyond Go, by its name or path.
// Without it the test is skipped. Where JOBSTREAM_TOOLS is "required", as in .ci/run,
// the test fails instead.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case os.Getenv("JOBSTREAM_TOOLS") == "required":
		t.Fatalf("%s needs a program: %v", t.Name(), err)
	default:
		t.Skipf("NOT TESTED, %s: %v", t.Name(), err)
	}
	return path
}

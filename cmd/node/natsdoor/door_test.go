package natsdoor

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestReference compares the endpoints that the reference names with those that are
// served.
func TestReference(t *testing.T) {
	text, err := os.ReadFile("../../../broker/README.md")
	if err != nil {
		t.Fatal(err)
	}
	served := make(map[string]bool)
	for _, e := range Endpoints(nil, nil) {
		served[e.Name] = true
	}
	named := make(map[string]bool)
	for _, m := range regexp.MustCompile("`jobstream\\.([a-z_.]+)`").FindAllSubmatch(text, -1) {
		if name := string(m[1]); !strings.HasPrefix(name, "job.") { // those are types of notifications
			named[name] = true
		}
	}
	for name := range served {
		if !named[name] {
			t.Errorf("jobstream.%s is not named", name)
		}
	}
	for name := range named {
		if !served[name] {
			t.Errorf("jobstream.%s is named, but not served", name)
		}
	}
}

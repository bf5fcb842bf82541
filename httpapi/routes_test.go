package httpapi_test

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"jobstream/jobs/api"
)

// TestReference compares the routes that README.md names with those that are served.
func TestReference(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{"GET /livez": true, "GET /readyz": true, "GET /healthz": true, "GET /health": true}
	for _, op := range api.Operations() {
		if op.Route != "" {
			served[op.Route] = true
		}
	}
	named := make(map[string]bool)
	for _, m := range regexp.MustCompile("`((?:GET|POST|PUT|PATCH|DELETE) /[^` ?]*)").FindAllSubmatch(text, -1) {
		named[string(m[1])] = true
	}
	for route := range served {
		if !named[route] {
			t.Errorf("%s is not named", route)
		}
	}
	for route := range named {
		if !served[route] {
			t.Errorf("%s is named, but not served", route)
		}
	}
}

// TestAllRoutesAreServed asks for each: whatever the answer is, it is not that there
// is no such path or method.
func TestAllRoutesAreServed(t *testing.T) {
	r, _, _ := scheduleRig(t)
	for _, op := range api.Operations() {
		if op.Route == "" {
			continue
		}
		method, path, _ := strings.Cut(op.Route, " ")
		path = regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "7")
		a := r.do(t, method, path, "")
		if a.StatusCode == http.StatusMethodNotAllowed || strings.Contains(string(a.body), "nothing at this path") {
			t.Errorf("%s gives %d %s", op.Route, a.StatusCode, a.body)
		}
		if method == http.MethodGet {
			if head := r.do(t, http.MethodHead, path, ""); head.StatusCode != a.StatusCode {
				t.Errorf("%s gives %d, HEAD %d", op.Route, a.StatusCode, head.StatusCode)
			}
		}
	}
}

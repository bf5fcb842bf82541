package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"jobstream/httpapi"
	"jobstream/jobs/access"
	"jobstream/jobs/api"
)

// TestReference compares the routes that README.md names with those that are served.
func TestReference(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	served := make(map[string]bool)
	for _, route := range routes(t, newRig(t, nil)) {
		if !strings.HasSuffix(route, ".js") { // part of a page
			served[route] = true
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

// routes are those that the server knows, but for HEAD, as they are written elsewhere.
func routes(t *testing.T, r *rig) (all []string) {
	t.Helper()
	known, is := r.server.Handler().(*echo.Echo)
	if !is {
		t.Fatal("the handler is not Echo's")
	}
	for _, route := range known.Routes() {
		if route.Method != http.MethodHead {
			all = append(all, route.Method+" "+regexp.MustCompile(`:(\w+)`).ReplaceAllString(strings.Replace(route.Path, "*", "{view}", 1), "{$1}"))
		}
	}
	return all
}

// TestAllRoutesAreDescribed compares the description of the API with what is served.
func TestAllRoutesAreDescribed(t *testing.T) {
	r := newRig(t, func(o *httpapi.Options) { o.Version = "v1.2.3" })
	a := r.do(t, http.MethodGet, "/openapi.json", "")
	var doc struct {
		OpenAPI string
		Info    struct{ Version string }
		Paths   map[string]map[string]struct {
			Summary   string
			Responses map[string]any
		}
	}
	if err := json.Unmarshal(a.body, &doc); err != nil || a.StatusCode != 200 || doc.OpenAPI != "3.1.0" || doc.Info.Version != "v1.2.3" {
		t.Fatalf("%d, OpenAPI %s of version %s: %v", a.StatusCode, doc.OpenAPI, doc.Info.Version, err)
	}
	served := routes(t, r)
	slices.Sort(served)
	var described []string
	for path, methods := range doc.Paths {
		for method, op := range methods {
			described = append(described, strings.ToUpper(method)+" "+path)
			if op.Summary == "" || len(op.Responses) < 2 {
				t.Errorf("%s %s has the summary %q and %d answers", method, path, op.Summary, len(op.Responses))
			}
		}
	}
	slices.Sort(described)
	if !slices.Equal(served, described) {
		t.Errorf("served are\n%s\ndescribed are\n%s", strings.Join(served, "\n"), strings.Join(described, "\n"))
	}
}

// TestDocuments reads the documents and the page as browsers and programs do.
func TestDocuments(t *testing.T) {
	r := newRig(t, func(o *httpapi.Options) { o.Keyring = access.NewKeyring(access.Options{}) }) // nobody has any scope
	for path, contentType := range map[string]string{
		"/openapi.json": "application/json", "/asyncapi.json": "application/json", "/docs": "text/html; charset=utf-8", "/docs/scalar.js": "text/javascript; charset=utf-8",
	} {
		plain := r.do(t, http.MethodGet, path, "", "Accept-Encoding", "identity")
		if plain.StatusCode != 200 || plain.Header.Get("Content-Type") != contentType || plain.Header.Get("Content-Encoding") != "" || len(plain.body) == 0 {
			t.Fatalf("%s: %d, %v", path, plain.StatusCode, plain.Header)
		}
		if dir := os.Getenv("JOBSTREAM_APIDOC"); dir != "" && strings.HasSuffix(path, ".json") { // for a linter
			if err := os.WriteFile(filepath.Join(dir, path), plain.body, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		zipped := r.do(t, http.MethodGet, path, "", "Accept-Encoding", "gzip")
		if zipped.Header.Get("Content-Encoding") != "gzip" || len(zipped.body) > len(plain.body) {
			t.Errorf("%s: %d bytes, compressed %d, %v", path, len(plain.body), len(zipped.body), zipped.Header)
		}
		z, err := gzip.NewReader(bytes.NewReader(zipped.body))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, plain.body) {
			t.Errorf("%s is another one when it is compressed: %v", path, err)
		}
		again := r.do(t, http.MethodGet, path, "", "If-None-Match", plain.Header.Get("Etag"))
		if again.StatusCode != http.StatusNotModified || len(again.body) > 0 {
			t.Errorf("%s: asked again, it gives %d with %d bytes", path, again.StatusCode, len(again.body))
		}
		if head := r.do(t, http.MethodHead, path, "", "Accept-Encoding", "gzip"); head.Header.Get("Content-Length") != zipped.Header.Get("Content-Length") {
			t.Errorf("%s: HEAD says %s, GET %s", path, head.Header.Get("Content-Length"), zipped.Header.Get("Content-Length"))
		}
	}
	page := r.do(t, http.MethodGet, "/docs", "")
	policy := page.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "connect-src 'self'") || strings.Contains(policy, "http") {
		t.Errorf("the policy of the page is %q", policy)
	}
	if strings.Contains(string(page.body), "://") {
		t.Errorf("the page leads elsewhere:\n%s", page.body)
	}
	for _, m := range regexp.MustCompile(`(?:src|data-url)="([^"]*)"`).FindAllSubmatch(page.body, -1) {
		if a := r.do(t, http.MethodGet, "/"+string(m[1]), ""); a.StatusCode != 200 {
			t.Errorf("the page needs %s, which gives %d", m[1], a.StatusCode)
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

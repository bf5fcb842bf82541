package node

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"jobstream/jobs"
)

// TestHandlerBelowAPrefix mounts REST into a server of the program's own. The paths in
// answers lead back there.
func TestHandlerBelowAPrefix(t *testing.T) {
	t.Parallel()
	r := jobs.NewRegistry()
	bill.Handle(r, billing)
	n, _ := open(t, Options{}, r.Types()...)
	mux := http.NewServeMux()
	mux.Handle("/work/jobs-of-mine/", http.StripPrefix("/work/jobs-of-mine", n.Handler()))
	mux.Handle("/", n.Handler())
	do := func(method, path, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body)))
		return w
	}
	for _, prefix := range []string{"/work/jobs-of-mine", ""} {
		at := "http://localhost" + prefix
		w := do(http.MethodPost, at+"/jobs?", `{"type":"bill","payload":{"customer":"ACME"},"delay":60,"unique_key":"`+prefix+`-"}`)
		address := w.Header().Get("Location")
		if w.Code != http.StatusAccepted || !strings.HasPrefix(address, prefix+"/jobs/") {
			t.Fatalf("a job gets %d, %q, %s", w.Code, address, w.Body)
		}
		if w := do(http.MethodGet, "http://localhost"+address+"?wait=0", ""); w.Code != http.StatusOK {
			t.Errorf("its address gets %d %s", w.Code, w.Body)
		}
		w = do(http.MethodPost, at+"/jobs", `{"type":"bill","payload":{"customer":"ACME"},"unique_key":"`+prefix+`-"}`)
		if w.Code != http.StatusConflict || w.Header().Get("Location") != address {
			t.Errorf("a duplicate gets %d, %q, not %q", w.Code, w.Header().Get("Location"), address)
		}
		if w := do(http.MethodGet, at+"/", ""); w.Header().Get("Location") != prefix+"/ui/" {
			t.Errorf("the root leads to %q", w.Header().Get("Location"))
		}
		url := prefix
		if url == "" {
			url = "/"
		}
		if w := do(http.MethodGet, at+"/openapi.json", ""); !strings.Contains(w.Body.String(), `"servers":[{"description":"this server","url":"`+url+`"`) {
			t.Errorf("the description has not the server %q", url)
		}
		if w := do(http.MethodGet, at+"/docs", ""); w.Code != http.StatusOK || strings.Contains(w.Body.String(), `="/`) {
			t.Errorf("the page of the description leaves the prefix: %s", w.Body)
		}
	}
}

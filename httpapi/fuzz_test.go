package httpapi_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"jobstream/httpapi"
	"jobstream/jobs"
)

// FuzzSubmit posts anything: the answer is always JSON and never a server error,
// and an accepted payload comes back as it was.
func FuzzSubmit(f *testing.F) {
	for _, seed := range []string{
		anEmail, `{"type":"cleanup","payload":null,"priority":1}`, ``, `{`, `[]`, `{"type":1}`, "\x00", "\xff",
		`{"type":"cleanup","payload":"\ud800"}`, `{"type":"cleanup","tags":["a","b"],"timeout":1.5,"retry_count":1000}`,
		`{"type":"cleanup","timeout":1e400}`, `{"a~/b":1,"type":"\u0063leanup"}`, `{"type":"cleanup","timeout":"` + "9w9w" + `"}`,
	} {
		f.Add([]byte(seed))
	}
	h := httpapi.New(httpapi.Options{Backend: behind(newBackend())}).Handler()
	f.Fuzz(func(t *testing.T, body []byte) {
		w := post(h, body)
		if w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%q gives %d %s", body, w.Code, w.Body)
		}
		if w.Code != http.StatusAccepted {
			return
		}
		var sent struct{ Payload json.RawMessage }
		var got jobs.Job
		if err := json.Unmarshal(body, &sent); err != nil {
			t.Fatalf("%q is accepted: %v", body, err)
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%q gives %s: %v", body, w.Body, err)
		}
		if want := string(sent.Payload); string(got.Payload) != want && want != "null" {
			t.Fatalf("%q comes back with the payload %s", body, got.Payload)
		}
	})
}

// FuzzQuery asks for lists with anything as the query.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "status=failed&limit=5", "limit=%zz", "a;b", "order=asc&order=desc", "created_after=2024-01-01", "cursor=%00"} {
		f.Add(seed)
	}
	h := httpapi.New(httpapi.Options{Backend: behind(newBackend())}).Handler()
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/jobs", nil)
		r.URL = &url.URL{Path: "/jobs", RawQuery: query}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 && w.Code != 422 || !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%q gives %d %s", query, w.Code, w.Body)
		}
	})
}

func post(h http.Handler, body []byte) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://localhost/jobs", bytes.NewReader(body))) //nolint:noctx // benchmarks count it
	return w
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/errors"

	"jobstream/httpapi"
	"jobstream/jobs/api"
)

// described compares whatever a contract test sends and gets with /openapi.json. Answers
// must be exactly as described: no field more. Requests must be if they are accepted.
type described struct {
	t    *testing.T
	base http.RoundTripper
}

// description is what the server says of itself, made once for all tests.
var description = sync.OnceValue(func() *validation {
	answer := httptest.NewRecorder()
	httpapi.New(httpapi.Options{Backend: &api.Backend{}}).Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "http://localhost/openapi.json", nil))
	var doc map[string]any
	must(json.Unmarshal(answer.Body.Bytes(), &doc))
	closeObjects(doc)
	text, err := json.Marshal(doc)
	must(err)
	parsed, err := libopenapi.NewDocument(text)
	must(err)
	v, wrong := validator.NewValidator(parsed, config.WithFormatAssertions(), config.WithoutSecurityValidation())
	if len(wrong) > 0 {
		panic(wrong[0])
	}
	return &validation{of: v, seen: make(map[string]int)}
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// closeObjects makes all objects in v exact. Parts of an allOf describe the same object, so
// they stay as they are.
func closeObjects(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			closeObjects(e)
		}
	case map[string]any:
		_, more := v["additionalProperties"]
		if _, fields := v["properties"].(map[string]any); fields && !more {
			v["additionalProperties"] = false
		}
		for key, e := range v {
			if key != "allOf" {
				closeObjects(e)
			}
		}
	}
}

// validation validates a part of what it gets: the first of each kind, and then some.
type validation struct {
	of   validator.Validator
	mu   sync.Mutex
	seen map[string]int
}

const (
	validateFirst = 50 // of each kind
	validateEach  = 20 // one in so many of the rest
)

// picks says whether this one is to be validated.
func (v *validation) picks(method, path string, status int) bool {
	key := fmt.Sprint(method, " ", strings.Trim(path, "/0123456789abcdef-"), " ", status)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen[key]++
	n := v.seen[key]
	return n <= validateFirst || n%validateEach == 0
}

// RoundTrip validates what it passes on.
func (d *described) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := d.base.RoundTrip(r)
	if err != nil || !description().picks(r.Method, r.URL.Path, answer.StatusCode) {
		return answer, err
	}
	asked := r.Clone(r.Context())
	if r.Method == http.MethodHead { // described by GET
		return answer, nil
	}
	d.answer(asked, answer)
	if answer.StatusCode < http.StatusBadRequest {
		d.request(asked)
	}
	return answer, nil
}

// CloseIdleConnections is for http.Client.
func (d *described) CloseIdleConnections() {
	if c, can := d.base.(interface{ CloseIdleConnections() }); can {
		c.CloseIdleConnections()
	}
}

// answer validates an answer. The body of one that is not JSON may never end, so only its
// status and content type are looked at.
func (d *described) answer(asked *http.Request, answer *http.Response) {
	seen := *answer
	seen.Body = http.NoBody
	var body []byte
	switch media, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type")); media {
	case "application/x-ndjson": // taken for JSON
		return
	case "application/json", "application/problem+json":
		var err error
		body, err = io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		answer.Body = &rest{Reader: bytes.NewReader(body), err: err}
		if err != nil {
			return
		}
		seen.Body = io.NopCloser(bytes.NewReader(body))
	}
	asked.Body = http.NoBody
	if bytes.Contains(body, []byte("nothing at this path")) {
		return
	}
	if fine, wrong := description().of.ValidateHttpResponse(asked, &seen); !fine && !elsewhere(answer.StatusCode, wrong) {
		d.complain("the answer", asked, answer.StatusCode, body, wrong)
	}
}

// rest is the body of an answer that has been read, with the error at its end.
type rest struct {
	io.Reader
	err error
}

func (r *rest) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF && r.err != nil {
		err = r.err
	}
	return n, err
}

func (r *rest) Close() error { return nil }

// elsewhere says that nothing is described because nothing is there.
func elsewhere(status int, wrong []*errors.ValidationError) bool {
	return (status == http.StatusNotFound || status == http.StatusMethodNotAllowed) && len(wrong) == 1 && (wrong[0].ValidationType == "path")
}

// request validates a request that was accepted. Its body is read as JSON whatever its
// content type says, and fields that are null count as missing.
func (d *described) request(asked *http.Request) {
	var body []byte
	asked.Body = http.NoBody
	if asked.GetBody != nil {
		again, err := asked.GetBody()
		if err != nil {
			return
		}
		if body, err = io.ReadAll(again); err != nil {
			return
		}
		asked.Body = io.NopCloser(bytes.NewReader(withoutNulls(body)))
	} else if asked.ContentLength != 0 {
		return
	}
	if !strings.Contains(asked.URL.Path, "artifacts") {
		asked.Header.Set("Content-Type", "application/json")
	} else if asked.Header.Get("Content-Type") == "" {
		asked.Header.Set("Content-Type", "application/octet-stream")
	}
	if fine, wrong := description().of.ValidateHttpRequestSync(asked); !fine {
		d.complain("the request", asked, 0, body, wrong)
	}
}

// withoutNulls is an object without the fields that are null. All else stays as it is.
func withoutNulls(body []byte) []byte {
	var object map[string]json.RawMessage
	if json.Unmarshal(body, &object) != nil || object == nil {
		return body
	}
	maps.DeleteFunc(object, func(_ string, v json.RawMessage) bool { return string(v) == "null" })
	b, err := json.Marshal(object)
	must(err)
	return b
}

func (d *described) complain(what string, asked *http.Request, status int, body []byte, wrong []*errors.ValidationError) {
	d.t.Helper()
	var b strings.Builder
	for _, w := range wrong {
		fmt.Fprintf(&b, "\n%s: %s", w.Message, w.Reason)
		for _, s := range w.SchemaValidationErrors {
			fmt.Fprintf(&b, "\n  %s: %s", s.FieldPath, s.Reason)
		}
	}
	d.t.Errorf("%s to %s %s (%d) is not as /openapi.json describes it:%s\n%.2000s", what, asked.Method, asked.URL, status, b.String(), body)
}

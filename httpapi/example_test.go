package httpapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"jobstream/httpapi"
)

// A server is an http.Handler with the operations of a backend behind it.
func ExampleNew() {
	s := httpapi.New(httpapi.Options{Backend: behind(newBackend())})
	for _, body := range []string{`{"type":"cleanup","priority":1}`, `{"type":"cleanup","priority":9}`} {
		r := httptest.NewRequest(http.MethodPost, "http://localhost/jobs", strings.NewReader(body)) //nolint:noctx // there is none in an example
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		fmt.Println(w.Code)
		if w.Code != http.StatusAccepted {
			fmt.Print(w.Body)
		}
	}
	// Output:
	// 202
	// 422
	// {"type":"about:blank","title":"The request is not valid","status":422,"detail":"/priority: must be a whole number from 1 to 5, not 9","code":"invalid_request","errors":[{"pointer":"/priority","detail":"must be a whole number from 1 to 5, not 9"}]}
}

package http

import (
	nethttp "net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"jobstream/jobs/handlers/internal/busy"
)

// FuzzAnswer reads what an endpoint may say in the headers of its answer.
func FuzzAnswer(f *testing.F) {
	f.Add("120", "application/json; charset=utf-8", `attachment; filename="a b.csv"`, "gzip", "/x/y")
	f.Add("Wed, 21 Oct 2099 07:28:00 GMT", "application/problem+json", `attachment; filename*=UTF-8''%e2%82%ac`, "identity", "/")
	f.Add("-1", ";;", `attachment; filename="../../etc/passwd"`, "br, gzip", "/..")
	f.Add("99999999999999999999", "\x00", `attachment; filename="\x00"`, "", "")
	f.Fuzz(func(t *testing.T, after, contentType, disposition, encoding, path string) {
		a := answer{Response: &nethttp.Response{
			StatusCode: 429, Request: &nethttp.Request{URL: &url.URL{Path: path}},
			Header: nethttp.Header{"Retry-After": {after}, "Content-Type": {contentType}, "Content-Disposition": {disposition}, "Content-Encoding": {encoding}},
		}}
		if d := retryAfter(a.Header, time.Now()); d < 0 || d > busy.Most {
			t.Errorf("%q is %s", after, d)
		}
		if m := a.mediaType(); m != strings.ToLower(m) {
			t.Errorf("%q is %q", contentType, m)
		}
		if a.name() == "" {
			t.Errorf("%q at %q has no name", disposition, path)
		}
		if a.encoded() == "identity" {
			t.Errorf("%q is an encoding", encoding)
		}
		for _, text := range []string{after, contentType, disposition, path} {
			if c := clean(text); strings.ContainsFunc(c, func(r rune) bool { return unicode.IsControl(r) }) {
				t.Errorf("%q becomes %q", text, c)
			}
		}
	})
}

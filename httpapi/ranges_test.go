package httpapi_test

import (
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"jobstream/httpapi"
	"jobstream/jobs"
)

// TestRanges is RFC 9110, section 14, line by line.
func TestRanges(t *testing.T) {
	dir := jobs.NewArtifactDir(t.TempDir(), 0)
	r := newRig(t, func(o *httpapi.Options) { o.Backend.Artifacts = dir })
	const content = "0123456789"
	j := artifact(t, r, dir, "a.txt", "text/plain", []byte(content))
	path, etag := "/jobs/"+j.ID.String()+"/result", `"`+j.Artifact.SHA256+`"`
	modified := r.do(t, "GET", path, "").Header.Get("Last-Modified")
	before, err := http.ParseTime(modified)
	if err != nil {
		t.Fatal(err)
	}
	earlier := before.Add(-time.Hour).UTC().Format(http.TimeFormat)
	const none = "none" // of the file is there: 416
	const huge = "99999999999999999999"
	long := strings.Repeat("9", 5000)
	tests := []struct {
		rnge, want string   // one range, ranges with "|" between, or none; the whole content is 200 where it is not asked for
		header     []string // besides
	}{
		// 14.1.1: int-range, suffix-range; the set is a list
		{"bytes=0-0", "0", nil},
		{"bytes=2-4", "234", nil},
		{"bytes=7-", "789", nil},
		{"bytes=-3", "789", nil},
		{"bytes=0-9", content + "!", nil},
		{"bytes=000002-0004", "234", nil},
		{"Bytes=0-0", "0", nil}, // units are case-insensitive
		{"BYTES=-1", "9", nil},
		{"bytes=1-2,5-6", "12|56", nil},
		{"bytes=1-2 ,\t5-6", "12|56", nil},
		{"bytes= 1-2", "12", nil},
		{"bytes=,1-2,,", "12", nil},
		{"bytes=-1,0-0", "9|0", nil},
		// 14.1.2: what lies beyond is cut
		{"bytes=8-20", "89", nil},
		{"bytes=8-" + huge, "89", nil},
		{"bytes=8-" + long, "89", nil},
		{"bytes=-20", content + "!", nil},
		{"bytes=-" + huge, content + "!", nil},
		{"bytes=0-9223372036854775807", content + "!", nil},
		{"bytes=0-9223372036854775808", content + "!", nil},
		// and what is not there at all is left out, or is 416
		{"bytes=10-", none, nil},
		{"bytes=10-20", none, nil},
		{"bytes=-0", none, nil},
		{"bytes=-000", none, nil},
		{"bytes=" + huge + "-", none, nil},
		{"bytes=" + huge + "-" + huge, none, nil},
		{"bytes=" + huge + "-" + long, none, nil},
		{"bytes=10-,11-,-0", none, nil},
		{"bytes=10-,3-3", "3", nil},
		{"bytes=-0,-1", "9", nil},
		{"bytes=" + huge + "-,0-0,4-4", "0|4", nil},
		// 14.2: a unit that is not known is ignored, and what cannot be read may be
		{"items=0-1", content, nil},
		{"none=0-1", content, nil},
		{"byte=0-1", content, nil},
		{"bytes", content, nil},
		{"bytes=", content, nil},
		{"bytes=,", content, nil},
		{"bytes=-", content, nil},
		{"bytes=--1", content, nil},
		{"bytes=4-2", content, nil},
		{"bytes=" + long + "-" + huge, content, nil},
		{"bytes=1", content, nil},
		{"bytes=a-b", content, nil},
		{"bytes=0x1-2", content, nil},
		{"bytes=+1-2", content, nil},
		{"bytes=1 - 2", content, nil},
		{"bytes =1-2", content, nil},
		{"bytes:1-2", content, nil},
		{"bytes=0-0,x", content, nil},
		{"bytes=0-0,5-4", content, nil},
		{"bytes=10-,x", content, nil},
		{"bytes=0-0, bytes=1-1", content, nil}, // two headers
		{"", content, nil},
		// and so are more parts than the whole is worth
		{"bytes=0-9,0-9,0-9", content, nil},
		{"bytes=0-0" + strings.Repeat(",1-0001", 100), content, nil},
		// 13.1.5: If-Range
		{"bytes=0-0", "0", []string{"If-Range", etag}},
		{"bytes=0-0", content, []string{"If-Range", `"other"`}},
		{"bytes=0-0", content, []string{"If-Range", "W/" + etag}}, // not strong
		{"bytes=0-0", "0", []string{"If-Range", modified}},
		{"bytes=0-0", content, []string{"If-Range", earlier}},
		{"bytes=10-", none, []string{"If-Range", etag}},
		{"bytes=10-", content, []string{"If-Range", `"other"`}},
		{"bytes=-0", content, []string{"If-Range", `"other"`}},
		{"items=0-1", content, []string{"If-Range", etag}},
	}
	for _, tt := range tests {
		name := fmt.Sprintf("%.60s %s", tt.rnge, tt.header)
		a := r.do(t, "GET", path, "", append([]string{"Range", tt.rnge}, tt.header...)...)
		switch tt.want {
		case none:
			a.wantProblem(t, http.StatusRequestedRangeNotSatisfiable, "invalid_request")
			if got := a.Header.Get("Content-Range"); got != "bytes */10" {
				t.Errorf("%s: Content-Range is %q", name, got)
			}
		case content:
			if a.StatusCode != http.StatusOK || string(a.body) != content || a.Header.Get("Content-Range") != "" {
				t.Errorf("%s: %d %q, not the whole", name, a.StatusCode, a.body)
			}
		default:
			if got := ranges(t, a); got != strings.TrimSuffix(tt.want, "!") {
				t.Errorf("%s: %d %q, want %q", name, a.StatusCode, got, tt.want)
			}
		}
		// only GET knows ranges
		head := r.do(t, "HEAD", path, "", append([]string{"Range", tt.rnge}, tt.header...)...)
		if head.StatusCode != http.StatusOK || head.ContentLength != int64(len(content)) {
			t.Errorf("%s: HEAD gives %d of %d bytes", name, head.StatusCode, head.ContentLength)
		}
	}
	a := r.do(t, "GET", path, "", "Range", "bytes=0-1", "If-None-Match", etag)
	if a.StatusCode != http.StatusNotModified {
		t.Errorf("what is known: %d", a.StatusCode)
	}

	empty := artifact(t, r, dir, "empty.txt", "text/plain", nil)
	for _, field := range []string{"bytes=0-0", "bytes=-5", "bytes=-0", "bytes=0-", "items=0-1"} {
		// an empty file has no ranges, and 200 says all there is to know
		if a := r.do(t, "GET", "/jobs/"+empty.ID.String()+"/result", "", "Range", field); a.StatusCode != 200 || len(a.body) > 0 {
			t.Errorf("%s of an empty file: %d %q", field, a.StatusCode, a.body)
		}
	}
}

// ranges are the parts of a 206, each being what its Content-Range says.
func ranges(t *testing.T, a answer) string {
	t.Helper()
	if a.StatusCode != http.StatusPartialContent {
		return fmt.Sprintf("%d %s", a.StatusCode, a.body)
	}
	const content = "0123456789"
	part := func(field string, body []byte) string {
		var from, to, size int
		if _, err := fmt.Sscanf(field, "bytes %d-%d/%d", &from, &to, &size); err != nil || size != len(content) || content[from:to+1] != string(body) {
			t.Errorf("Content-Range %q with %q", field, body)
		}
		return string(body)
	}
	kind, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	if kind != "multipart/byteranges" {
		return part(a.Header.Get("Content-Range"), a.body)
	}
	var parts []string
	reader := multipart.NewReader(strings.NewReader(string(a.body)), params["boundary"])
	for {
		p, err := reader.NextPart()
		if err != nil {
			return strings.Join(parts, "|")
		}
		body, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part(p.Header.Get("Content-Range"), body))
	}
}

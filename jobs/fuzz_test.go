package jobs_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
)

// FuzzParseMoment reads any time. What is accepted is the same instant for time.Parse,
// where that knows it, and for itself.
func FuzzParseMoment(f *testing.F) {
	for _, s := range []string{"2024-01-15", "2024-01-15t08:00:00.5z", "2024-01-15T08:00:00+23:59", "2016-12-31T23:59:60Z", "1970-01-01", "2261-12-31T23:59:59.999999999-23:59", "2024-02-30", "+2024-01-01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, err := jobs.ParseMoment(s)
		if err != nil {
			return
		}
		if again, err := jobs.ParseMoment(at.String()); err != nil || again != at {
			t.Fatalf("%q is %s, and that is %s, %v", s, at, again, err)
		}
		if want, err := time.Parse(time.RFC3339Nano, s); err == nil && jobs.TimeOf(want) != at {
			t.Fatalf("%q is %s, and for time.Parse %s", s, at, want)
		}
	})
}

// FuzzCallbackURL checks any URL. One that is accepted has the same host for everybody,
// and can be requested.
func FuzzCallbackURL(f *testing.F) {
	for _, s := range []string{"https://example.com/x?y=1", "http://[::1]:80/", "https://a@b.c", "https://a\\b", "HTTPS://EXAMPLE.com:443", "https://:80", "https:///x", "https://x/#f", "https://1.2.3.4:99999", "https://%31"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if jobs.CheckCallbackURL(s) != nil {
			return
		}
		if len(s) > jobs.MaxURL || strings.ContainsAny(s, " \r\n\t\\") {
			t.Fatalf("%q is accepted", s)
		}
		u, err := url.Parse(s)
		if err != nil {
			return // the handler refuses it as well
		}
		if u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" {
			t.Fatalf("%q is accepted, and is %+v", s, u)
		}
		if _, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s, nil); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
	})
}

// FuzzLeaseToken reads any token. Only the one that the key has made is signed.
func FuzzLeaseToken(f *testing.F) {
	key := jobs.LeaseKey("0123456789abcdef0123456789abcdef")
	f.Add(key.Token(jobs.Execution{Key: 7, Started: 1_700_000_000_000_000_000, Run: 1, Attempt: 2}))
	f.Add(jobs.NewLeaseKey().Token(jobs.Execution{}))
	f.Add("")
	f.Add("____")
	f.Fuzz(func(t *testing.T, token string) {
		x, ok := jobs.TokenExecution(token)
		signed := key.Signed(token)
		if signed && (!ok || key.Token(x) != token) {
			t.Fatalf("%q is signed for %+v, %v", token, x, ok)
		}
		if ok && !signed && key.Token(x) == token {
			t.Fatalf("%q is not signed", token)
		}
	})
}

// FuzzRate reads any rate; what is accepted can be printed and read again.
func FuzzRate(f *testing.F) {
	for _, s := range []string{"10/s", "600/m", "1/h", "0.5/s", "1e300/s", "-1/s", "10", "10/", "/s", "5/d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := jobs.ParseRate(s)
		if err != nil {
			return
		}
		if again, err := jobs.ParseRate(r.String()); err != nil || again != r {
			t.Fatalf("%q is %v, and that is %v, %v", s, r, again, err)
		}
	})
}

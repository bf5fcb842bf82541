package jobs_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

func TestParseWait(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "30": 30 * time.Second, "30s": 30 * time.Second, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond,
		"10m": 10 * time.Minute, "600": 10 * time.Minute, "1.5": 1500 * time.Millisecond, "1e2": 100 * time.Second,
		"": -1, "-1": -1, "601": -1, "11m": -1, "soon": -1, "NaN": -1, "-0.5": -1, "9999999999999999999": -1,
	} {
		got, err := jobs.ParseWait(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestParseWaitQuery(t *testing.T) {
	for query, want := range map[string]struct {
		wait time.Duration
		err  string
	}{
		"":                    {},
		"wait=5":              {wait: 5 * time.Second},
		"wait=":               {err: "invalid_request query/wait"},
		"wait=-5":             {err: "invalid_request query/wait"},
		"wait=1&wait=2":       {err: "invalid_request query/wait"},
		"wait=x&colour=red":   {err: "invalid_request query/colour query/wait"},
		"a=1&wait=1&zoom=out": {err: "invalid_request query/a query/zoom"},
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := jobs.ParseWaitQuery(values)
		if f := jobstest.Failure(t, err); f != want.err || got != want.wait && err == nil {
			t.Errorf("%q: %v, %q; want %v, %q", query, got, f, want.wait, want.err)
		}
	}
}

func TestJobRequests(t *testing.T) {
	id := jobs.NewID()
	long := strings.Repeat("x", jobs.MaxReason+1)
	get, cancel := jobs.ParseGetRequest, jobs.ParseCancelRequest
	plain := func(body []byte) (r jobs.JobRequest, err error) {
		r.ID, r.Seq, err = jobs.ParseRef(body)
		return r, err
	}
	type parser = func([]byte) (jobs.JobRequest, error)
	for _, tt := range []struct {
		parse parser
		body  string
		want  jobs.JobRequest
		err   string
	}{
		{parse: plain, body: `{"id":"` + id.String() + `"}`, want: jobs.JobRequest{ID: id}},
		{parse: plain, body: `{"id":7}`, want: jobs.JobRequest{Seq: 7}},
		{parse: plain, body: `{"id":"7"}`, want: jobs.JobRequest{Seq: 7}},
		{parse: plain, body: `{"id":7,"wait":1}`, err: "invalid_request /wait"},
		{parse: plain, body: `{"id":[7],"reason":"r"}`, err: "invalid_request /id /reason"},
		{parse: plain, body: `{"id":true}`, err: "invalid_request /id"},
		{parse: plain, body: `{"id":{}}`, err: "invalid_request /id"},
		{parse: plain, body: `{"id":7.5}`, err: "not_found"},
		{parse: plain, body: `{"id":-7}`, err: "not_found"},
		{parse: plain, body: `{}`, err: "invalid_request /id"},
		{parse: plain, body: ``, err: "malformed_json"},
		{parse: plain, body: `[]`, err: "invalid_request "},
		{parse: get, body: `{"id":7}`, want: jobs.JobRequest{Seq: 7}},
		{parse: get, body: `{"id":7,"wait":"30s"}`, want: jobs.JobRequest{Seq: 7, Wait: 30 * time.Second}},
		{parse: get, body: `{"wait":30,"id":7}`, want: jobs.JobRequest{Seq: 7, Wait: 30 * time.Second}},
		{parse: get, body: `{"id":7,"wait":"1h"}`, err: "invalid_request /wait"},
		{parse: get, body: `{"id":7,"wait":null}`, want: jobs.JobRequest{Seq: 7}},
		{parse: get, body: `{"wait":-1.5}`, err: "invalid_request /wait /id"},
		{parse: get, body: `{"id":7,"reason":"r"}`, err: "invalid_request /reason"},
		{parse: cancel, body: `{"id":7,"reason":"no need"}`, want: jobs.JobRequest{Seq: 7, Reason: "no need"}},
		{parse: cancel, body: `{"id":7}`, want: jobs.JobRequest{Seq: 7}},
		{parse: cancel, body: `{"id":7,"reason":5}`, err: "invalid_request /reason"},
		{parse: cancel, body: `{"id":7,"reason":"` + long + `"}`, err: "invalid_request /reason"},
		{parse: cancel, body: `{"id":7,"wait":5}`, err: "invalid_request /wait"},
	} {
		got, err := tt.parse([]byte(tt.body))
		if f := jobstest.Failure(t, err); f != tt.err || err == nil && got != tt.want {
			t.Errorf("%s: %+v, %q; want %+v, %q", tt.body, got, f, tt.want, tt.err)
		}
	}
}

func TestParseCancel(t *testing.T) {
	for body, want := range map[string]string{
		"": "", " \n": "", "{}": "", `{"reason":"r"}`: "r", `{"reason":""}`: "",
		`{"reason":null}`: "", `{"why":"r"}`: "! invalid_request /why", "reason=r": "! malformed_json", `"r"`: "! invalid_request ",
	} {
		got, err := jobs.ParseCancel([]byte(body))
		if err != nil {
			got = "! " + jobstest.Failure(t, err)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", body, got, want)
		}
	}
}

func TestParseTypeRequest(t *testing.T) {
	for body, want := range map[string]string{
		`{"type":"email"}`: "email", `{"type":5}`: "! invalid_request /type", `{}`: "! invalid_request /type", `{"type":"a","id":"b"}`: "! invalid_request /id", "": "! malformed_json",
	} {
		got, err := jobs.ParseTypeRequest([]byte(body))
		if err != nil {
			got = "! " + jobstest.Failure(t, err)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", body, got, want)
		}
	}
}

// TestParseCountsRequest has a body mean what the same query means.
func TestParseCountsRequest(t *testing.T) {
	for body, query := range map[string]string{
		``: "", ` `: "", `{}`: "",
		`{"status":["failed","pending"],"type":"email","tag":["a"]}`: "status=failed&status=pending&type=email&tag=a",
		`{"created_after":"2024-01-15"}`:                             "created_after=2024-01-15",
		`{"status":"done","limit":5}`:                                "status=done&limit=5",
		`{"error":"x"}`:                                              "error=x",
		`{"created_before":"soon"}`:                                  "created_before=soon",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		want, wrong := jobs.ParseCountsQuery(values)
		got, err := jobs.ParseCountsRequest([]byte(body))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", body, got, want)
		}
		words := func(s string) []string { w := strings.Fields(s); slices.Sort(w); return w }
		if a, b := words(jobstest.Failure(t, err)), words(strings.ReplaceAll(jobstest.Failure(t, wrong), "query/", "/")); !slices.Equal(a, b) {
			t.Errorf("%s: %v, want %v", body, a, b)
		}
	}
	if _, err := jobs.ParseCountsRequest([]byte(`{"tag":true}`)); jobstest.Failure(t, err) != "invalid_request /tag" {
		t.Errorf("a tag that is true: %v", err)
	}
}

func TestParseBulk(t *testing.T) {
	email := jobs.Filter{Types: []string{"email"}}
	for _, tt := range []struct {
		body string
		want jobs.Bulk
		err  string
	}{
		{body: `{"action":"cancel","filter":{"type":"email"}}`, want: jobs.Bulk{Action: jobs.BulkCancel, Filter: email}},
		{body: `{"filter":{"type":["email"]},"action":"retry","dry_run":true}`, want: jobs.Bulk{Action: jobs.BulkRetry, Filter: email, DryRun: true}},
		{body: `{"action":"delete","filter":{"type":"email"},"dry_run":false,"all":false}`, want: jobs.Bulk{Action: jobs.BulkDelete, Filter: email}},
		{body: `{"action":"cancel","all":true,"reason":"r"}`, want: jobs.Bulk{Action: jobs.BulkCancel, Reason: "r"}},
		{body: `{"action":"cancel","all":true,"filter":{}}`, want: jobs.Bulk{Action: jobs.BulkCancel}},
		{body: `{"action":"cancel"}`, err: "invalid_request /filter"},
		{body: `{"action":"cancel","filter":{}}`, err: "invalid_request /filter"},
		{body: `{"action":"cancel","filter":{},"all":false}`, err: "invalid_request /filter"},
		{body: `{"action":"cancel","filter":null}`, err: "invalid_request /filter"},
		{body: `{"action":"cancel","filter":{"type":"email"},"all":true}`, err: "invalid_request /all"},
		{body: `{"action":"retry","filter":{"type":"email"},"reason":"r"}`, err: "invalid_request /reason"},
		{body: `{"action":"stop","filter":{"type":"email","colour":"red"},"all":1,"dry_run":"no","x":1}`, err: "invalid_request /filter/colour /action /all /dry_run /x"},
		{body: `{"filter":{"status":[]}}`, err: "invalid_request /filter/status /action"},
		{body: `{"action":["cancel"],"all":true}`, err: "invalid_request /action"},
		{body: `[]`, err: "invalid_request "},
		{body: ``, err: "malformed_json"},
		{body: `{"action":`, err: "malformed_json"},
	} {
		got, err := jobs.ParseBulk([]byte(tt.body), "")
		if f := jobstest.Failure(t, err); f != tt.err || err == nil && !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("%s: %+v, %q; want %+v, %q", tt.body, got, f, tt.want, tt.err)
		}
	}
	for body, want := range map[string]string{
		``: "/payload", `5`: "/payload", `null`: "/payload", `{"action":"x","all":true}`: "/payload/action", `{"action":"retry","filter":{"a/b":1}}`: "/payload/filter/a~1b",
	} {
		_, err := jobs.ParseBulk(json.RawMessage(body), "/payload")
		if got := jobstest.Failure(t, err); got != "invalid_request "+want {
			t.Errorf("as a payload, %s: %s, want %s", body, got, want)
		}
	}
}

func TestBulkTarget(t *testing.T) {
	for _, tt := range []struct {
		action jobs.BulkAction
		given  []jobs.Status
		want   string
	}{
		{jobs.BulkCancel, nil, "[scheduled pending processing retrying]"},
		{jobs.BulkRetry, nil, "[failed cancelled]"},
		{jobs.BulkDelete, nil, "[completed failed cancelled]"},
		{jobs.BulkDelete, []jobs.Status{jobs.Failed, jobs.Pending}, "[failed]"},
		{jobs.BulkCancel, []jobs.Status{jobs.Completed}, "[]"},
		{jobs.BulkRetry, []jobs.Status{jobs.Completed, jobs.Pending}, "[]"},
	} {
		b := jobs.Bulk{Action: tt.action, Filter: jobs.Filter{Statuses: tt.given, Tags: []string{"x"}}}
		f, none := b.Target()
		var names []string
		for _, s := range f.Statuses {
			names = append(names, s.String())
		}
		if got := fmt.Sprint(names); got != tt.want || none != (tt.want == "[]") || !slices.Equal(f.Tags, []string{"x"}) {
			t.Errorf("%s of %v: %s %v, want %s", tt.action, tt.given, got, none, tt.want)
		}
		if !slices.Equal(b.Filter.Statuses, tt.given) {
			t.Error("the filter itself was changed")
		}
	}
}

func TestTypeInfoJSON(t *testing.T) {
	rate, err := jobs.ParseRate("100/m")
	if err != nil {
		t.Fatal(err)
	}
	full := jobs.TypeInfo{
		Type: &jobs.Type{
			Name: "email", RetryCount: 3, Timeout: 90 * time.Second, MaxWorkers: 9, Rate: rate, ConcurrencyPerKey: 2,
			Backoff: jobs.Backoff{Kind: jobs.Linear, Base: 1500 * time.Millisecond, Max: time.Minute, Jitter: 0.5},
		},
		MaxWorkers: 4, ActiveWorkers: 2, Paused: true, Depth: [jobs.NumStatus]int{0, 1, 2, 3, 4, 5, 6, 7},
	}
	bare := jobs.TypeInfo{Type: &jobs.Type{Name: "x"}}
	got := string(jobs.AppendTypesJSON(nil, []jobs.TypeInfo{full, bare}))
	want := `{"types":[{"name":"email","paused":true,"active_workers":2,"max_workers":4,` +
		`"depth":{"scheduled":1,"queued":2,"processing":3,"retrying":4},"retry_count":3,"timeout":90,"rate":"100/m","burst":1,` +
		`"concurrency_per_key":2,"backoff":{"kind":"linear","base":1.5,"max":60,"jitter":0.5}},` +
		`{"name":"x","paused":false,"active_workers":0,"max_workers":0,` +
		`"depth":{"scheduled":0,"queued":0,"processing":0,"retrying":0},"retry_count":0,"timeout":0,` +
		`"concurrency_per_key":1,"backoff":{"kind":"","base":0,"max":0,"jitter":0}}]}`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := string(jobs.AppendTypesJSON(nil, nil)); got != `{"types":[]}` {
		t.Errorf("no types: %s", got)
	}
}

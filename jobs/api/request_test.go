package api_test

import (
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/jobstest"
)

func TestParseWait(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "30": 30 * time.Second, "30s": 30 * time.Second, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond,
		"10m": 10 * time.Minute, "600": 10 * time.Minute, "1.5": 1500 * time.Millisecond, "1e2": 100 * time.Second,
		"": -1, "-1": -1, "601": -1, "11m": -1, "soon": -1, "NaN": -1, "-0.5": -1, "9999999999999999999": -1,
	} {
		got, err := api.ParseWait(text)
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
		got, err := api.ParseWaitQuery(values)
		if f := jobstest.Failure(t, err); f != want.err || got != want.wait && err == nil {
			t.Errorf("%q: %v, %q; want %v, %q", query, got, f, want.wait, want.err)
		}
	}
}

func TestJobRequests(t *testing.T) {
	id := jobs.NewID()
	long := strings.Repeat("x", api.MaxReason+1)
	get, cancel := api.ParseGetRequest, api.ParseCancelRequest
	plain := func(body []byte) (r api.JobRequest, err error) {
		r.ID, r.Seq, err = api.ParseRef(body)
		return r, err
	}
	type parser = func([]byte) (api.JobRequest, error)
	for _, tt := range []struct {
		parse parser
		body  string
		want  api.JobRequest
		err   string
	}{
		{parse: plain, body: `{"id":"` + id.String() + `"}`, want: api.JobRequest{ID: id}},
		{parse: plain, body: `{"id":7}`, want: api.JobRequest{Seq: 7}},
		{parse: plain, body: `{"id":"7"}`, want: api.JobRequest{Seq: 7}},
		{parse: plain, body: `{"id":7,"wait":1}`, err: "invalid_request /wait"},
		{parse: plain, body: `{"id":[7],"reason":"r"}`, err: "invalid_request /id /reason"},
		{parse: plain, body: `{"id":true}`, err: "invalid_request /id"},
		{parse: plain, body: `{"id":{}}`, err: "invalid_request /id"},
		{parse: plain, body: `{"id":7.5}`, err: "not_found"},
		{parse: plain, body: `{"id":-7}`, err: "not_found"},
		{parse: plain, body: `{}`, err: "invalid_request /id"},
		{parse: plain, body: ``, err: "malformed_json"},
		{parse: plain, body: `[]`, err: "invalid_request "},
		{parse: get, body: `{"id":7}`, want: api.JobRequest{Seq: 7}},
		{parse: get, body: `{"id":7,"wait":"30s"}`, want: api.JobRequest{Seq: 7, Wait: 30 * time.Second}},
		{parse: get, body: `{"wait":30,"id":7}`, want: api.JobRequest{Seq: 7, Wait: 30 * time.Second}},
		{parse: get, body: `{"id":7,"wait":"1h"}`, err: "invalid_request /wait"},
		{parse: get, body: `{"id":7,"wait":null}`, want: api.JobRequest{Seq: 7}},
		{parse: get, body: `{"wait":-1.5}`, err: "invalid_request /wait /id"},
		{parse: get, body: `{"id":7,"reason":"r"}`, err: "invalid_request /reason"},
		{parse: cancel, body: `{"id":7,"reason":"no need"}`, want: api.JobRequest{Seq: 7, Reason: "no need"}},
		{parse: cancel, body: `{"id":7}`, want: api.JobRequest{Seq: 7}},
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
		got, err := api.ParseCancel([]byte(body))
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
		got, err := api.ParseTypeRequest([]byte(body))
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
		want, wrong := api.ParseCountsQuery(values)
		got, err := api.ParseCountsRequest([]byte(body))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", body, got, want)
		}
		words := func(s string) []string { w := strings.Fields(s); slices.Sort(w); return w }
		if a, b := words(jobstest.Failure(t, err)), words(strings.ReplaceAll(jobstest.Failure(t, wrong), "query/", "/")); !slices.Equal(a, b) {
			t.Errorf("%s: %v, want %v", body, a, b)
		}
	}
	if _, err := api.ParseCountsRequest([]byte(`{"tag":true}`)); jobstest.Failure(t, err) != "invalid_request /tag" {
		t.Errorf("a tag that is true: %v", err)
	}
}

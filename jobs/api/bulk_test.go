package api_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/jobstest"
)

func TestParseBulk(t *testing.T) {
	email := jobs.Filter{Types: []string{"email"}}
	for _, tt := range []struct {
		body string
		want api.Bulk
		err  string
	}{
		{body: `{"action":"cancel","filter":{"type":"email"}}`, want: api.Bulk{Action: api.BulkCancel, Filter: email}},
		{body: `{"filter":{"type":["email"]},"action":"retry","dry_run":true}`, want: api.Bulk{Action: api.BulkRetry, Filter: email, DryRun: true}},
		{body: `{"action":"delete","filter":{"type":"email"},"dry_run":false,"all":false}`, want: api.Bulk{Action: api.BulkDelete, Filter: email}},
		{body: `{"action":"cancel","all":true,"reason":"r"}`, want: api.Bulk{Action: api.BulkCancel, Reason: "r"}},
		{body: `{"action":"cancel","all":true,"filter":{}}`, want: api.Bulk{Action: api.BulkCancel}},
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
		got, err := api.ParseBulk([]byte(tt.body), "")
		if f := jobstest.Failure(t, err); f != tt.err || err == nil && !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("%s: %+v, %q; want %+v, %q", tt.body, got, f, tt.want, tt.err)
		}
	}
	for body, want := range map[string]string{
		``: "/payload", `5`: "/payload", `null`: "/payload", `{"action":"x","all":true}`: "/payload/action", `{"action":"retry","filter":{"a/b":1}}`: "/payload/filter/a~1b",
	} {
		_, err := api.ParseBulk(json.RawMessage(body), "/payload")
		if got := jobstest.Failure(t, err); got != "invalid_request "+want {
			t.Errorf("as a payload, %s: %s, want %s", body, got, want)
		}
	}
}

func TestBulkTarget(t *testing.T) {
	for _, tt := range []struct {
		action api.BulkAction
		given  []jobs.Status
		want   string
	}{
		{api.BulkCancel, nil, "[scheduled pending processing retrying]"},
		{api.BulkRetry, nil, "[failed cancelled]"},
		{api.BulkDelete, nil, "[completed failed cancelled]"},
		{api.BulkDelete, []jobs.Status{jobs.Failed, jobs.Pending}, "[failed]"},
		{api.BulkCancel, []jobs.Status{jobs.Completed}, "[]"},
		{api.BulkRetry, []jobs.Status{jobs.Completed, jobs.Pending}, "[]"},
	} {
		b := api.Bulk{Action: tt.action, Filter: jobs.Filter{Statuses: tt.given, Tags: []string{"x"}}}
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

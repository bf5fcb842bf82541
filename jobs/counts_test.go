package jobs_test

import (
	"encoding/json"
	"net/url"
	"reflect"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

func TestCountsJSON(t *testing.T) {
	var c jobs.Counts
	const none = `"scheduled":0,"pending":0,"processing":0,"retrying":0,"completed":0,"failed":0,"cancelled":0`
	if got, want := string(c.AppendJSON([]byte("- "))), `- {"total":0,`+none+`,"types":{}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	c.Add("report", jobs.Pending, 0)
	c.Add(`ex"port`, jobs.Failed, 2)
	c.Add("email", jobs.Scheduled, 1)
	c.Add("email", jobs.Cancelled, 3)
	c.Add("email", jobs.Cancelled, 4)
	const want = `{"total":10,"scheduled":1,"pending":0,"processing":0,"retrying":0,"completed":0,"failed":2,"cancelled":7,` +
		`"types":{"email":{"total":8,"scheduled":1,"pending":0,"processing":0,"retrying":0,"completed":0,"failed":0,"cancelled":7},` +
		`"ex\"port":{"total":2,"scheduled":0,"pending":0,"processing":0,"retrying":0,"completed":0,"failed":2,"cancelled":0}}}`
	got := c.AppendJSON(nil)
	if string(got) != want || !json.Valid(got) {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestParseCountsQuery(t *testing.T) {
	for _, tt := range []struct {
		query string
		want  jobs.Filter
		err   string
	}{
		{query: ""},
		{query: "status=failed&status=cancelled&type=email&tag=a", want: jobs.Filter{
			Statuses: []jobs.Status{jobs.Failed, jobs.Cancelled}, Types: []string{"email"}, Tags: []string{"a"},
		}},
		{query: "created_after=2024-01-15&created_before=2024-01-16", want: jobs.Filter{
			CreatedAfter: moment(t, "2024-01-15"), CreatedBefore: moment(t, "2024-01-16"),
		}},
		{query: "status=done&type=", err: "invalid_request query/status query/type"},
		{query: "priority=1&error=x&limit=5&order=asc&cursor=x", err: "invalid_request query/cursor query/error query/limit query/order query/priority"},
	} {
		t.Run(tt.query, func(t *testing.T) {
			values, err := url.ParseQuery(tt.query)
			if err != nil {
				t.Fatal(err)
			}
			f, err := jobs.ParseCountsQuery(values)
			if got := jobstest.Failure(t, err); got != tt.err {
				t.Fatalf("error %q (%v), want %q", got, err, tt.err)
			}
			if !reflect.DeepEqual(f, tt.want) {
				t.Errorf("%+v, want %+v", f, tt.want)
			}
		})
	}
}

package jobs_test

import (
	"encoding/json"
	"testing"

	"jobstream/jobs"
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

package jobs_test

import (
	"encoding/json"
	"strings"
	"testing"

	"jobstream/jobs"
)

// TestCallbackPayload: whatever a URL or a job has in it, the payload is JSON that gives
// both back, byte for byte.
func TestCallbackPayload(t *testing.T) {
	t.Parallel()
	typ := &jobs.Type{Name: jobs.CallbackType, RetryCount: 9}
	for _, url := range []string{"https://a.example", `https://a.example/"<&>'`, "HTTP://A.example:81/?x=%22"} {
		of := jobs.NewJob(&jobs.Message{ID: jobs.NewID(), Seq: 1, Type: "t", Priority: 3, Payload: []byte(`{ "a" : "<ä>" }`), At: 1}, typ, true)
		of.Terms = &jobs.Terms{CallbackURL: url}
		of.Status, of.EndedAt, of.Run = jobs.Failed, jobs.Now(), 3
		all := jobs.Webhooks(nil).Callbacks(of)
		if len(all) != 1 {
			t.Fatalf("%d callbacks", len(all))
		}
		j := all[0].NewJob(of, 5, 7, typ)
		var got jobs.Callback
		if err := json.Unmarshal(j.Payload, &got); err != nil {
			t.Fatalf("%s: %v", j.Payload, err)
		}
		if got.URL != url || string(got.Job) != string(of.AppendJSON(nil)) || got.ID != of.ID.String()+".failed.3" || got.Type != "job.failed" || got.At != of.EndedAt.String() {
			t.Errorf("%s", j.Payload)
		}
		if j.ConcurrencyKey() != strings.ToLower(strings.FieldsFunc(url, func(r rune) bool { return r == '/' || r == '?' })[1]) {
			t.Errorf("%s has the key %q", url, j.ConcurrencyKey())
		}
		if j.Key != 5 || j.Seq != 0 || j.MaxAttempts != 10 || j.ID != jobs.CallbackID(of.ID, 3, url) || j.ID == jobs.CallbackID(of.ID, 2, url) || j.ID == jobs.CallbackID(of.ID, 3, url+"x") {
			t.Errorf("%+v", j)
		}
	}
}

func TestWebhooks(t *testing.T) {
	t.Parallel()
	all := jobs.Webhooks{
		{URL: "https://all"},
		{URL: "https://a", Types: []string{"a", "b"}},
		{URL: "https://failed", Statuses: []jobs.Status{jobs.Failed}},
		{URL: "https://both", Types: []string{"a"}, Statuses: []jobs.Status{jobs.Failed, jobs.Cancelled}},
	}
	for _, c := range []struct {
		typ    string
		status jobs.Status
		url    string
		want   string
	}{
		{"a", jobs.Failed, "", "all a failed both"},
		{"a", jobs.Completed, "https://own", "all a own"},
		{"b", jobs.Cancelled, "https://a", "all a"},
		{"c", jobs.Failed, "https://both", "all failed both"},
		{"c", jobs.Completed, "", "all"},
	} {
		j := &jobs.Job{ID: jobs.NewID(), Type: c.typ, Status: c.status, Run: 1, Priority: 3}
		if c.url != "" {
			j.Terms = &jobs.Terms{CallbackURL: c.url}
		}
		var got []string
		for _, cb := range all.Callbacks(j) {
			got = append(got, strings.TrimPrefix(cb.URL, "https://"))
			if own := cb.URL == c.url && cb.URL != "https://a"; cb.Webhook == own {
				t.Errorf("%+v: %+v", c, cb)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v gives %v", c, got)
		}
	}
}

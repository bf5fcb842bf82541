package api_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/jobstest"
)

// TestTermsOfASubmission: what a submission may ask for in time, and by which
// keys. The bubble's clock stands at its beginning.
func TestTermsOfASubmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := jobs.Now()
		at := func(d time.Duration) jobs.Time { return now.Add(d) }
		text := func(d time.Duration) string { return at(d).String() }
		for _, tt := range []struct {
			fields string
			want   *jobs.Terms
			err    string
		}{
			{fields: `"priority":1`},
			{fields: `"delay":5`, want: &jobs.Terms{RunAt: at(5 * time.Second)}},
			{fields: `"delay":0.25`, want: &jobs.Terms{RunAt: at(250 * time.Millisecond)}},
			{fields: `"delay":"1h30m"`, want: &jobs.Terms{RunAt: at(90 * time.Minute)}},
			{fields: `"delay":0`},
			{fields: `"run_at":"` + text(time.Hour) + `"`, want: &jobs.Terms{RunAt: at(time.Hour)}},
			{fields: `"run_at":"` + text(-time.Hour) + `"`, want: &jobs.Terms{RunAt: at(-time.Hour)}},
			{fields: `"ttl":60`, want: &jobs.Terms{ExpiresAt: at(time.Minute)}},
			{fields: `"delay":60,"ttl":60`, want: &jobs.Terms{RunAt: at(time.Minute), ExpiresAt: at(2 * time.Minute)}},
			{fields: `"expires_at":"` + text(time.Hour) + `"`, want: &jobs.Terms{ExpiresAt: at(time.Hour)}},
			{fields: `"deadline":"` + text(time.Hour) + `"`, want: &jobs.Terms{Deadline: at(time.Hour)}},
			{fields: `"deadline":"10m"`, want: &jobs.Terms{Deadline: at(10 * time.Minute)}},
			{fields: `"deadline":90`, want: &jobs.Terms{Deadline: at(90 * time.Second)}},
			{fields: `"unique_key":"a b","concurrency_key":"ü"`, want: &jobs.Terms{UniqueKey: "a b", ConcurrencyKey: "ü"}},

			{fields: `"delay":-1`, err: "invalid_request /delay"},
			{fields: `"delay":1e300`, err: "invalid_request /delay"},
			{fields: `"delay":"soon"`, err: "invalid_request /delay"},
			{fields: `"delay":"11000d"`, err: "invalid_request /delay"},
			{fields: `"run_at":5`, err: "invalid_request /run_at"},
			{fields: `"run_at":"tomorrow"`, err: "invalid_request /run_at"},
			{fields: `"run_at":"` + text(time.Hour) + `","delay":5`, err: "invalid_request /run_at"},
			{fields: `"ttl":0`, err: "invalid_request /ttl"},
			{fields: `"ttl":5,"expires_at":"` + text(time.Hour) + `"`, err: "invalid_request /expires_at"},
			{fields: `"expires_at":"` + text(-time.Hour) + `"`, err: "invalid_request /expires_at"},
			{fields: `"delay":"2h","expires_at":"` + text(time.Hour) + `"`, err: "invalid_request /expires_at"},
			{fields: `"delay":"2h","deadline":"1h"`, err: "invalid_request /deadline"},
			{fields: `"deadline":0`, err: "invalid_request /deadline"},
			{fields: `"unique_key":""`, err: "invalid_request /unique_key"},
			{fields: `"unique_key":" x"`, err: "invalid_request /unique_key"},
			{fields: `"unique_key":5`, err: "invalid_request /unique_key"},
			{fields: `"unique_key":"a\nb"`, err: "invalid_request /unique_key"},
			{fields: `"concurrency_key":"` + strings.Repeat("x", 257) + `"`, err: "invalid_request /concurrency_key"},
		} {
			got, err := api.ParseSubmission([]byte(`{"type":"x",` + tt.fields + `}`))
			if f := jobstest.Failure(t, err); f != tt.err {
				t.Errorf("%s: error %q (%v), want %q", tt.fields, f, err, tt.err)
				continue
			}
			if err == nil && fmt.Sprint(got.Terms) != fmt.Sprint(tt.want) {
				t.Errorf("%s: got %+v, want %+v", tt.fields, got.Terms, tt.want)
			}
		}
	})
}

// A submission may have every attribute of the table, and one that is added, but those
// that the server writes.
func TestAttributesOfASubmission(t *testing.T) {
	of := jobstest.Extra(t, &jobs.TermsFields)
	rapid.Check(t, func(rt *rapid.T) {
		for i := range jobs.TermsFields {
			f := jobs.TermsFields[i]
			want := &jobs.Terms{}
			jobstest.Set(rt, f.Name, f.Of(want))
			if at, ok := f.Of(want).(*jobs.Time); ok {
				*at = max(*at, jobs.Now().Add(time.Hour))
			}
			body := jobs.AppendFieldsJSON([]byte(`{"type":"x"`), []jobs.Field[jobs.Terms]{{Name: f.Name, Of: f.Of}}, want)
			body[len(`{"type":"x"`)] = ','
			got, err := api.ParseSubmission(body)
			if f.Server {
				// Inputs have another form in a submission, where they are refused by a part of it.
				if wrong := jobstest.Failure(t, err); !strings.HasPrefix(wrong, "invalid_request /"+f.Name) {
					rt.Fatalf("%s: %v", body, err)
				}
				continue
			}
			if err != nil {
				rt.Fatalf("%s: %v", body, err)
			}
			if !reflect.DeepEqual(got.Terms, want) || *of(got.Terms) != *of(want) {
				rt.Fatalf("%s gives %+v, want %+v", body, got.Terms, want)
			}
		}
	})
}

func TestParseBatch(t *testing.T) {
	many := func(n int) string { return strings.TrimSuffix(strings.Repeat(`{"type":"x"},`, n), ",") }
	for _, tt := range []struct {
		body string
		n    int
		err  string
	}{
		{body: `{"jobs":[{"type":"x"}]}`, n: 1},
		{body: ` { "jobs" : [ {"type":"x"} , {"type":"y","payload":[1,{"a":"]"}]} ] } `, n: 2},
		{body: `{"jobs":[` + many(1000) + `]}`, n: 1000},
		{body: `{"jobs":[` + many(1001) + `]}`, err: "invalid_request /jobs"},
		{body: `{"jobs":[]}`, err: "invalid_request /jobs"},
		{body: `{}`, err: "invalid_request /jobs"},
		{body: `{"jobs":{}}`, err: "invalid_request /jobs"},
		{body: `{"jobs":[{"type":"x"}],"more":1}`, err: "invalid_request /more"},
		{body: `{"jobs":[{"type":"x"},7,{"type":"x","nope":1},{}]}`, err: "invalid_request /jobs/1 /jobs/2/nope /jobs/3/type"},
		{body: `[]`, err: "invalid_request "},
		{body: ``, err: "malformed_json"},
	} {
		got, err := api.ParseBatch([]byte(tt.body))
		if f := jobstest.Failure(t, err); f != tt.err || err == nil && len(got) != tt.n {
			t.Errorf("%.60s: %d jobs, error %q (%v); want %d, %q", tt.body, len(got), f, err, tt.n, tt.err)
		}
	}
}

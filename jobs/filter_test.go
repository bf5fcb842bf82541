package jobs_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

func moment(t *testing.T, s string) jobs.Time {
	t.Helper()
	m, err := jobs.ParseMoment(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestFilterMatch(t *testing.T) {
	waiting := &jobs.Job{
		Type: "email", Priority: 2, Status: jobs.Pending, Tags: []string{"a", "b"}, CreatedAt: 100,
		Payload: json.RawMessage(`{"to":"Ann@Example.com"}`),
	}
	failed := &jobs.Job{
		Type: "export", Priority: 5, Status: jobs.Failed, CreatedAt: 200, StartedAt: 300, EndedAt: 400, Error: "No such host",
		Errors: []jobs.AttemptError{{Error: "dial tcp: i/o Timeout"}, {Error: "no such host"}},
	}
	again := &jobs.Job{Type: "email", Priority: 3, Status: jobs.Retrying, CreatedAt: 300, StartedAt: 350, EndedAt: 360}
	for _, tt := range []struct {
		name                   string
		filter                 jobs.Filter
		waiting, failed, again bool
		scans                  bool
	}{
		{"all", jobs.Filter{}, true, true, true, false},
		{"statuses", jobs.Filter{Statuses: []jobs.Status{jobs.Pending, jobs.Failed}}, true, true, false, false},
		{"types", jobs.Filter{Types: []string{"email"}}, true, false, true, false},
		{"tags", jobs.Filter{Tags: []string{"x", "b"}}, true, false, false, false},
		{"priorities", jobs.Filter{Priorities: []jobs.Priority{2, 3}}, true, false, true, true},
		{"created after", jobs.Filter{CreatedAfter: 200}, false, true, true, false},
		{"created before", jobs.Filter{CreatedBefore: 200}, true, false, false, false},
		{"started after", jobs.Filter{StartedAfter: 301}, false, false, true, true},
		{"started before", jobs.Filter{StartedBefore: 350}, false, true, false, true},
		{"ended after", jobs.Filter{EndedAfter: 1}, false, true, false, true},
		{"ended before", jobs.Filter{EndedBefore: 400}, false, false, false, true},
		{"ended then", jobs.Filter{EndedAfter: 400, EndedBefore: 401}, false, true, false, true},
		{"error", jobs.Filter{Error: "SUCH"}, false, true, false, true},
		{"error of an attempt", jobs.Filter{Error: "I/O timeout"}, false, true, false, true},
		{"no error over two", jobs.Filter{Error: "timeoutno"}, false, false, false, true},
		{"payload", jobs.Filter{Payload: `"TO":"ann@`}, true, false, false, true},
		{"no payload", jobs.Filter{Payload: `null`}, false, false, false, true},
		{"one of two fields", jobs.Filter{Types: []string{"email"}, Error: "host"}, false, false, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.filter
			if got := [3]bool{f.Match(waiting), f.Match(failed), f.Match(again)}; got != [3]bool{tt.waiting, tt.failed, tt.again} {
				t.Errorf("chooses %v, want %v %v %v", got, tt.waiting, tt.failed, tt.again)
			}
			if f.Scans() != tt.scans || f.Empty() != (tt.name == "all") {
				t.Errorf("scans %v, empty %v", f.Scans(), f.Empty())
			}
		})
	}
}

// No field of a filter is forgotten where it counts that there is none.
func TestFilterEmpty(t *testing.T) {
	for i := range reflect.TypeFor[jobs.Filter]().NumField() {
		var f jobs.Filter
		v := reflect.ValueOf(&f).Elem().Field(i)
		switch v.Kind() {
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		case reflect.Int64:
			v.SetInt(1)
		case reflect.String:
			v.SetString("x")
		default:
			t.Fatalf("a field of kind %v", v.Kind())
		}
		if f.Empty() {
			t.Errorf("a filter by %s is not empty", reflect.TypeFor[jobs.Filter]().Field(i).Name)
		}
	}
}

func TestParseFilter(t *testing.T) {
	many := strings.Repeat(`"a",`, jobs.MaxFilterValues) + `"a"`
	for _, tt := range []struct {
		raw  string
		want jobs.Filter
		err  string // kind and pointers below /filter
	}{
		{raw: `{}`},
		{raw: ` { } `},
		{raw: `{"status":"failed","type":"email","tag":"a","priority":1}`, want: jobs.Filter{
			Statuses: []jobs.Status{jobs.Failed}, Types: []string{"email"}, Tags: []string{"a"}, Priorities: []jobs.Priority{1},
		}},
		{raw: `{"status":["failed","cancelled"],"type":["email","export"],"tag":["a","b"],"priority":[1,5]}`, want: jobs.Filter{
			Statuses: []jobs.Status{jobs.Failed, jobs.Cancelled}, Types: []string{"email", "export"},
			Tags: []string{"a", "b"}, Priorities: []jobs.Priority{1, 5},
		}},
		{raw: `{"created_after":"2024-01-15T08:00:00Z","created_before":"2024-01-16","started_after":"2024-01-17","started_before":"2024-01-18"}`, want: jobs.Filter{
			CreatedAfter: moment(t, "2024-01-15T08:00:00Z"), CreatedBefore: moment(t, "2024-01-16"),
			StartedAfter: moment(t, "2024-01-17"), StartedBefore: moment(t, "2024-01-18"),
		}},
		{raw: `{"ended_after":"2024-01-15","ended_before":"2024-01-16","error":"a\"b","payload":"ü"}`, want: jobs.Filter{
			EndedAfter: moment(t, "2024-01-15"), EndedBefore: moment(t, "2024-01-16"), Error: `a"b`, Payload: "ü",
		}},
		{raw: ``, err: "invalid_request /filter"},
		{raw: `null`, err: "invalid_request /filter"},
		{raw: `[]`, err: "invalid_request /filter"},
		{raw: `"failed"`, err: "invalid_request /filter"},
		{raw: `{"status"`, err: "malformed_json"},
		{raw: `{"status":"failed","status":"failed"}`, err: "invalid_request /filter/status"},
		{raw: `{"statuses":"failed","limit":1,"a/b":2}`, err: "invalid_request /filter/statuses /filter/limit /filter/a~1b"},
		{raw: `{"status":[],"type":[],"tag":[],"priority":[]}`, err: "invalid_request /filter/status /filter/type /filter/tag /filter/priority"},
		{raw: `{"status":5,"type":1,"tag":{},"priority":"1"}`, err: "invalid_request /filter/status /filter/type /filter/tag /filter/priority"},
		{raw: `{"status":["failed",1],"type":[""],"tag":"","priority":["1"]}`, err: "invalid_request /filter/status /filter/type /filter/tag /filter/priority"},
		{raw: `{"status":"done","priority":[0,6,1.5]}`, err: "invalid_request /filter/status /filter/priority /filter/priority /filter/priority"},
		{raw: `{"created_after":1,"created_before":"x","ended_after":{},"ended_before":["2024-01-15"]}`, err: "invalid_request /filter/created_after /filter/created_before /filter/ended_after /filter/ended_before"},
		{raw: `{"started_after":"","started_before":true}`, err: "invalid_request /filter/started_after /filter/started_before"},
		{raw: `{"error":"","payload":5}`, err: "invalid_request /filter/error /filter/payload"},
		{raw: `{"error":["a"],"payload":"` + strings.Repeat("x", jobs.MaxFilterText+1) + `"}`, err: "invalid_request /filter/error /filter/payload"},
		{raw: `{"tag":[` + many + `]}`, err: "invalid_request /filter/tag"},
	} {
		t.Run(tt.raw, func(t *testing.T) {
			f, err := jobs.ParseFilter(json.RawMessage(tt.raw), "/filter")
			if got := jobstest.Failure(t, err); got != tt.err {
				t.Fatalf("error %q (%v), want %q", got, err, tt.err)
			}
			if !reflect.DeepEqual(f, tt.want) {
				t.Errorf("%+v, want %+v", f, tt.want)
			}
		})
	}
	for body, want := range map[string]string{
		``: "malformed_json", `{`: "malformed_json", `[]`: "invalid_request ", `{"x":1}`: "invalid_request /x", `{"tag":1}`: "invalid_request /tag",
	} {
		if _, err := jobs.ParseFilter(json.RawMessage(body), ""); jobstest.Failure(t, err) != want {
			t.Errorf("%s as a body gives %v, want %s", body, err, want)
		}
	}
}

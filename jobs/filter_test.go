package jobs_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"jobstream/jobs"
)

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
		case reflect.Bool:
			continue // it adds to what the others choose
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

package schedule_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

func TestParseSpec(t *testing.T) {
	got, err := schedule.ParseSpec([]byte(`{"name":"nightly","cron":" 0 3 * * * ","timezone":"Europe/Berlin","type":"report",
		"payload":{"a":1},"priority":1,"tags":["x"],"retry_count":0,"timeout":"5m","paused":true,"overlap":"queue","catch_up":"none"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &schedule.Spec{
		Name: "nightly", Cron: "0 3 * * *", Timezone: "Europe/Berlin", Type: "report", Payload: json.RawMessage(`{"a":1}`),
		Priority: 1, Tags: []string{"x"}, RetryCount: 0, Timeout: 5 * time.Minute, Paused: true,
		Overlap: schedule.Queue, CatchUp: schedule.None,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nnot %+v", got, want)
	}
	got, err = schedule.ParseSpec([]byte(`{"name":"a","every":90,"type":"report","payload":null}`))
	if err != nil {
		t.Fatal(err)
	}
	want = &schedule.Spec{
		Name: "a", Every: 90 * time.Second, Timezone: "UTC", Type: "report",
		Priority: 3, RetryCount: -1, Overlap: schedule.Skip, CatchUp: schedule.One,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nnot %+v", got, want)
	}
}

func TestGoodTimes(t *testing.T) {
	for _, fields := range []string{
		`"cron":"* * * * *"`, `"cron":"*/5 * * * * *"`, `"cron":"@daily"`, `"cron":"@every 90s"`, `"cron":"@every 1d"`,
		`"cron":"0 0 29 2 *"`, `"cron":"0 0 31 1,3 *"`, `"cron":"0 0 30 2 1"`, `"cron":"0 0 * * 7"`, `"cron":"0 0 * * 5-7"`,
		`"cron":"0 9 ? * mon-fri"`, `"cron":"0 0 1-7 JAN *"`, `"every":"1s"`, `"every":1.5`, `"every":"1h30m"`, `"every":"366d"`,
		`"cron":"0 0 * * SAT-SUN"`, `"cron":"0 0 * * 6-7"`, `"cron":"0 0 * * fri-mon"`, `"cron":"0 0 1 nov-FEB *"`, `"cron":"0 22-4/2 * * *"`,
		`"cron":"*/60 * * * *"`, `"cron":"0 */24 */31 */12 */7"`, `"cron":"5/7 * * * *"`, `"cron":"0 0 * * 7-0"`, `"cron":"0 0 * * 0-7"`,
		`"cron":"0 0 * * 7-2"`, `"cron":"0 0 29 2 */3"`, `"cron":"50-10 * * * *"`, `"cron":"@daily","timezone":null,"priority":null,"tags":null,"next_run_at":null`,
		`"cron":"0 0 * * *","timezone":"America/New_York"`, `"every":"5m","timezone":"Etc/GMT+5"`, `"every":"5m","timezone":"EST5EDT"`, `"every":"5m","timezone":"Asia/Kolkata"`,
	} {
		if _, err := schedule.ParseSpec([]byte(`{"name":"a","type":"b",` + fields + `}`)); err != nil {
			t.Errorf("%s: %v", fields, err)
		}
	}
}

func TestBadSpecs(t *testing.T) {
	const rest = `"name":"a","type":"b","cron":"@daily",`
	tests := []struct{ body, pointers, says string }{
		{`{}`, "/name /type /cron", "is required"},
		{`{"name":"a b","type":"b","every":"1s"}`, "/name", "letters, digits"},
		{`{"name":"","type":"b","every":"1s"}`, "/name", "letters, digits"},
		{`{"name":7,"type":"b","every":"1s"}`, "/name", "must be a string, not 7"},
		{`{"name":"a","type":"","every":"1s"}`, "/type", "name of a job type"},
		{`{"name":"a","type":null,"every":"1s"}`, "/type", "is required"},
		{`{"name":"a","type":"b","every":"1s","cron":"@daily"}`, "/every", "not with it"},
		{`{"name":"a","type":"b"}`, "/cron", "or every instead"},
		{`{"name":"a","type":"b","every":"999ms"}`, "/every", "from 1s"},
		{`{"name":"a","type":"b","every":0}`, "/every", "from 1s"},
		{`{"name":"a","type":"b","every":-5}`, "/every", "from 1s"},
		{`{"name":"a","type":"b","every":"soon"}`, "/every", "from 1s"},
		{`{"name":"a","type":"b","every":"367d"}`, "/every", "366d"},
		{`{"name":"a","type":"b","every":1e300}`, "/every", "366d"},
		{`{"name":"a","type":"b","every":true}`, "/every", "not true"},
		{`{"name":"a","type":"b","cron":""}`, "/cron", "cron expression"},
		{`{"name":"a","type":"b","cron":"@every 10ms"}`, "/cron", "from 1s"},
		{`{"name":"a","type":"b","cron":"@every ` + strings.Repeat(" ", 300) + `1h"}`, "/cron", "at most 256"},
		{`{"name":"a","type":"b","cron":"@every"}`, "/cron", "@every"},
		{`{"name":"a","type":"b","cron":"@reboot"}`, "/cron", "@daily"},
		{`{"name":"a","type":"b","cron":"* * * *"}`, "/cron", "not 4"},
		{`{"name":"a","type":"b","cron":"* * * * * * *"}`, "/cron", "not 7"},
		{`{"name":"a","type":"b","cron":"60 * * * *"}`, "/cron", "minutes"},
		{`{"name":"a","type":"b","cron":"0 24 * * *"}`, "/cron", "hours"},
		{`{"name":"a","type":"b","cron":"0 0 0 * *"}`, "/cron", "days of the month"},
		{`{"name":"a","type":"b","cron":"0 0 1 13 *"}`, "/cron", "months"},
		{`{"name":"a","type":"b","cron":"0 0 * * 8"}`, "/cron", "days of the week"},
		{`{"name":"a","type":"b","cron":"0 0 * * 7-8"}`, "/cron", "days of the week"},
		{`{"name":"a","type":"b","cron":"1,,2 * * * *"}`, "/cron", "comma"},
		{`{"name":"a","type":"b","cron":", * * * *"}`, "/cron", "comma"},
		{`{"name":"a","type":"b","cron":"*/0 * * * *"}`, "/cron", "minutes"},
		{`{"name":"a","type":"b","cron":"*/90 * * * *"}`, "/cron", "from 1 to 60"},
		{`{"name":"a","type":"b","cron":"0 */25 * * *"}`, "/cron", "from 1 to 24"},
		{`{"name":"a","type":"b","cron":"0 0 */32 * *"}`, "/cron", "from 1 to 31"},
		{`{"name":"a","type":"b","cron":"0 0 1 1-12/13 *"}`, "/cron", "from 1 to 12"},
		{`{"name":"a","type":"b","cron":"0 0 * * */8"}`, "/cron", "from 1 to 7"},
		{`{"name":"a","type":"b","cron":"*/+5 * * * *"}`, "/cron", "minutes"},
		{`{"name":"a","type":"b","cron":"+5 * * * *"}`, "/cron", "minutes"},
		{`{"name":"a","type":"b","cron":"*/ * * * *"}`, "/cron", "minutes"},
		{`{"name":"a","type":"b","cron":"/5 * * * *"}`, "/cron", "minutes"},
		{`{"name":"a","type":"b","cron":"1-2-3 * * * *"}`, "/cron", "minutes"},
		{`{"name":"a","type":"b","cron":"*-5 * * * *"}`, "/cron", "minutes"},
		{`{"name":"a","type":"b","cron":"0 0 * FOO *"}`, "/cron", "a name like FEB"},
		{`{"name":"a","type":"b","cron":"0 0 * * monday"}`, "/cron", "a name like MON"},
		{`{"name":"a","type":"b","cron":"0 0 * * mon` + strings.Repeat(",mon", 64) + `"}`, "/cron", "at most 256"},
		{`{"name":"a","type":"b","cron":"0 0 30 2 *"}`, "/cron", "never"},
		{`{"name":"a","type":"b","cron":"0 0 31 2,4,6,9,11 *"}`, "/cron", "never"},
		{`{"name":"a","type":"b","cron":"TZ=UTC * * * * *"}`, "/cron", "field of its own"},
		{`{"name":"a","type":"b","cron":"TZ=UTC"}`, "/cron", "field of its own"},
		{`{` + rest + `"timezone":"Europe/Bielefeld"}`, "/timezone", "Europe/Bielefeld"},
		{`{` + rest + `"timezone":""}`, "/timezone", "time zone"},
		{`{` + rest + `"timezone":"localtime"}`, "/timezone", "IANA"},
		{`{` + rest + `"timezone":"posix/Europe/Berlin"}`, "/timezone", "IANA"},
		{`{` + rest + `"timezone":"/usr/share/zoneinfo/UTC"}`, "/timezone", "IANA"},
		{`{` + rest + `"timezone":"Local"}`, "/timezone", "time zone"},
		{`{` + rest + `"timezone":"../etc/passwd"}`, "/timezone", "time zone"},
		{`{` + rest + `"priority":0}`, "/priority", "from 1 to 5"},
		{`{` + rest + `"tags":"x"}`, "/tags", "list"},
		{`{` + rest + `"retry_count":-1}`, "/retry_count", "from 0"},
		{`{` + rest + `"timeout":0}`, "/timeout", "above 0"},
		{`{` + rest + `"paused":1}`, "/paused", "true or false"},
		{`{` + rest + `"overlap":"none"}`, "/overlap", `"skip" or "queue"`},
		{`{` + rest + `"catch_up":true}`, "/catch_up", `"one" or "none"`},
		{`{` + rest + `"next_run_at":"2026-01-01T00:00:00Z"}`, "/next_run_at", "leave it out"},
		{`{` + rest + `"croon":1}`, "/croon", "known are name, cron"},
		{`{` + rest + `"name":"b"}`, "/name", "twice"},
		{`{` + rest + `"priority":9,"overlap":1}`, "/priority /overlap", "and 1 more"},
		{`[]`, "", "object"},
	}
	for _, tt := range tests {
		_, err := schedule.ParseSpec([]byte(tt.body))
		var e *jobs.Error
		if !errors.As(err, &e) || e.Kind != jobs.InvalidRequest {
			t.Errorf("%s gives %v", tt.body, err)
			continue
		}
		var pointers []string
		for _, f := range e.Fields {
			pointers = append(pointers, f.Pointer)
		}
		if got := strings.Join(pointers, " "); got != tt.pointers || !strings.Contains(e.Detail, tt.says) {
			t.Errorf("%s points at %q and says %q", tt.body, got, e.Detail)
		}
	}
	if _, err := schedule.ParseSpec([]byte(`{`)); kind(t, err) != jobs.MalformedJSON {
		t.Errorf("half an object gives %v", err)
	}
}

func TestParseNamedSpec(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		ok         bool
	}{
		{"a", `{"type":"b","every":"1s"}`, true},
		{"a", `{"name":"a","type":"b","every":"1s"}`, true},
		{"a", `{"name":"b","type":"b","every":"1s"}`, false},
		{"a b", `{"type":"b","every":"1s"}`, false},
	} {
		s, err := schedule.ParseNamedSpec(tt.name, []byte(tt.body))
		if (err == nil) != tt.ok || err == nil && s.Name != tt.name {
			t.Errorf("%s, %s: %+v, %v", tt.name, tt.body, s, err)
		}
	}
}

package schedule_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

// FuzzParseSpec reads any body. A schedule that is accepted has times that come, in order,
// and its stored form means the same.
func FuzzParseSpec(f *testing.F) {
	for _, body := range []string{
		`{"name":"a","type":"report","cron":"*/5 8-18 * * MON-FRI","timezone":"Europe/Berlin"}`,
		`{"name":"a","type":"b","every":"1h30m","payload":{"x":[1]},"priority":1,"tags":["t"],"overlap":"queue","catch_up":"none","paused":true}`,
		`{"name":"a","type":"b","cron":"@yearly","callback_url":"https://example.com/x"}`,
		`{"name":"a","type":"b","cron":"0 0 30 2 *"}`, `{"name":"a","type":"b","cron":"7/90 * * * * *"}`, `{"name":"a","type":"b","cron":"SAT-SUN"}`, `[]`, ``,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := schedule.ParseSpec(body)
		if err != nil {
			if e, ok := jobs.AsError(err); !ok || e.Detail == "" {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		p, err := schedule.NewPlan(s, 1)
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		last := jobs.TimeOf(time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC))
		for range 3 {
			next := p.Next(last)
			if next == 0 {
				break // the calendar of the program has an end
			}
			if next <= last {
				t.Fatalf("%q: %s is not after %s", body, next, last)
			}
			last = next
		}
		stored, err := json.Marshal(*s)
		var again schedule.Spec
		if err == nil {
			err = json.Unmarshal(stored, &again)
		}
		if err != nil || !reflect.DeepEqual(&again, s) {
			t.Fatalf("%+v becomes %+v, %v", s, again, err)
		}
	})
}

// FuzzCron reads any expression as the model does.
func FuzzCron(f *testing.F) {
	for _, e := range []string{"* * * * *", "*/7 1-5/2 L * ?", "0 0 */2 * 3", "5 4 * JAN,mar-MAY 1#2", "@every 1s", "59 23 31 12 7", "0-59/60 * * * *", "* * * * * *"} {
		f.Add(e, "UTC")
	}
	f.Add("30 2 * * *", "Europe/Berlin")
	f.Add("0 0 * * *", "localtime")
	f.Add("0 0 * * *", "../../etc/passwd")
	f.Fuzz(func(t *testing.T, expression, zone string) {
		p, err := schedule.NewPlan(&schedule.Spec{Cron: expression, Timezone: zone}, 0)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without words")
			}
			return
		}
		after := jobs.TimeOf(time.Date(2027, 3, 27, 23, 30, 0, 0, time.UTC))
		next := p.Next(after)
		if next == 0 {
			return
		}
		if at := p.Latest(after, next); next <= after || at != next {
			t.Fatalf("%q in %q: the first after %s is %s, the latest up to that is %s", expression, zone, after, next, at)
		}
	})
}

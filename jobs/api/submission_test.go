package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/jobstest"
	"jobstream/jobs/strict"
)

func TestParseSubmission(t *testing.T) {
	sub := func(typ, payload string) *jobs.Submission {
		s := &jobs.Submission{Type: typ, Priority: 3, RetryCount: -1}
		if payload != "" {
			s.Payload = json.RawMessage(payload)
		}
		return s
	}
	with := func(change func(*jobs.Submission)) *jobs.Submission {
		s := sub("x", "")
		change(s)
		return s
	}
	timeout := func(d time.Duration) *jobs.Submission { return with(func(s *jobs.Submission) { s.Timeout = d }) }
	tags := func(n int) string {
		b, _ := json.Marshal(strings.Split(strings.TrimSuffix(strings.Repeat("a ", n), " "), " "))
		return string(b)
	}
	long := strings.Repeat("x", 128)
	tests := []struct {
		body string
		want *jobs.Submission
		err  string // "kind pointer…"
	}{
		{body: `{"type":"email","payload":{"to":"user@example.com","subject":"Hello","body":"Test email"}}`, want: sub("email", `{"to":"user@example.com","subject":"Hello","body":"Test email"}`)},
		{body: `{"type":"export","payload":{"format":"csv","filters":{"date":"2024-01"}}}`, want: sub("export", `{"format":"csv","filters":{"date":"2024-01"}}`)},
		{body: `{"type":"cleanup","payload":{"older_than":"30d"}}`, want: sub("cleanup", `{"older_than":"30d"}`)},
		{
			body: " {\n\"tags\" : [\"a\",\"ü b\"] , \"timeout\":\t90,\r\n\"priority\":1,\"retry_count\":0,\"payload\": [1, {\"a\":\"}\"} ] ,\"type\":\"x\"}\n",
			want: &jobs.Submission{Type: "x", Payload: json.RawMessage(`[1, {"a":"}"} ]`), Priority: 1, RetryCount: 0, Timeout: 90 * time.Second, Tags: []string{"a", "ü b"}},
		},
		{body: `{"type":"x"}`, want: sub("x", "")},
		{body: `{"type":"x","payload":null}`, want: sub("x", "")},
		{body: `{"type":"x","payload":0}`, want: sub("x", "0")},
		{body: `{"type":"x","payload":"\u0000\""}`, want: sub("x", `"\u0000\""`)},
		{body: `{"\u0074ype":"\u0078"}`, want: sub("x", "")},
		{body: `{"type":""}`, want: sub("", "")}, // the registry refuses it
		{body: `{"type":"x","payload":` + nested(strict.MaxDepth-1) + `}`, want: sub("x", nested(strict.MaxDepth-1))},
		{body: `{"type":"x","payload":` + nested(strict.MaxDepth) + `}`, err: "invalid_request "},
		{body: `{"type":"x","payload":"` + strings.Repeat(`[{\"`, 1000) + `"}`, want: sub("x", `"`+strings.Repeat(`[{\"`, 1000)+`"`)},
		{body: `{"type":"x","payload":[` + strings.Repeat("[],{},", 1000) + `0]}`, want: sub("x", `[`+strings.Repeat("[],{},", 1000)+`0]`)},

		{body: `{"type":"x","priority":1}`, want: with(func(s *jobs.Submission) { s.Priority = 1 })},
		{body: `{"type":"x","priority":5}`, want: with(func(s *jobs.Submission) { s.Priority = 5 })},
		{body: `{"type":"x","priority":0}`, err: "invalid_request /priority"},
		{body: `{"type":"x","priority":6}`, err: "invalid_request /priority"},
		{body: `{"type":"x","priority":-1}`, err: "invalid_request /priority"},
		{body: `{"type":"x","priority":2.5}`, err: "invalid_request /priority"},
		{body: `{"type":"x","priority":1e0}`, err: "invalid_request /priority"},
		{body: `{"type":"x","priority":"3"}`, err: "invalid_request /priority"},
		{body: `{"type":"x","priority":null,"retry_count":null,"timeout":null,"tags":null,"delay":null,"run_at":null,"ttl":null,"expires_at":null,"deadline":null,"unique_key":null,"concurrency_key":null}`, want: sub("x", "")},
		{body: `{"type":"x","nothing":null}`, err: "invalid_request /nothing"},
		{body: `{"type":"x","priority":true}`, err: "invalid_request /priority"},
		{body: `{"type":"x","priority":99999999999999999999}`, err: "invalid_request /priority"},

		{body: `{"type":"x","retry_count":1000}`, want: with(func(s *jobs.Submission) { s.RetryCount = 1000 })},
		{body: `{"type":"x","retry_count":1001}`, err: "invalid_request /retry_count"},
		{body: `{"type":"x","retry_count":-1}`, err: "invalid_request /retry_count"},
		{body: `{"type":"x","retry_count":"1"}`, err: "invalid_request /retry_count"},

		{body: `{"type":"x","timeout":300}`, want: timeout(300 * time.Second)},
		{body: `{"type":"x","timeout":300.0}`, want: timeout(300 * time.Second)},
		{body: `{"type":"x","timeout":3e2}`, want: timeout(300 * time.Second)},
		{body: `{"type":"x","timeout":0.5}`, want: timeout(500 * time.Millisecond)},
		{body: `{"type":"x","timeout":"300"}`, want: timeout(300 * time.Second)},
		{body: `{"type":"x","timeout":"5m"}`, want: timeout(5 * time.Minute)},
		{body: `{"type":"x","timeout":"1h30m"}`, want: timeout(90 * time.Minute)},
		{body: `{"type":"x","timeout":"1.5h"}`, want: timeout(90 * time.Minute)},
		{body: `{"type":"x","timeout":"250ms"}`, want: timeout(250 * time.Millisecond)},
		{body: `{"type":"x","timeout":"\u0035m"}`, want: timeout(5 * time.Minute)},
		{body: `{"type":"x","timeout":604800}`, want: timeout(jobs.MaxTimeout)},
		{body: `{"type":"x","timeout":"7d"}`, want: timeout(jobs.MaxTimeout)},
		{body: `{"type":"x","timeout":"1w"}`, want: timeout(jobs.MaxTimeout)},
		{body: `{"type":"x","timeout":604801}`, err: "invalid_request /timeout"},
		{body: `{"type":"x","timeout":604800.5}`, err: "invalid_request /timeout"},
		{body: `{"type":"x","timeout":"8d"}`, err: "invalid_request /timeout"},
		{body: `{"type":"x","timeout":0}`, err: "invalid_request /timeout"},
		{body: `{"type":"x","timeout":"0s"}`, err: "invalid_request /timeout"},
		{body: `{"type":"x","timeout":1e-12}`, err: "invalid_request /timeout"},
		{body: `{"type":"x","timeout":1e400}`, err: "invalid_request /timeout"},
		{body: `{"type":"x","timeout":-1}`, err: "invalid_request /timeout"},
		{body: `{"type":"x","timeout":"-5m"}`, err: "invalid_request /timeout"},
		{body: `{"type":"x","timeout":"soon"}`, err: "invalid_request /timeout"},
		{body: `{"type":"x","timeout":""}`, err: "invalid_request /timeout"},
		{body: `{"type":"x","timeout":true}`, err: "invalid_request /timeout"},
		{body: `{"type":"x","timeout":{}}`, err: "invalid_request /timeout"},

		{body: `{"type":"x","tags":[]}`, want: with(func(s *jobs.Submission) { s.Tags = []string{} })},
		{body: `{"type":"x","tags":` + tags(32) + `}`, want: with(func(s *jobs.Submission) { s.Tags = strings.Split(strings.Repeat("a", 32), "") })},
		{body: `{"type":"x","tags":["` + long + `"]}`, want: with(func(s *jobs.Submission) { s.Tags = []string{long} })},
		{body: `{"type":"x","tags":` + tags(33) + `}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":["` + long + `x"]}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":[""]}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":["a,b"]}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":["a\nb"]}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":["\u007f"]}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":["\ud800"]}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":[1]}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":[null]}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":"a"}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":["a"," "]}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":["a "]}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":["\u00a0a"]}`, err: "invalid_request /tags"},
		{body: `{"type":"x","tags":["a b"]}`, want: with(func(s *jobs.Submission) { s.Tags = []string{"a b"} })},

		{body: `{}`, err: "invalid_request /type"},
		{body: `{"payload":{}}`, err: "invalid_request /type"},
		{body: `{"type":3}`, err: "invalid_request /type"},
		{body: `{"type":null}`, err: "invalid_request /type"},
		{body: `{"type":["x"]}`, err: "invalid_request /type"},
		{body: `{"Type":"x"}`, err: "invalid_request /Type /type"},
		{body: `{"type":"x","callback_url":"ftp://x"}`, err: "invalid_request /callback_url"},
		{body: `{"type":"x","":5}`, err: "invalid_request /"},
		{body: `{"type":"x","a/b~c":5}`, err: "invalid_request /a~1b~0c"},
		{body: `{"priority":9,"nope":1,"tags":3}`, err: "invalid_request /priority /nope /tags /type"},
		{body: `{"type":"x","type":"x"}`, err: "invalid_request /type"},
		{body: `{"type":"x","\u0074ype":"y"}`, err: "invalid_request /type"},
		{body: `{"type":"x","payload":1,"payload":1}`, err: "invalid_request /payload"},

		{body: ``, err: "malformed_json"},
		{body: " \n\t ", err: "malformed_json"},
		{body: "{\"type\":\"x\x00\"}", err: "malformed_json"},
		{body: "{\"type\":\"x\"}\x00", err: "malformed_json"},
		{body: "{\"type\":\"\xff\"}", err: "malformed_json"},
		{body: "\ufeff{\"type\":\"x\"}", err: "malformed_json"},
		{body: `{"type":"x"`, err: "malformed_json"},
		{body: `{"type":"x"}}`, err: "malformed_json"},
		{body: `{"type":"x"} {"type":"x"}`, err: "malformed_json"},
		{body: `{"type":"x",}`, err: "malformed_json"},
		{body: `{type:"x"}`, err: "malformed_json"},
		{body: `{'type':'x'}`, err: "malformed_json"},
		{body: `{"type":"x","timeout":NaN}`, err: "malformed_json"},
		{body: `type=x`, err: "malformed_json"},
		{body: strings.Repeat("[", 100_000), err: "malformed_json"},
		{body: strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000), err: "malformed_json"},
		{body: `[]`, err: "invalid_request "},
		{body: `[{"type":"x"}]`, err: "invalid_request "},
		{body: `"x"`, err: "invalid_request "},
		{body: `null`, err: "invalid_request "},
		{body: ` 17 `, err: "invalid_request "},
	}
	for _, tt := range tests {
		t.Run(tt.body[:min(60, len(tt.body))], func(t *testing.T) {
			got, err := api.ParseSubmission([]byte(tt.body))
			if f := jobstest.Failure(t, err); f != tt.err {
				t.Fatalf("error %q (%v), want %q", f, err, tt.err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if err == nil {
				return
			}
			if e, _ := jobs.AsError(err); e.Detail == "" || !json.Valid(api.Problem(e)) || !utf8.Valid(api.Problem(e)) {
				t.Errorf("problem %q", api.Problem(e))
			}
		})
	}
}

// TestAnswerToNonsenseIsShort: an object may have a thousand fields, but not all of them
// stand in the answer.
func TestAnswerToNonsenseIsShort(t *testing.T) {
	for _, n := range []int{999, 100_000} {
		var b bytes.Buffer
		b.WriteString(`{"a":0`)
		for i := range n {
			fmt.Fprintf(&b, `,"%06d":0`, i)
		}
		b.WriteString(`}`)
		_, err := api.ParseSubmission(b.Bytes())
		if e, ok := jobs.AsError(err); !ok || e.Kind != jobs.InvalidRequest || len(api.Problem(e)) > 256<<10 {
			t.Errorf("%d fields: %.200v", n, err)
		}
	}
}

func FuzzParseSubmission(f *testing.F) {
	for _, s := range []string{
		`{"type":"email","payload":{"to":"a"},"priority":1,"retry_count":0,"timeout":"5m","tags":["a"]}`, `{"type":"x","timeout":0.5}`,
		`{"type":"x","timeout":1e-9}`, `{"tags":[null]}`, `{"type":"\ud800"}`, `[]`, `{"timeout":"99999999999w"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := api.ParseSubmission(body)
		if err != nil {
			e, ok := jobs.AsError(err)
			if !ok || e.Detail == "" || !json.Valid(api.Problem(e)) {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		if !s.Priority.Valid() || s.RetryCount < -1 || s.RetryCount > jobs.MaxRetryCount || s.Timeout < 0 || s.Timeout > jobs.MaxTimeout ||
			jobs.CheckTags(s.Tags) != nil || s.Payload != nil && !json.Valid(s.Payload) {
			t.Fatalf("%q gives %+v", body, s)
		}
	})
}

// nested is a list in a list, n deep.
func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

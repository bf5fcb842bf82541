package jobs_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/jobstest"
)

// TestManyFields: an object may have a thousand fields, and the answer to a
// body of nonsense stays short.
func TestManyFields(t *testing.T) {
	object := func(n int, more string) []byte {
		var b bytes.Buffer
		b.WriteString(`{"a":0`)
		for i := range n - 1 {
			fmt.Fprintf(&b, `,"%06d":0`, i)
		}
		b.WriteString(more + `}`)
		return b.Bytes()
	}
	tests := []struct {
		name string
		body []byte
		want string
		seen int
	}{
		{name: "a thousand", body: object(1000, ""), seen: 1000},
		{name: "one more", body: object(1001, ""), want: "invalid_request ", seen: 1000},
		{name: "a hundred thousand", body: object(100_000, ""), want: "invalid_request ", seen: 1000},
		{name: "the first again behind 900", body: object(900, `,"a":1`), want: "invalid_request /a", seen: 900},
		{name: "the second again behind 30", body: object(30, `,"000000":1`), want: "invalid_request /000000", seen: 30},
		{name: "the last again", body: object(30, `,"000028":1`), want: "invalid_request /000028", seen: 30},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen := 0
			err := jobs.EachField(tt.body, func(string, json.RawMessage) { seen++ })
			if got := jobstest.Failure(t, err); got != tt.want || seen != tt.seen {
				t.Errorf("error %q after %d fields, want %q after %d", got, seen, tt.want, tt.seen)
			}
			_, err = api.ParseSubmission(tt.body)
			if e, ok := jobs.AsError(err); !ok || e.Kind != jobs.InvalidRequest || len(api.Problem(e)) > 256<<10 {
				t.Errorf("a submission: %.200v", err)
			}
		})
	}
}

func FuzzEachField(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1}`, ` { "a" : [1,2,{"b":"]}"}] , "c":"\"\\" } `, `{"a":-1.5e+7,"b":true,"c":null}`, `{"\u0061":1,"a":2}`,
		`{"a":{"a":{}}}`, `[1]`, `1`, "", "{\"a\":\"\x00\"}", "{\"\xff\":1}", `{"a":1}x`, `{"":""}`, `{"a":[[],{}],"b":[ ]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := make(map[string]string)
		var order []string
		err := jobs.EachField(body, func(name string, raw json.RawMessage) {
			got[name] = string(raw)
			order = append(order, name)
		})
		var want map[string]json.RawMessage
		wantErr := json.Unmarshal(body, &want)
		if err != nil {
			e, ok := jobs.AsError(err)
			if !ok {
				t.Fatalf("%v is no *Error", err)
			}
			twice := strings.Contains(e.Detail, "given twice")
			object := wantErr == nil && want != nil
			if object && utf8.Valid(body) && bytes.IndexByte(body, 0) < 0 && !twice {
				t.Fatalf("%q is refused: %v", body, err)
			}
			if twice && !object {
				t.Fatalf("%q: %v, but it is not even an object", body, err)
			}
			return
		}
		if wantErr != nil || want == nil {
			t.Fatalf("%q is taken, though %v", body, wantErr)
		}
		if len(got) != len(want) || len(order) != len(want) {
			t.Fatalf("%q: got %q, want %q", body, got, want)
		}
		for name, raw := range want {
			if got[name] != string(raw) {
				t.Fatalf("%q: field %q is %q, want %q", body, name, got[name], raw)
			}
		}
	})
}

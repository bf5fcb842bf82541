package strict_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"jobstream/jobs/strict"
)

// TestManyFields: an object may have a thousand fields.
func TestManyFields(t *testing.T) {
	object := func(n int, more string) string {
		var b bytes.Buffer
		b.WriteString(`{"a":0`)
		for i := range n - 1 {
			fmt.Fprintf(&b, `,"%06d":0`, i)
		}
		b.WriteString(more + `}`)
		return b.String()
	}
	for _, tt := range []struct {
		name, body, want string
		seen             int
	}{
		{name: "a thousand", body: object(1000, ""), seen: 1000},
		{name: "one more", body: object(1001, ""), want: "/at", seen: 1000},
		{name: "a hundred thousand", body: object(100_000, ""), want: "/at", seen: 1000},
		{name: "the first again behind 900", body: object(900, `,"a":1`), want: "/at/a", seen: 900},
		{name: "the second again behind 30", body: object(30, `,"000000":1`), want: "/at/000000", seen: 30},
		{name: "the last again", body: object(30, `,"000028":1`), want: "/at/000028", seen: 30},
	} {
		seen := 0
		got := pointers(tt.body, func(v strict.Value) { v.Each(func(strict.Value) { seen++ }) })
		if got != tt.want || seen != tt.seen {
			t.Errorf("%s: mistakes at %q after %d fields, want %q after %d", tt.name, got, seen, tt.want, tt.seen)
		}
	}
}

// FuzzEach compares with encoding/json.
func FuzzEach(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1}`, ` { "a" : [1,2,{"b":"]}"}] , "c":"\"\\" } `, `{"a":-1.5e+7,"b":true,"c":null}`, `{"\u0061":1,"a":2}`,
		`{"a":{"a":{}}}`, `[1]`, `1`, "", "{\"a\":\"\x00\"}", "{\"\xff\":1}", `{"a":1}x`, `{"":""}`, `{"a":[[],{}],"b":[ ]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var want map[string]json.RawMessage
		wrong := json.Unmarshal(body, &want)
		if err := strict.Check(body); err != nil {
			if wrong == nil && want != nil && json.Valid(bytes.ToValidUTF8(body, nil)) && bytes.Equal(body, bytes.ToValidUTF8(body, nil)) {
				t.Fatalf("%q is refused: %v", body, err)
			}
			return
		}
		got := make(map[string]string)
		mistakes := strict.Read("", bytes.TrimSpace(body), func(v strict.Value) {
			v.Each(func(v strict.Value) { got[v.Name()] = string(v.Raw) })
		})
		if len(mistakes) > 0 {
			twice := strings.Contains(mistakes[0].Detail, "given twice")
			if object := wrong == nil && want != nil; object != twice && len(want) <= 1000 {
				t.Fatalf("%q: %v, object is %v", body, mistakes, object)
			}
			return
		}
		if wrong != nil || len(got) != len(want) {
			t.Fatalf("%q: got %q, want %q (%v)", body, got, want, wrong)
		}
		for name, raw := range want {
			if got[name] != string(raw) {
				t.Fatalf("%q: field %q is %q, want %q", body, name, got[name], raw)
			}
		}
	})
}

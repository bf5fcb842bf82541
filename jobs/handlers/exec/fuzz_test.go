//go:build unix

package exec

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"jobstream/jobs"
)

// FuzzEvents gives what a program may write to file descriptor 3, in one piece and in
// two. Both must mean the same, and stay within the bounds.
func FuzzEvents(f *testing.F) {
	for _, s := range []string{
		"progress 45 row 4500 of 10000\nlog warn text\nresult {\"a\":1}\n", "artifact a.png image/png\nsnooze 60 why\nerror permanent no\n",
		"progress 1e9\nprogress -1%\nresult {\nsnooze NaN\nsnooze 1e300\nlog x\n", "\x00\r\n \nerror", "result " + strings.Repeat("[", 200),
	} {
		f.Add([]byte(s), 7)
	}
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		read := func(pieces ...[]byte) (said, []string) {
			var heard []string
			s := said{
				progress: func(percent int, message string) {
					if percent < 0 || percent > 100 {
						t.Fatalf("progress %d", percent)
					}
					heard = append(heard, fmt.Sprint(percent, message))
				},
				log: func(level, text string) { heard = append(heard, level+" "+text) },
			}
			l := &lines{each: s.line, most: maxEvent, cut: true}
			for _, p := range pieces {
				if n, err := l.Write(p); n != len(p) || err != nil {
					t.Fatal(n, err)
				}
			}
			l.close()
			s.progress, s.log = nil, nil
			return s, heard
		}
		whole, heard := read(text)
		if whole.result != nil && !json.Valid(whole.result) || len(whole.result) > jobs.MaxResult || len(whole.files) > jobs.MaxArtifacts+1 ||
			whole.snoozed < 0 || whole.snoozed > maxSnooze {
			t.Fatalf("%q gives %+v", text, whole)
		}
		cut = max(0, min(cut, len(text)))
		parts, alsoHeard := read(text[:cut], text[cut:])
		if !reflect.DeepEqual(whole, parts) || !reflect.DeepEqual(heard, alsoHeard) {
			t.Fatalf("%q gives %+v %q, but in two pieces %+v %q", text, whole, heard, parts, alsoHeard)
		}
	})
}

// FuzzArguments renders a command with any payload: no argument becomes an option that the
// command does not have, and each is one that a program can get.
func FuzzArguments(f *testing.F) {
	for _, p := range []string{`{"a":"x y","b":1.50}`, `{"a":"-rf","b":null}`, `{"a":"\u0000"}`, `{"a":{"c":["<&>"]}}`, `[]`, `"text"`, `{"b":"-"}`} {
		f.Add([]byte(p))
	}
	h, _ := handler(f, map[string]any{"command": []string{"/bin/true", "{{.payload.a}}", "--size={{.payload.b}}", `{{with .payload.a}}{{.}}{{end}}-x`, "{{.job.type}}"}})
	f.Fuzz(func(t *testing.T, payload []byte) {
		if !json.Valid(payload) {
			return // the doors refuse it
		}
		d, err := newData(jobs.NewPayload(payload), &jobs.Job{Type: "type"}, 1, "/dir")
		if err != nil {
			return
		}
		argv, err := h.argv(d)
		if err != nil {
			if _, ok := jobs.AsError(err); !ok {
				t.Fatalf("%q: %v", payload, err)
			}
			return
		}
		if len(argv) != 5 || !strings.HasPrefix(argv[2], "--size=") {
			t.Fatalf("%q gives %q", payload, argv)
		}
		for i, a := range argv {
			if strings.ContainsRune(a, 0) || i != 2 && strings.HasPrefix(a, "-") {
				t.Fatalf("%q gives %q", payload, argv)
			}
		}
	})
}

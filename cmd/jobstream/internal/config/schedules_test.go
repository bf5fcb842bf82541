package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs/handlers"
	"jobstream/jobs/schedule"
)

func TestSchedules(t *testing.T) {
	c := mustLoad(t, `
schedules:
  zz: {every: 90, type: email}
  nightly:
    cron: 30 2 * * 1-5
    timezone: Europe/Berlin
    type: report
    payload: {format: html, days: 7}
    priority: 5
    tags: [night, "12"]
    retry_count: 0
    timeout: 10m
    paused: true
    overlap: queue
    catch_up: none
  # how an interval is given
  every1: {every: 1w0.5d, type: email}
  every2: {every: "90", type: email}
  every3: {every: 1.5, type: email}
  every4: {every: "+2", type: email}
  aa: {name: aa, cron: "@every 5m", type: cleanup, payload: null}
`)
	want := []schedule.Spec{
		{Name: "aa", Cron: "@every 5m", Timezone: "UTC", Type: "cleanup", Priority: 3, RetryCount: -1, Overlap: schedule.Skip, CatchUp: schedule.One},
		{
			Name: "nightly", Cron: "30 2 * * 1-5", Timezone: "Europe/Berlin", Type: "report", Payload: json.RawMessage(`{"format":"html","days":7}`),
			Priority: 5, Tags: []string{"night", "12"}, RetryCount: 0, Timeout: 10 * time.Minute, Paused: true, Overlap: schedule.Queue, CatchUp: schedule.None,
		},
		{Name: "zz", Every: 90 * time.Second, Timezone: "UTC", Type: "email", Priority: 3, RetryCount: -1, Overlap: schedule.Skip, CatchUp: schedule.One},
	}
	sameAgain(t, "schedules", c)
	c.Schedules = slices.DeleteFunc(c.Schedules, func(s schedule.Spec) bool { return strings.HasPrefix(s.Name, "every") })
	if !reflect.DeepEqual(c.Schedules, want) {
		t.Errorf("the schedules are\n%+v\nnot\n%+v", c.Schedules, want)
	}
	for _, none := range []string{"", "schedules:", "schedules: {}"} {
		if c := mustLoad(t, none); c.Schedules != nil {
			t.Errorf("%q gives %+v", none, c.Schedules)
		}
	}
}

// Payloads have the same content in JSON; numbers keep every digit.
func TestSchedulePayloads(t *testing.T) {
	tests := []struct{ yaml, want string }{
		{"text", `"text"`},
		{"''", `""`},
		{"~", ""},
		{"", ""},
		{"yes", `"yes"`},
		{"True", "true"},
		{"2024-01-01", `"2024-01-01"`},
		{"2024-01-01T10:00:00.5+02:00", `"2024-01-01T10:00:00.5+02:00"`},
		{"12:30:45", `"12:30:45"`},
		{"'5'", `"5"`},
		{`"5"`, `"5"`},
		{`"1e3"`, `"1e3"`},
		{"5", "5"},
		{"-0", "-0"},
		{"1.50", "1.50"},
		{"1e3", "1e3"},
		{"1.25E-7", "1.25E-7"},
		{"1e400", "1e400"},
		{"9007199254740993", "9007199254740993"},
		{"18446744073709551615", "18446744073709551615"},
		{"-123456789012345678901234567890", "-123456789012345678901234567890"},
		{"0.10000000000000000000000000001", "0.10000000000000000000000000001"},
		{"0x1F", "31"},
		{"0o17", "15"},
		{"0b101", "5"},
		{"1_000", "1000"},
		{"+7", "7"},
		{".5", "0.5"},
		{"-1.", "-1"},
		{"[]", "[]"},
		{"{}", "{}"},
		{"[1, [a, {b: ~}], {c: [2]}]", `[1,["a",{"b":null}],{"c":[2]}]`},
		{"{1: a, true: b, ~: c, 'x y': d, '': e}", `{"1":"a","true":"b","~":"c","x y":"d","":"e"}`},
		{`"a\"b\\\n\u00e9\x01<&>"`, `"a\"b\\\n` + "é" + `\u0001<&>"`},
		{"|\n      one\n      two\n", `"one\ntwo\n"`},
		{">-\n      one\n      two\n", `"one two"`},
		{"\n      - 1\n      - two: 2\n        three: 3\n      -\n", `[1,{"two":2,"three":3},null]`},
		{"{<<: {a: 1, b: 2}, b: 3}", `{"b":3,"a":1}`},
		{"[&x {a: 1}, *x]", `[{"a":1},{"a":1}]`},
	}
	for _, tt := range tests {
		c := mustLoad(t, "schedules:\n  s:\n    every: 1h\n    type: email\n    payload: "+tt.yaml+"\n")
		if got := string(c.Schedules[0].Payload); got != tt.want {
			t.Errorf("%s gives %s, not %s", tt.yaml, got, tt.want)
		}
		sameAgain(t, tt.yaml, c)
	}
}

func TestScheduleProblems(t *testing.T) {
	deep := strings.Repeat("[", maxTreeDepth) + strings.Repeat("]", maxTreeDepth)
	bomb := "jobs: {email: {}}\nschedules:\n  a:\n    every: 1h\n    type: email\n    payload:\n      x0: &x0 [" + strings.Repeat("1234567890, ", 20) + "]\n"
	for i := 1; i < 10; i++ {
		bomb += fmt.Sprintf("      x%d: &x%d [%s]\n", i, i, strings.Repeat(fmt.Sprintf("*x%d, ", i-1), 20))
	}
	tests := []struct{ yaml, want string }{
		{"5", "schedules: 5 is not a section of names with cron or every, and type (config.yaml line 2)"},
		{"[]", "schedules: a list is not a section of names with cron or every, and type (config.yaml line 2)"},
		{"{a: 5}", "schedules.a: 5 is not a section with cron or every, and type (config.yaml line 2)"},
		{"{a: [b]}", "schedules.a: a list is not a section with cron or every, and type (config.yaml line 2)"},
		{"{a b: {}}", `schedules."a b": is not a name for a schedule: 1 to 64 letters, digits, _ and - (config.yaml line 2)`},
		{"{'': {name: a, every: 1s, type: email}}", `schedules."": is not a name for a schedule: 1 to 64 letters, digits, _ and - (config.yaml line 2)`},
		{"{a.b: {}}", `schedules."a.b": is not a name for a schedule: 1 to 64 letters, digits, _ and - (config.yaml line 2)`},
		{"{a: {every: 1s, type: email, payload: .inf}}", "schedules.a.payload: +Inf is not a number that JSON has (config.yaml line 2)"},
		{"{a: {every: 1s, type: email, payload: .nan}}", "schedules.a.payload: Nan is not supported here; give a plain value (config.yaml line 2)"},
		{"\n  a:\n    every: 1s\n    type: email\n    payload:\n      x y:\n        - 1\n        - z: -.inf\n", `schedules.a.payload."x y".1.z: -Inf is not a number that JSON has (config.yaml line 9)`},
		{"{a: {every: 1s, type: email, payload: !!binary aaaa}}", "schedules.a.payload: Tag is not supported here; give a plain value (config.yaml line 2)"},
		{"{a: {every: 1s, type: email, payload: {&x b: 1}}}", "schedules.a.payload: has a name in it that is more than text: tags, anchors and aliases are not supported there (config.yaml line 2)"},
		{"{a: {every: 1s, type: email, payload: {b: 1, b: 2}}}", "schedules.a.payload.b: is given twice, first in line 2 (config.yaml line 2)"},
		{
			"{a: {every: 1s, type: email, payload: " + deep + "}}",
			"schedules.a.payload." + strings.Repeat("0.", maxTreeDepth-2) + "0: is nested deeper than 64 levels (config.yaml line 2)",
		},
		{"{a: {every: 1s, type: emial}}", `schedules.a.type: "emial" is not a job type; known are email, export, cleanup, report (config.yaml line 2)`},
		{"{a: {every: 1s, type: jobstream-x}}", `schedules.a.type: "jobstream-x" is not a job type; known are email, export, cleanup, report (config.yaml line 2)`},
		// the mistake is in the jobs section, not in the schedule
		{"{a: {every: 1s, type: email}}\njobs: 5", "jobs: 5 is not a section (config.yaml line 3)"},
	}
	for _, tt := range tests {
		_, err := load(t, "# schedules\nschedules: "+tt.yaml)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s says\n%v\nnot\n%s", tt.yaml, err, tt.want)
		}
	}
	many := "schedules:\n  s0: &s {every: 1h, type: email, payload: " + strings.Repeat("x", 50_000) + "}\n"
	for i := 1; i < 30; i++ {
		many += fmt.Sprintf("  s%d: *s\n", i)
	}
	for name, yaml := range map[string]string{"aliases of aliases": bomb, "many aliases": many} {
		if _, err := load(t, yaml); err == nil || !strings.Contains(err.Error(), "larger than 1MiB, which only aliases can do") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Problems that the package schedule finds have the right key and line, and its words.
func TestScheduleProblemsKnowTheirPlace(t *testing.T) {
	tests := []struct {
		fields string // of a schedule that begins in line 3; the fields begin in line 4
		key    string
		line   int
	}{
		{"every: 1s", "schedules.a.type", 3},
		{"type: email", "schedules.a.cron", 3},
		{"type: 5\n    every: 1s", "schedules.a.type", 4},
		{"type: 1e3\n    every: 1s", "schedules.a.type", 4},
		{"type: email\n    cron: often", "schedules.a.cron", 5},
		{"type: email\n    every: 1s\n    timezone: Mars/Olympus", "schedules.a.timezone", 6},
		{"type: email\n    every: 1s\n    priority: 6", "schedules.a.priority", 6},
		{"type: email\n    every: 1s\n    tags: x", "schedules.a.tags", 6},
		{"type: email\n    every: 1s\n    tags:\n      -\n", "schedules.a.tags", 6},
		{"type: email\n    every: 1s\n    retry_count: -1", "schedules.a.retry_count", 6},
		{"type: email\n    every: 1s\n    timeout: 0", "schedules.a.timeout", 6},
		{"type: email\n    every: 1s\n    paused: 'no'", "schedules.a.paused", 6},
		{"type: email\n    every: 1s\n    overlap: run", "schedules.a.overlap", 6},
		{"type: email\n    every: 1s\n    catch_up: all", "schedules.a.catch_up", 6},
		{"type: email\n    every: 1s\n    next_run_at: 2030-01-01", "schedules.a.next_run_at", 6},
		{"type: email\n    every: 1s\n    a/b~c: 1", `schedules.a."a/b~c"`, 6},
		{"type: email\n    every: 1s\n    name: b", "schedules.a", 3},
	}
	for _, tt := range tests {
		_, err := load(t, "log: {}\nschedules:\n  a:\n    "+tt.fields)
		problems, ok := err.(Problems) //nolint:errorlint // load returns them bare
		if !ok || len(problems) != 1 {
			t.Errorf("%s: %v", tt.fields, err)
			continue
		}
		if p := problems[0]; p.Key != tt.key || p.Line != tt.line || p.File != "config.yaml" || p.Env != "" || p.Text == "" {
			t.Errorf("%s says %+v, not at %s in line %d", tt.fields, p, tt.key, tt.line)
		}
	}
}

// All mistakes in a schedule are reported at once, down the file, with those of other
// keys.
func TestScheduleProblemsTogether(t *testing.T) {
	_, err := load(t, "schedules:\n  b:\n    type: emial\n    every: 0\n    priority: 9\n  a: {type: email}\nlog: {level: loud}\nworker: {max_workers: 0}\n")
	problems, ok := err.(Problems) //nolint:errorlint // load returns them bare
	if !ok {
		t.Fatal(err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%s %d", p.Key, p.Line))
	}
	want := []string{"schedules.b.type 3", "schedules.b.every 4", "schedules.b.priority 5", "schedules.a.cron 6", "log.level 7", "worker.max_workers 8"}
	if !slices.Equal(got, want) {
		t.Errorf("the problems are %q, not %q", got, want)
	}
}

// Tags may contain any visible character, and load again from their printed form.
func TestTagsComeBack(t *testing.T) {
	for _, tag := range []string{
		"<<", "~", "null", "- a", "? b", "&a", "*a", "!!str", "#c", "e: f", "'", `"`, `\`, "1e3", ".inf", "é", "\u00ad", "\U0001f600",
		strings.Repeat("[", 100), strings.Repeat("]{", 50), strings.Repeat("- ", 49) + "-",
	} {
		c := Default(handlers.Kinds())
		c.Schedules = []schedule.Spec{{
			Name: "a", Every: time.Hour, Timezone: "UTC", Type: "email", Tags: []string{tag, "b"}, Priority: 3, RetryCount: -1,
			Overlap: schedule.Skip, CatchUp: schedule.One,
		}}
		sameAgain(t, tag, c)
	}
}

// Payloads may contain secrets and are not shown.
func TestPayloadsAreNotShown(t *testing.T) {
	for _, payload := range []string{`hunter2`, `{a: hunter2}`, `{hunter2: 1}`, `[{a: [hunter2]}]`, `{a: 87654321}`, `87654321`} {
		c := mustLoad(t, "schedules: {s: {every: 1h, type: email, payload: "+payload+"}}")
		text, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "hunter2") || strings.Contains(string(text), "87654321") || !strings.Contains(string(text), "payload: "+scalar(mask)) {
			t.Errorf("%s is printed as\n%s", payload, text)
		}
	}
	c := mustLoad(t, "schedules: {s: {every: 1h, type: email, payload: {}}}")
	if text, err := c.YAML(); err != nil || !strings.Contains(string(text), "payload: {}\n") {
		t.Errorf("an empty payload is printed as\n%s%v", text, err)
	}
}

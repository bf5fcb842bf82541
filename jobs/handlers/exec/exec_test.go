//go:build unix

package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/handlers/exec/proc"
	"jobstream/jobs/handlers/internal/handlertest"
)

// handler makes one from the settings of a type, by path.
func handler(t testing.TB, settings map[string]any) (*Handler, string) {
	t.Helper()
	o := NewOptions()
	for _, s := range o.Settings() {
		if v, ok := settings[s.Path]; ok && !s.Set(v) {
			t.Fatalf("%s: %v is not %s", s.Path, v, s.Allowed)
		}
	}
	o.Check(t.TempDir(), func(path, text string) { t.Errorf("%s: %s", path, text) })
	data := t.TempDir()
	h := New(o, Host{Data: data, Work: filepath.Join(data, "work")})
	t.Cleanup(func() {
		mark, err := Mark(data)
		if err != nil {
			t.Error(err)
		}
		if left := proc.Left(mark); len(left) > 0 {
			t.Errorf("processes are left: %v", left)
		}
		if left, _ := os.ReadDir(filepath.Join(data, "work")); len(left) > 0 {
			t.Errorf("%v is left", left)
		}
	})
	return h, data
}

// shell is a handler of a script.
func shell(t *testing.T, script string, more map[string]any) (*Handler, string) {
	t.Helper()
	settings := map[string]any{"command": []string{"/bin/sh", "-c", script}}
	for k, v := range more {
		settings[k] = v
	}
	return handler(t, settings)
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script  string
		more    map[string]any
		payload string
		value   string
		err     string
		forGood bool
		logged  string
	}{
		"JSON":                 {script: `echo '{"n": 1}'`, value: `{"n":1}`},
		"text":                 {script: `echo "a  b"`, value: `"a  b"`},
		"nothing":              {script: `:`, value: `null`},
		"stdin":                {script: `cat`, payload: `{"a":[1]}`, value: `{"a":[1]}`},
		"no payload":           {script: `cat`, value: `null`},
		"a field of it":        {script: `cat`, more: map[string]any{"stdin": "/a/1/b~1c"}, payload: `{"a":[0,{"b/c":"text"}]}`, value: `"text"`},
		"stdin is not read":    {script: `exit 0`, payload: `"` + strings.Repeat("x", 1<<20) + `"`, value: `null`},
		"fd 3 wins":            {script: `echo 1; echo 'result {"x":2}' >&3`, value: `{"x":2}`},
		"by name":              {script: `echo 'result 3' > "$JOBSTREAM_EVENTS"`, value: `3`},
		"log":                  {script: `echo one; echo two >&2; echo 'log warn three' >&3; echo what >&3`, more: map[string]any{"stdout": "log"}, value: `null`, logged: "info one|info two|warn not understood on file descriptor 3: what|warn three"},
		"a result of the most": {script: `printf '"%s"\n' "$(head -c 262142 /dev/zero | tr '\0' x)"`, value: `"` + strings.Repeat("x", 262142) + `"`},
		"fd 3, of the most":    {script: `x=$(head -c 262142 /dev/zero | tr '\0' x); printf 'result "%s"\n' "$x" >&3`, value: `"` + strings.Repeat("x", 262142) + `"`},
		"fd 3, more":           {script: `x=$(head -c 280000 /dev/zero | tr '\0' x); printf '%s\nresult 1\n' "$x" >&3`, value: `1`},
		"exit status":          {script: `echo "no decode" >&2; exit 2`, err: "exit status 2: no decode"},
		"permanent":            {script: `exit 65`, err: "exit status 65", forGood: true},
		"temporary":            {script: `exit 75`, err: "exit status 75"},
		"permanent list":       {script: `exit 9`, more: map[string]any{"permanent": []string{"9"}}, err: "exit status 9", forGood: true},
		"error permanent":      {script: `echo 'error permanent no such customer' >&3; exit 0`, err: "no such customer", forGood: true},
		"error":                {script: `echo 'error try later' >&3; exit 0`, err: "try later"},
		"signal":               {script: `kill -SEGV $$`, err: "ended by SIGSEGV"},
		"snooze":               {script: `echo 'snooze 90 not there yet' >&3; exit 1`, err: "snoozed for 1m30s: not there yet"},
		"a large result":       {script: `head -c 300000 /dev/zero | tr '\0' x`, err: "the program wrote more than 262144 bytes", forGood: true},
		"too much":             {script: `yes`, more: map[string]any{"limits.output": "1MiB"}, err: "the program wrote more than 1048576 bytes (limits.output)", forGood: true},
		"not UTF-8":            {script: `printf 'a\377b'`, value: `"a` + "\ufffd" + `b"`},
		"NUL":                  {script: `printf 'a\0b'`, value: `"a\u0000b"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _ := shell(t, tt.script, tt.more)
			task := handlertest.NewTask(t, tt.payload)
			r, err := h.Handle(t.Context(), task.Task)
			if tt.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.err) || jobs.IsPermanent(err) != tt.forGood {
					t.Errorf("got %v, permanent %v; want %s", err, jobs.IsPermanent(err), tt.err)
				}
				return
			}
			got, _ := json.Marshal(r.Value)
			if err != nil || string(got) != tt.value {
				t.Errorf("got %s, %v; want %s", got, err, tt.value)
			}
			if slices.Sort(task.Logged); tt.logged != "" && strings.Join(task.Logged, "|") != tt.logged {
				t.Errorf("logged %q", task.Logged)
			}
		})
	}
}

func TestProgress(t *testing.T) {
	h, _ := shell(t, `echo 'progress 10 begun' >&3; echo 'progress 55.5% more  of it' >&3; echo 'progress 200 never' >&3`, nil)
	task := handlertest.NewTask(t, "")
	if _, err := h.Handle(t.Context(), task.Task); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(task.Percents, task.Messages) != "[10 55] [begun more  of it]" || len(task.Logged) != 1 {
		t.Errorf("reported %v %q, logged %q", task.Percents, task.Messages, task.Logged)
	}
}

// TestEnvironment is everything that a program gets.
func TestEnvironment(t *testing.T) {
	secretFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(secretFile, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("EXEC_TEST_SECRET", "hunter2")
	t.Setenv("EXEC_TEST_PASSED", "passed")
	h, data := handler(t, map[string]any{
		"command": []string{"env", "-0"}, "pass_env": []string{"PATH", "EXEC_TEST_PASSED", "EXEC_TEST_NOT_SET"},
		"env": map[string]string{"A": "x=${env:EXEC_TEST_SECRET}", "B": "${file:" + secretFile + "}"},
	})
	task := handlertest.NewTask(t, "")
	task.Until = time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	r, err := h.Handle(t.Context(), task.Task)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(r.Value.(string), "\x00"), "\x00")
	mark, _ := Mark(data)
	var dir string
	for i, v := range got {
		if strings.HasPrefix(v, "JOBSTREAM_DIR=") {
			dir = strings.TrimPrefix(v, "JOBSTREAM_DIR=")
		}
		if strings.HasPrefix(v, mark) {
			got[i] = "mark"
		}
	}
	want := []string{
		"PATH=" + os.Getenv("PATH"), "EXEC_TEST_PASSED=passed", "A=x=hunter2", "B=from a file",
		"JOBSTREAM_JOB_ID=" + task.Job.ID.String(), "JOBSTREAM_JOB_TYPE=under-test", "JOBSTREAM_JOB_ATTEMPT=1", "JOBSTREAM_JOB_RUN=0",
		"JOBSTREAM_DIR=" + dir, "JOBSTREAM_EVENTS=/dev/fd/3", "TMPDIR=" + dir, "HOME=" + dir, "JOBSTREAM_JOB_DEADLINE=2030-01-02T03:04:05Z", "mark",
	}
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if filepath.Dir(dir) != filepath.Join(data, "work") {
		t.Errorf("the folder is %s", dir)
	}
}

// TestEnvironmentOnce names variables that the program would get anyway.
func TestEnvironmentOnce(t *testing.T) {
	t.Setenv("JOBSTREAM_JOB_TYPE", "of an outer server")
	t.Setenv("JOBSTREAM_MARK", "of an outer server")
	h, data := handler(t, map[string]any{
		"command": []string{"env"}, "env": map[string]string{"PATH": "/mine", "HOME": "/mine"},
		"pass_env": []string{"PATH", "JOBSTREAM_JOB_TYPE", "JOBSTREAM_MARK"},
	})
	r, err := h.Handle(t.Context(), handlertest.NewTask(t, "").Task)
	if err != nil {
		t.Fatal(err)
	}
	mark, _ := Mark(data)
	values := make(map[string]string)
	for _, entry := range strings.Split(r.Value.(string), "\n") {
		name, value, _ := strings.Cut(entry, "=")
		if before, is := values[name]; is {
			t.Errorf("%s is twice in it: %s and %s", name, before, value)
		}
		values[name] = value
	}
	if values["PATH"] != "/mine" || values["HOME"] != "/mine" || values["JOBSTREAM_JOB_TYPE"] != "under-test" || !strings.HasPrefix("JOBSTREAM_MARK="+values["JOBSTREAM_MARK"], mark) {
		t.Errorf("got %q", values)
	}
}

// TestRelativeFolder has a data folder that is relative, as the default one is, while the
// program works in another folder than the server.
func TestRelativeFolder(t *testing.T) {
	h, data := handler(t, map[string]any{
		"command": []string{"/bin/sh", "-c", `cd / && echo out > "$1" && cat "$JOBSTREAM_DIR/out" "$TMPDIR/out" "$HOME/out"`, "sh", "{{.dir}}/out"},
	})
	t.Chdir(filepath.Dir(data))
	h.h.Work = filepath.Join(filepath.Base(data), "work")
	r, err := h.Handle(t.Context(), handlertest.NewTask(t, "").Task)
	if err != nil || r.Value != "out\nout\nout" {
		t.Errorf("got %q, %v", r.Value, err)
	}
}

// TestArguments compares what arrives byte by byte.
func TestArguments(t *testing.T) {
	h, _ := handler(t, map[string]any{"command": []string{"printf", `%s\0`, "{{.payload.text}}", "--size={{.payload.n}}", "{{.payload.b}} {{json .payload.list}}"}})
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.String().Draw(rt, "text")
		n := rapid.SampledFrom([]string{"1", "1.50", "12345678901234567890", "1e400"}).Draw(rt, "n")
		quoted, _ := json.Marshal(text)
		payload := fmt.Sprintf(`{"text":%s,"n":%s,"b":true,"list":[%s, 1.0]}`, quoted, n, quoted)
		var v struct{ Text string }
		_ = json.Unmarshal([]byte(payload), &v)
		text = v.Text // without what is not UTF-8
		err := h.Check(jobs.NewPayload(json.RawMessage(payload)))
		if strings.HasPrefix(text, "-") || strings.ContainsRune(text, 0) {
			if e, ok := jobs.AsError(err); !ok || len(e.Fields) != 1 || e.Fields[0].Pointer != "/payload/text" {
				rt.Fatalf("%s passes the door: %v", payload, err)
			}
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		r, err := h.Handle(context.Background(), handlertest.NewTask(t, payload).Task)
		if err != nil {
			rt.Fatal(err)
		}
		list, _ := json.Marshal([]any{text, json.Number("1.0")})
		if want := text + "\x00--size=" + n + "\x00true " + string(list) + "\x00"; r.Value != want {
			rt.Fatalf("got %q, want %q", r.Value, want)
		}
	})
}

func TestDoor(t *testing.T) {
	h, _ := handler(t, map[string]any{
		"command": []string{"true", "{{.payload.a.b}}", `{{.payload.size | default "10x10"}}`, `{{default "x" .payload.name}}`, "{{.job.id}}{{.dir}}", "-literal"},
	})
	for payload, want := range map[string]string{
		`{"a":{"b":"x"}}`:           "",
		`{"a":{"b":1},"size":"-1"}`: `/payload/size begins with "-", so that the program would take it for an option`,
		`{"a":{}}`:                  "/payload/a/b is required",
		`{}`:                        "/payload/a is required",
		``:                          "/payload must be an object with a, not null",
		`[1]`:                       "/payload must be an object with a, not a list",
		`{"a":{"b":null}}`:          "/payload/a/b must be a string, a number, true or false, not null",
		`{"a":{"b":{"c":1}}}`:       "/payload/a/b must be a string, a number, true or false, not an object",
		`{"a":{"b":"x\u0000y"}}`:    "/payload/a/b makes an argument with a NUL byte, which no program can get",
		`{"a":{"b":"` + strings.Repeat("y", 200000) + `"}}`: "/payload/a/b makes an argument of more than 131072 bytes",
	} {
		err := h.Check(jobs.NewPayload(json.RawMessage(payload)))
		got := ""
		var e *jobs.Error
		if errors.As(err, &e) && len(e.Fields) > 0 {
			got = e.Fields[0].Pointer + " " + e.Fields[0].Detail
		}
		if got != want {
			t.Errorf("%.60s gives %q, want %q", payload, got, want)
		}
	}
	dashing, _ := handler(t, map[string]any{"command": []string{"true", "{{.payload}}"}, "allow_dash": true})
	if err := dashing.Check(jobs.NewPayload(json.RawMessage(`"-x"`))); err != nil {
		t.Error(err)
	}
	text, _ := handler(t, map[string]any{"command": []string{"true"}, "stdin": "/text"})
	if err := text.Check(jobs.NewPayload(json.RawMessage(`{"text":5}`))); err == nil || !strings.Contains(err.Error(), "/payload/text") {
		t.Errorf("got %v", err)
	}
}

// TestLists passes lists of a payload to range and json.
func TestLists(t *testing.T) {
	h, _ := handler(t, map[string]any{"command": []string{
		"true", "{{range .payload.list}}{{.name}} {{end}}", "{{json .payload.list}}{{.payload.n}}", "{{/* a comment */}}{{with .payload.list}}{{len .}}{{end}}",
	}})
	many, _ := handler(t, map[string]any{"command": []string{"true", "{{range .payload.list}}{{range $.payload.list}}{{json $.payload}}{{end}}{{end}}"}})
	for payload, want := range map[string]string{
		`{"list":[{"name":"a"}],"n":1}`:                           "",
		`{"list":[{"name":"a"}]}`:                                 "/payload/n is required",
		`{"list":[{"name":"a"}],"n":{}}`:                          "/payload/n must be a string, a number, true or false, not an object",
		`{"list":[{}],"n":1}`:                                     `/payload does not fit the command: template: :1:25: executing "" at <.name>: map has no entry for key "name"`,
		`{"n":1,"list":[` + strings.Repeat("{},", 1<<16) + `{}]}`: "/payload/list makes an argument of more than 131072 bytes",
	} {
		handler := h
		if len(payload) > 1<<16 {
			handler = many // which takes minutes and a terabyte if it is rendered to the end
		}
		err := handler.Check(jobs.NewPayload(json.RawMessage(payload)))
		got := ""
		var e *jobs.Error
		if errors.As(err, &e) && len(e.Fields) > 0 {
			got = e.Fields[0].Pointer + " " + e.Fields[0].Detail
		}
		if got != want {
			t.Errorf("%.60s gives %q, want %q", payload, got, want)
		}
	}
}

func TestArtifact(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		script string
		more   map[string]any
		want   string
		err    string
	}{
		"file":          {script: `echo hello > "$JOBSTREAM_DIR/out.csv"`, more: map[string]any{"artifact.file": "out.csv"}, want: "out.csv text/csv; charset=utf-8 hello\n"},
		"by the script": {script: `mkdir a; echo hi > a/out; echo 'artifact a/out image/x' >&3`, want: "out image/x hi\n"},
		"stdout":        {script: `echo all`, more: map[string]any{"stdout": "artifact", "artifact.name": "all.txt", "artifact.content_type": "text/x"}, want: "all.txt text/x all\n"},
		"several":       {script: `echo 1 >a.csv; echo 2 >b; echo 'artifact b image/b' >&3; echo 'artifact a.csv' >&3`, want: "b image/b 2\na.csv text/csv; charset=utf-8 1\n"},
		"named twice":   {script: `echo 1 >b; echo 'artifact b image/b' >&3`, more: map[string]any{"artifact.file": "b", "artifact.content_type": "text/b"}, want: "b text/b 1\nb image/b 1\n"},
		"with stdout":   {script: `echo 2 >b; echo 'artifact b image/b' >&3; echo all`, more: map[string]any{"stdout": "artifact"}, want: "output application/octet-stream all\nb image/b 2\n"},
		"too many":      {script: `echo 1 >b; for i in $(seq 200); do echo 'artifact b' >&3; done`, err: "at most 100 files"},
		"missing":       {script: `:`, more: map[string]any{"artifact.file": "out.csv"}, err: "no such file"},
		"link":          {script: `ln -s ` + outside + ` x; echo 'artifact x' >&3`, err: "escapes"},
		"above":         {script: `echo 'artifact ../x' >&3`, err: "is not below"},
		"fifo":          {script: `mkfifo x; echo 'artifact x' >&3`, err: "is not a file"},
		"failed":        {script: `echo half; exit 1`, more: map[string]any{"stdout": "artifact"}, err: "exit status 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _ := shell(t, tt.script, tt.more)
			task := handlertest.NewTask(t, "")
			_, err := h.Handle(t.Context(), task.Task)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				if left, err := filepath.Glob(filepath.Join(task.Folder, ".*")); task.Folder != "" && (err != nil || len(left) > 0) {
					t.Errorf("%v is left half done, %v", left, err) // the pool removes those that are whole
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got string
			all := task.End()
			for i := range all {
				f, err := jobs.NewArtifactDir(task.Folder, 0).Open(task.Job.ID, &all[i])
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(f)
				if err := errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
				got += all[i].Name + " " + all[i].ContentType + " " + string(b)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestStop ends programs by their context, for every reason.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{jobs.ErrTimeout, jobs.ErrCancelled, jobs.ErrShutdown} {
		for name, script := range map[string]string{
			"asked":   `trap 'echo bye >&2; exit 3' TERM; echo 'progress 1' >&3; sleep 1000 & wait`,
			"ignores": `trap '' TERM; echo 'progress 1' >&3; while :; do sleep 1000; done`,
		} {
			t.Run(name+" "+cause.Error(), func(t *testing.T) {
				t.Parallel()
				h, _ := shell(t, script, map[string]any{"kill_after": "200ms"})
				ctx, cancel := context.WithCancelCause(t.Context())
				task := jobs.NewTask(&jobs.Job{ID: jobs.NewID(), Type: "under-test"}, 1, begun(func() { cancel(cause) }))
				_, err := h.Handle(ctx, task)
				if err == nil || name == "asked" && err.Error() != "exit status 3: bye" || name == "ignores" && !errors.Is(err, cause) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

// begun is a host that calls a function at the first progress.
type begun func()

func (b begun) Report(int, string)           { b() }
func (begun) Log(jobs.Level, string, string) {}

func (begun) Create() (jobs.ArtifactWriter, error)  { return nil, errors.ErrUnsupported }
func (begun) InputPath(*jobs.Input) (string, error) { return "", errors.ErrUnsupported }

// TestConfiguration has every mistake named with its key.
func TestConfiguration(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"plain", "run"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("#!/bin/sh\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(folder, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		settings map[string]any
		want     string
	}{
		"relative":         {map[string]any{"command": []string{"./run"}}, ""},
		"by PATH":          {map[string]any{"command": []string{"sh"}}, ""},
		"none":             {nil, "command: is required"},
		"missing":          {map[string]any{"command": []string{"/no/such"}}, "command[0]: /no/such cannot be run: stat /no/such: no such file"},
		"not executable":   {map[string]any{"command": []string{"./plain"}}, "permission denied"},
		"a template":       {map[string]any{"command": []string{"{{.payload}}"}}, "command[0]: must not be a template"},
		"does not parse":   {map[string]any{"command": []string{"sh", "{{.payload"}}, "command[1]: "},
		"unknown field":    {map[string]any{"command": []string{"sh", "{{.paylod.x}}"}}, "command[1]: names .paylod, which does not exist; known are .payload, .inputs, .job, .dir"},
		"unknown of job":   {map[string]any{"command": []string{"sh", "{{.job.name}}"}}, "command[1]: names .job.name, which does not exist; known are id, type, priority, attempt, tags, created_at"},
		"unknown list":     {map[string]any{"command": []string{"sh", "{{range .paylod.list}}{{.name}}{{end}}"}}, "command[1]: names .paylod, which does not exist"},
		"list in a branch": {map[string]any{"command": []string{"sh", "{{if .payload.list}}{{range .payload.list}}{{.name}}{{end}}{{end}}"}}, ""},
		"a comment":        {map[string]any{"command": []string{"sh", "{{/* nothing */}}"}}, ""},
		"calls itself":     {map[string]any{"command": []string{"sh", `{{template "" .}}`}}, "command[1]: must not define templates, nor call any"},
		"block":            {map[string]any{"command": []string{"sh", `{{block "x" .}}{{end}}`}}, "command[1]: must not define templates, nor call any"},
		"unknown call":     {map[string]any{"command": []string{"sh", "{{exec .payload}}"}}, `command[1]: :1: function "exec" not defined`},
		"dir":              {map[string]any{"command": []string{"sh"}, "dir": "nope"}, "dir: "},
		"artifact":         {map[string]any{"command": []string{"sh"}, "artifact.file": "/etc/passwd"}, "artifact.file: must be a path below"},
		"artifact twice":   {map[string]any{"command": []string{"sh"}, "artifact.file": "x", "stdout": "artifact"}, "artifact.file: goes with"},
		"secret":           {map[string]any{"command": []string{"sh"}, "env": map[string]string{"A": "${env:NO_SUCH_VARIABLE}"}}, "env.A: the environment has no NO_SUCH_VARIABLE"},
		"secret file":      {map[string]any{"command": []string{"sh"}, "env": map[string]string{"A": "${file:nope}"}}, "env.A: open "},
		"variable":         {map[string]any{"command": []string{"sh"}, "env": map[string]string{"a-b": "x"}}, "env.a-b: must be the name"},
		"ours":             {map[string]any{"command": []string{"sh"}, "env": map[string]string{"JOBSTREAM_MARK": "x"}}, "env.JOBSTREAM_MARK: is set by the server"},
		"user":             {map[string]any{"command": []string{"sh"}, "user": "no-such-user"}, `user: there is no user "no-such-user" here`},
		"write":            {map[string]any{"command": []string{"sh"}, "sandbox.write": []string{"{{.payload}}"}}, "sandbox.write[0]: may begin with"},
		"write not there":  {map[string]any{"command": []string{"sh"}, "sandbox.write": []string{"/no/such"}}, "sandbox.write[0]: "},
	} {
		t.Run(name, func(t *testing.T) {
			o := NewOptions()
			for _, s := range o.Settings() {
				if v, ok := tt.settings[s.Path]; ok && !s.Set(v) {
					t.Fatalf("%s: %v is not %s", s.Path, v, s.Allowed)
				}
			}
			var got []string
			o.Check(folder, func(path, text string) { got = append(got, path+": "+text) })
			if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestSweepLeavesTheFolder finds what a crash has left where an operator may have mounted a
// file system: that cannot be removed.
func TestSweepLeavesTheFolder(t *testing.T) {
	h, _ := shell(t, ":", nil)
	if err := os.MkdirAll(filepath.Join(h.h.Work, "attempt-1", "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(h.h.Work)
	if err != nil {
		t.Fatal(err)
	}
	if killed, err := Sweep(h.h); err != nil || killed != 0 {
		t.Errorf("%d processes, %v", killed, err)
	}
	after, err := os.Stat(h.h.Work)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the folder is not the same: %v", err)
	}
	if left, _ := os.ReadDir(h.h.Work); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func TestWarnings(t *testing.T) {
	o := NewOptions()
	o.Command = []string{"sh", "-c", "echo {{.payload}}"}
	o.Check(t.TempDir(), func(path, text string) { t.Error(path, text) })
	if w := o.Warnings(); len(w) == 0 || !strings.Contains(w[0], "a payload can be a command") {
		t.Errorf("got %q", w)
	}
}

// TestSweepOfACrash leaves a program running, as a killed server does.
func TestSweepOfACrash(t *testing.T) {
	h, data := shell(t, "", nil)
	mark, err := Mark(data)
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "sleep 1000 & wait"}, &os.ProcAttr{Env: []string{"PATH=/usr/bin:/bin", mark + "x"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = p.Wait() }()
	dir, err := h.folder(mark)
	if err != nil {
		t.Fatal(err)
	}
	for len(proc.Left(mark)) < 2 {
		time.Sleep(time.Millisecond) // there is no signal for it
	}
	killed, err := Sweep(h.h)
	if _, gone := os.Stat(dir); err != nil || killed < 2 || !errors.Is(gone, os.ErrNotExist) {
		t.Errorf("killed %d, %v; the folder: %v", killed, err, gone)
	}
}

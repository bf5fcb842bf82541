package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/handlertest"
)

func newHandler(t *testing.T, list ...*jobs.Job) *Handler {
	t.Helper()
	return New(handlertest.NewTracker(list...))
}

// run runs an export and returns its result and its file, which the result must
// describe.
func run(t *testing.T, h *Handler, payload string) (Result, *jobs.Artifact, string) {
	t.Helper()
	task := handlertest.NewTask(t, payload)
	if err := h.Check(jobs.NewPayload(task.Job.Payload)); err != nil {
		t.Fatalf("Check: %v", err)
	}
	res, err := h.Handle(t.Context(), task.Task)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.CheckProgress(); err != nil {
		t.Error(err)
	}
	file, f := task.Open()
	content, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	v := res.Value.(Result)
	sum := sha256.Sum256(content)
	if v.SHA256 != hex.EncodeToString(sum[:]) || v.Bytes != int64(len(content)) || v.SHA256 != file.SHA256 {
		t.Errorf("the result speaks of another file: %+v", v)
	}
	id := task.Job.ID.String()
	if want := "/jobs/" + id + "/result"; v.URL != want {
		t.Errorf("url %q, want %q", v.URL, want)
	}
	if want := "export-" + id[28:] + "." + v.Format; file.Name != want {
		t.Errorf("file name %q, want %q", file.Name, want)
	}
	return v, file, string(content)
}

func readCSV(t interface{ Fatal(args ...any) }, content string) [][]string {
	rows, err := csv.NewReader(strings.NewReader(content)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// full is a job with a value in every field.
func full(t *testing.T) *jobs.Job {
	t.Helper()
	created := handlertest.At(t, "2024-01-15T08:00:00Z")
	return &jobs.Job{
		ID: handlertest.ID(1), Key: 42, Seq: 42, Type: "email", Priority: 2, Status: jobs.Failed, Progress: 45, Message: "row 1, of 2",
		Run: 1, Attempt: 2, Failures: 2, MaxAttempts: 2, Lost: 1, Timeout: 90*time.Second + 500*time.Millisecond,
		Payload: json.RawMessage("{\n  \"to\": \"a@example.com\",\r\n \"n\": -5}"), Result: json.RawMessage(`["ü"]`),
		Artifact: &jobs.Artifact{Name: "a.txt", ContentType: "text/plain", Size: 7, SHA256: "ab"},
		Error:    "=cmd|' /C calc'!A0", Errors: []jobs.AttemptError{{Attempt: 1, Error: "x\ny", At: created.Add(time.Second)}},
		Tags: []string{"a b", "c"}, Node: "node-1", CreatedAt: created, UpdatedAt: created.Add(4 * time.Second), DueAt: created.Add(time.Minute),
		StartedAt: created.Add(2 * time.Second), EndedAt: created.Add(2*time.Second + 1234567*time.Nanosecond),
		History: []jobs.HistoryEntry{{Kind: jobs.KindSubmitted, At: created}, {Kind: jobs.KindStarted, Attempt: 1, At: created.Add(250 * time.Millisecond)}},
	}
}

func allColumns(t *testing.T) string {
	t.Helper()
	b, err := json.Marshal(Columns())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEveryColumnInCSV(t *testing.T) {
	v, a, content := run(t, newHandler(t, full(t), &jobs.Job{ID: handlertest.ID(2)}), `{"columns":`+allColumns(t)+`}`)
	if v.Format != "csv" || v.Records != 2 || a.ContentType != "text/csv; charset=utf-8" {
		t.Errorf("got %+v, %+v", v, a)
	}
	if strings.Count(content, "\r\n") < 3 || !strings.HasSuffix(content, "\r\n") {
		t.Error("lines must end in CR LF")
	}
	rows := readCSV(t, content)
	want := map[string]string{
		"id": "00000000-0000-7000-8000-000000000001", "seq": "42", "type": "email", "priority": "2", "status": "failed", "progress": "45",
		"message": "row 1, of 2", "attempt": "2", "max_attempts": "2", "timeout": "90.5", "payload": `{"to":"a@example.com","n":-5}`, "result": `["ü"]`,
		"error": "'=cmd|' /C calc'!A0", "errors": `[{"attempt":1,"error":"x\ny","at":"2024-01-15T08:00:01Z"}]`, "tags": "a b,c",
		"created_at": "2024-01-15T08:00:00Z", "updated_at": "2024-01-15T08:00:04Z", "run_at": "2024-01-15T08:01:00Z",
		"started_at": "2024-01-15T08:00:02Z", "ended_at": "2024-01-15T08:00:02.001234567Z", "wait_ms": "250", "duration_ms": "1.235",
		"node": "node-1", "lost": "1", "artifact": `{"name":"a.txt","content_type":"text/plain","size":7,"sha256":"ab"}`,
		"fingerprint": "3f2d1c50784d39ef",
	}
	if !slices.Equal(rows[0], Columns()) || len(want) != len(Columns()) {
		t.Fatalf("header %v", rows[0])
	}
	for i, name := range rows[0] {
		if rows[1][i] != want[name] {
			t.Errorf("%s: %q, want %q", name, rows[1][i], want[name])
		}
	}
	for _, name := range []string{"created_at", "ended_at", "payload", "wait_ms", "duration_ms", "artifact", "timeout", "error", "tags"} {
		if got := rows[2][slices.Index(Columns(), name)]; got != "" {
			t.Errorf("%s of a bare job: %q, want nothing", name, got)
		}
	}
}

func TestEveryColumnInJSON(t *testing.T) {
	for _, format := range []string{"json", "jsonl"} {
		t.Run(format, func(t *testing.T) {
			h := newHandler(t, full(t), &jobs.Job{ID: handlertest.ID(2)})
			v, a, content := run(t, h, `{"format":"`+format+`","columns":`+allColumns(t)+`}`)
			if v.Records != 2 || v.Format != format {
				t.Errorf("got %+v", v)
			}
			if want := map[string]string{"json": "application/json", "jsonl": "application/x-ndjson"}[format]; a.ContentType != want {
				t.Errorf("content type %q", a.ContentType)
			}
			if strings.Count(content, "\n") != 2 {
				t.Errorf("want a line for each job:\n%s", content)
			}
			rows := decode(t, format, content)
			// the job resource has the same fields under the same names
			var resource map[string]any
			b, err := full(t).MarshalJSON()
			if err := errors.Join(err, json.Unmarshal(b, &resource)); err != nil {
				t.Fatal(err)
			}
			resource["wait_ms"], resource["duration_ms"] = 250.0, 1.235
			if len(rows[0]) != len(resource) {
				t.Errorf("%d fields, want %d", len(rows[0]), len(resource))
			}
			for name, want := range resource {
				if got := rows[0][name]; text(t, got) != text(t, want) {
					t.Errorf("%s: %s, want %s", name, text(t, got), text(t, want))
				}
			}
			if rows[1]["wait_ms"] != nil || text(t, rows[1]["tags"]) != "[]" || rows[1]["payload"] != nil {
				t.Errorf("bare job: %v", rows[1])
			}
		})
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func decode(t *testing.T, format, content string) (rows []map[string]any) {
	t.Helper()
	if format == "json" {
		if err := json.Unmarshal([]byte(content), &rows); err != nil {
			t.Fatalf("%v in %s", err, content)
		}
		return rows
	}
	for line := range strings.Lines(content) {
		var row map[string]any
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		rows = append(rows, row)
	}
	return rows
}

func TestNoJobs(t *testing.T) {
	for format, want := range map[string]string{"csv": strings.Join(defaultColumns, ",") + "\r\n", "json": "[]\n", "jsonl": ""} {
		v, _, content := run(t, newHandler(t), `{"format":"`+format+`"}`)
		if content != want || v.Records != 0 {
			t.Errorf("%s: %q, %+v", format, content, v)
		}
	}
}

func TestFilters(t *testing.T) {
	at := func(s string) jobs.Time { return handlertest.At(t, s) }
	list := []*jobs.Job{
		{Type: "email", Status: jobs.Completed, CreatedAt: at("2023-12-31T23:59:59.999999999Z"), Tags: []string{"x"}},
		{Type: "email", Status: jobs.Failed, CreatedAt: at("2024-01-01"), Tags: []string{"x", "y"}},
		{Type: "export", Status: jobs.Completed, CreatedAt: at("2024-01-15T12:00:00Z"), Tags: []string{"y"}},
		{Type: "report", Status: jobs.Pending, CreatedAt: at("2024-01-31T23:59:59Z")},
		{Type: "cleanup", Status: jobs.Cancelled, CreatedAt: at("2024-02-01")},
		{Type: "email", Status: jobs.Retrying, CreatedAt: at("2025-01-01")},
	}
	for i, j := range list {
		j.ID = handlertest.ID(i)
	}
	h := newHandler(t, list...)
	for _, c := range []struct {
		filters string
		want    []int
	}{
		{`{}`, []int{0, 1, 2, 3, 4, 5}},
		{`null`, []int{0, 1, 2, 3, 4, 5}},
		{`{"date":null,"type":null}`, []int{0, 1, 2, 3, 4, 5}},
		{`{"date":"2024"}`, []int{1, 2, 3, 4}},
		{`{"date":"2024-01"}`, []int{1, 2, 3}},
		{`{"date":"2024-01-15"}`, []int{2}},
		{`{"from":"2024-01-15"}`, []int{2, 3, 4, 5}},
		{`{"from":"2024-02"}`, []int{4, 5}},
		{`{"to":"2024-01-15"}`, []int{0, 1, 2}},
		{`{"to":"2024-01"}`, []int{0, 1, 2, 3}},
		{`{"to":"2024-01-15T12:00:00Z"}`, []int{0, 1}},
		{`{"from":"2024-01-01T01:00:00+01:00","to":"2024-01-01"}`, []int{1}},
		{`{"from":"2024-01-15T12:00:00Z","to":"2024-02-01T00:00:00Z"}`, []int{2, 3}},
		{`{"type":"email"}`, []int{0, 1, 5}},
		{`{"type":["export","report"]}`, []int{2, 3}},
		{`{"type":[]}`, []int{0, 1, 2, 3, 4, 5}},
		{`{"status":"completed"}`, []int{0, 2}},
		{`{"status":["failed","cancelled","failed"]}`, []int{1, 4}},
		{`{"tag":"x"}`, []int{0, 1}},
		{`{"tag":["x","y"],"type":"email","status":"failed","date":"2024"}`, []int{1}},
		{`{"type":"unheard-of"}`, nil},
	} {
		t.Run(c.filters, func(t *testing.T) {
			v, _, content := run(t, h, `{"columns":["id"],"filters":`+c.filters+`}`)
			var got []int
			for _, row := range readCSV(t, content)[1:] {
				got = append(got, slices.IndexFunc(list, func(j *jobs.Job) bool { return j.ID.String() == row[0] }))
			}
			if !slices.Equal(got, c.want) || v.Records != len(c.want) {
				t.Errorf("got %v (%d records), want %v", got, v.Records, c.want)
			}
		})
	}
}

func TestColumnsKeepTheirOrder(t *testing.T) {
	h := newHandler(t, full(t))
	_, _, content := run(t, h, `{"columns":["status","id","priority"]}`)
	if want := "status,id,priority\r\nfailed,00000000-0000-7000-8000-000000000001,2\r\n"; content != want {
		t.Errorf("got %q, want %q", content, want)
	}
	_, _, content = run(t, h, `{"format":"jsonl","columns":["status","priority","id"]}`)
	if want := `{"status":"failed","priority":2,"id":"00000000-0000-7000-8000-000000000001"}` + "\n"; content != want {
		t.Errorf("got %q, want %q", content, want)
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, c := range []struct {
		payload  string
		pointers []string
	}{
		{`[]`, []string{"/payload"}},
		{`7`, []string{"/payload"}},
		{`{"format":"xml","filters":{"date":"soon","status":"done"},"columns":["id","colour"],"a/b":1}`, []string{
			"/payload/format", "/payload/columns/1", "/payload/a~1b", "/payload/filters/date", "/payload/filters/status",
		}},
		{`{"format":1}`, []string{"/payload/format"}},
		{`{"format":"csv","format":"json"}`, []string{"/payload/format"}},
		{`{"filters":[]}`, []string{"/payload/filters"}},
		{`{"filters":{"date":2024}}`, []string{"/payload/filters/date"}},
		{`{"filters":{"date":"2024-13"}}`, []string{"/payload/filters/date"}},
		{`{"filters":{"date":"2024-02-30"}}`, []string{"/payload/filters/date"}},
		{`{"filters":{"date":"9999"}}`, []string{"/payload/filters/date"}},
		{`{"filters":{"date":"2024","from":"2023"}}`, []string{"/payload/filters/date"}},
		{`{"filters":{"from":"2024","to":"2023"}}`, []string{"/payload/filters/to"}},
		{`{"filters":{"from":"yesterday","to":5}}`, []string{"/payload/filters/from", "/payload/filters/to"}},
		{`{"filters":{"status":["done","failed",3]}}`, []string{"/payload/filters/status/0", "/payload/filters/status/2"}},
		{`{"filters":{"type":"a b","tag":""}}`, []string{"/payload/filters/type", "/payload/filters/tag"}},
		{`{"filters":{"type":{"a":1},"tag":true}}`, []string{"/payload/filters/type", "/payload/filters/tag"}},
		{`{"filters":{"tags":"x"}}`, []string{"/payload/filters/tags"}},
		{`{"columns":[ ]}`, []string{"/payload/columns"}},
		{`{"columns":["id","id"]}`, []string{"/payload/columns/1"}},
		{`{"columns":[null]}`, []string{"/payload/columns/0"}},
		{`{"columns":{"id":true}}`, []string{"/payload/columns"}},
	} {
		t.Run(c.payload, func(t *testing.T) {
			h := newHandler(t)
			var e *jobs.Error
			if err := h.Check(jobs.NewPayload(json.RawMessage(c.payload))); !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			var got []string
			for _, f := range e.Fields {
				got = append(got, f.Pointer)
			}
			if !slices.Equal(got, c.pointers) || e.Kind != jobs.InvalidRequest {
				t.Errorf("got %v %v, want %v", e.Kind, got, c.pointers)
			}
			if _, err := h.Handle(t.Context(), handlertest.NewTask(t, c.payload).Task); !jobs.IsPermanent(err) {
				t.Errorf("Handle: %v, want a permanent error", err)
			}
		})
	}
	for _, payload := range []string{"", "null", " null ", "{}", `{"format":null,"filters":null,"columns":null}`, `{"format":"csv","filters":{"date":"2024-01"}}`} {
		if err := newHandler(t).Check(jobs.NewPayload(json.RawMessage(payload))); err != nil {
			t.Errorf("%s: %v", payload, err)
		}
	}
}

// rows is a history of made-up jobs that exist only while they are read.
type rows struct {
	n  int
	at func(i int) // called before each
}

func (r rows) Count(jobs.Filter) (int, error) { return r.n, nil }

func (r rows) Scan(_ context.Context, _ jobs.Filter, yield func(*jobs.Job) error) error {
	base := jobs.TimeOf(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC))
	for i := range r.n {
		if r.at != nil {
			r.at(i)
		}
		created := base.Add(time.Duration(i) * time.Second)
		j := &jobs.Job{
			ID: handlertest.ID(i), Seq: uint64(i + 1), Type: "email", Priority: 3, Status: jobs.Completed, Attempt: 1, MaxAttempts: 4,
			CreatedAt: created, StartedAt: created.Add(time.Millisecond), EndedAt: created.Add(time.Second), Tags: []string{"million"},
		}
		if err := yield(j); err != nil {
			return err
		}
	}
	return nil
}

func TestStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	seen := 0
	h := New(rows{100_000, func(i int) {
		seen = i
		if i == 5000 {
			cancel(jobs.ErrShutdown)
		}
	}})
	task := handlertest.NewTask(t, "")
	_, err := h.Handle(ctx, task.Task)
	if !errors.Is(err, jobs.ErrShutdown) || seen > 5200 {
		t.Errorf("stopped at %d with %v", seen, err)
	}
	if left, err := os.ReadDir(task.Folder); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAFailedScanIsRetried(t *testing.T) {
	broken := errors.New("broken")
	h := New(failing{broken})
	if _, err := h.Handle(t.Context(), handlertest.NewTask(t, "").Task); !errors.Is(err, broken) || jobs.IsPermanent(err) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Count(jobs.Filter) (int, error) { return 0, nil }
func (f failing) Scan(context.Context, jobs.Filter, func(*jobs.Job) error) error {
	return f.err
}

func TestManyRecordsInFlatMemory(t *testing.T) {
	const n, bound = 100_000, 3 << 19 // as much as the list of their ids would take
	for _, format := range []string{"csv", "json", "jsonl"} {
		t.Run(format, func(t *testing.T) {
			var highest uint64
			live := func() uint64 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return m.HeapAlloc
			}
			start := live()
			h := New(rows{n, func(i int) {
				if i%(n/5) == n/10 {
					highest = max(highest, live())
				}
			}})
			begun := time.Now()
			task := handlertest.NewTask(t, `{"format":"`+format+`"}`)
			res, err := h.Handle(t.Context(), task.Task)
			if err != nil {
				t.Fatal(err)
			}
			if v := res.Value.(Result); v.Records != n {
				t.Errorf("got %+v", v)
			}
			if err := task.CheckProgress(); err != nil {
				t.Error("progress is not in order")
			}
			if highest > start+bound {
				t.Errorf("the heap grew from %d to %d KiB", start>>10, highest>>10)
			}
			file, f := task.Open()
			t.Logf("%d bytes in %v, heap +%d KiB", file.Size, time.Since(begun).Round(time.Millisecond), (int64(highest)-int64(start))>>10)
			if lines := countLines(t, f); lines != n+map[string]int{"csv": 1}[format] {
				t.Errorf("%d lines", lines)
			}
		})
	}
}

func countLines(t *testing.T, f io.ReadCloser) (n int) {
	t.Helper()
	buf := make([]byte, 1<<20)
	for {
		k, err := f.Read(buf)
		n += bytes.Count(buf[:k], []byte{'\n'})
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestCSVRoundTrip reads the cells back with encoding/csv. Only the apostrophe differs,
// and CR LF within a cell, which that reader turns into LF.
func TestCSVRoundTrip(t *testing.T) {
	names := []string{"error", "message", "priority", "node", "payload"}
	for _, picked := range [][]string{names, {"error"}} {
		t.Run(strconv.Itoa(len(picked))+" columns", func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				foreign := rapid.OneOf(rapid.String(), rapid.StringMatching("[-=+@\t\r\n\"', a＝;]{0,8}"))
				var list []*jobs.Job
				enc := newCSV(options{columns: pick(picked)})
				file := bytes.NewBuffer(bytes.Clone(enc.head()))
				for range rapid.IntRange(0, 5).Draw(t, "rows") {
					j := &jobs.Job{
						Error: foreign.Draw(t, "error"), Message: foreign.Draw(t, "message"), Node: foreign.Draw(t, "node"),
						Priority: 3, Payload: jobs.AppendString(nil, foreign.Draw(t, "payload")),
					}
					list = append(list, j)
					file.Write(enc.row(j))
				}
				read := readCSV(t, file.String())
				if len(read) != len(list)+1 {
					t.Fatalf("%d rows, want %d and a header", len(read), len(list))
				}
				// A spreadsheet may split at something else, where quotes mean nothing.
				for _, cell := range strings.FieldsFunc(file.String(), func(r rune) bool { return strings.ContainsRune(";\t\r\n", r) }) {
					if first, _ := utf8.DecodeRuneInString(strings.TrimLeft(cell, ` "`)); strings.ContainsRune("=+-@＝＋－＠", first) {
						t.Fatalf("a piece of %q may be a formula: %q", file.String(), cell)
					}
				}
				for i, j := range list {
					for k, name := range picked {
						want := map[string]string{"error": j.Error, "message": j.Message, "priority": "3", "node": j.Node}[name]
						got := read[i+1][k]
						if name == "payload" {
							var is, was any
							if json.Unmarshal([]byte(got), &is) != nil || json.Unmarshal(j.Payload, &was) != nil || is != was {
								t.Fatalf("payload %q came back as %q", j.Payload, got)
							}
							continue
						}
						if first, _ := utf8.DecodeRuneInString(got); strings.ContainsRune("=+-@\t\r\n＝＋－＠", first) && got != "" {
							t.Fatalf("%s: %q may be a formula", name, got)
						}
						if want = defused(want); got != strings.ReplaceAll(want, "\r\n", "\n") {
							t.Fatalf("%s: %q came back as %q", name, want, got)
						}
					}
				}
			})
		})
	}
}

// TestForSpreadsheets has the mark by which Excel recognizes UTF-8, and times that it
// reads.
func TestForSpreadsheets(t *testing.T) {
	j := full(t)
	j.CreatedAt = handlertest.At(t, "2026-06-30T22:30:00.5Z")
	j.Error = "a;=1+1"
	j.Payload = json.RawMessage(`{"a":"x; \"=1+1","b":"c;-2"}`)
	h := newHandler(t, j)
	_, _, content := run(t, h, `{"columns":["created_at","error","payload"],"bom":true,"timezone":"Europe/Berlin","filters":{"date":"2026-07-01"}}`)
	if want := "\uFEFFcreated_at,error,payload\r\n2026-07-01 00:30:00,a;'=1+1," + `"{""a"":""x; \""\u003d1+1"",""b"":""c;\u002d2""}"` + "\r\n"; content != want {
		t.Errorf("%q\nnot\n%q", content, want)
	}
	_, _, content = run(t, h, `{"format":"jsonl","columns":["created_at"],"timezone":"Europe/Berlin","filters":{"from":"2026-07-01","to":"2026-07-01"}}`)
	if content != `{"created_at":"2026-07-01T00:30:00.5+02:00"}`+"\n" {
		t.Error(content)
	}
	_, _, content = run(t, h, `{"format":"jsonl","columns":["created_at"],"filters":{"date":"2026-07-01"}}`)
	if content != "" {
		t.Errorf("in UTC it is still June: %s", content)
	}
	for payload, says := range map[string]string{
		`{"timezone":"Local"}`: "/payload/timezone: must be the IANA name", `{"bom":true,"format":"json"}`: "/payload/bom: goes with", `{"bom":1}`: "/payload/bom: must be true or false",
	} {
		if err := h.Check(jobs.NewPayload(json.RawMessage(payload))); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", payload, err)
		}
	}
}

func TestWhatIsNotUTF8IsMended(t *testing.T) {
	j := full(t)
	j.Error, j.Payload, j.Result = "a\xffb", json.RawMessage("\"\xff\""), json.RawMessage("not JSON")
	for _, format := range []string{"csv", "json", "jsonl"} {
		_, _, content := run(t, newHandler(t, j), `{"format":"`+format+`","columns":["error","payload","result"]}`)
		if !utf8.ValidString(content) || !strings.Contains(content, "a\uFFFDb") && !strings.Contains(content, `a\ufffdb`) {
			t.Errorf("%s: %q", format, content)
		}
		if format != "csv" {
			decode(t, format, content)
		}
	}
}

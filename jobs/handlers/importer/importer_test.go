package importer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/handlers/importer"
	"jobstream/jobs/handlers/internal/handlertest"
	"jobstream/jobs/jobstest"
)

// queue takes submissions as the real one does: an id is one job, a token one batch.
type queue struct {
	mu      sync.Mutex
	order   []jobs.ID
	jobs    map[jobs.ID]*jobs.Submission
	tokens  map[[16]byte][]jobs.ID
	sizes   []int
	room    int                  // for more jobs; below 0 = any number
	fail    func(n int) error    // of the n-th batch, before it is taken; may be nil
	after   func(n int) error    // likewise, when it has been taken
	refuses func(p string) error // of a payload
}

func newQueue() *queue {
	return &queue{jobs: map[jobs.ID]*jobs.Submission{}, tokens: map[[16]byte][]jobs.ID{}, room: -1}
}

func (q *queue) Check(s *jobs.Submission) error {
	if q.refuses == nil {
		return nil
	}
	return q.refuses(string(s.Payload))
}

func (q *queue) SubmitBatch(ctx context.Context, subs []*jobs.Submission, token *jobs.Token) (made []*jobs.Job, replayed bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	q.sizes = append(q.sizes, len(subs))
	if q.fail != nil {
		if err := q.fail(len(q.sizes)); err != nil {
			return nil, false, err
		}
	}
	ids, replayed := q.tokens[token.Key]
	if !replayed {
		if q.room >= 0 && len(subs) > q.room {
			return nil, false, &jobs.Error{Kind: jobs.QueueFull, Detail: "the queue is full"}
		}
		for _, s := range subs {
			if q.jobs[s.ID] == nil {
				q.jobs[s.ID] = s
				q.order = append(q.order, s.ID)
				q.room--
			}
			ids = append(ids, s.ID)
		}
		q.tokens[token.Key] = ids
	}
	for _, id := range ids {
		made = append(made, &jobs.Job{ID: id})
	}
	if q.after != nil {
		err = q.after(len(q.sizes))
	}
	return made, replayed, err
}

// payloads are the payloads of the jobs in order.
func (q *queue) payloads() (all []string) {
	for _, id := range q.order {
		all = append(all, string(q.jobs[id].Payload))
	}
	return all
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRows: every row becomes a job with the payload that the import describes, and what
// can be none is listed with its line and the reason.
func TestRows(t *testing.T) {
	t.Parallel()
	refused := func(p string) error {
		if strings.Contains(p, "bad") {
			return jobs.InvalidFields(jobs.FieldError{Pointer: "/payload/a", Detail: "is bad"}, jobs.FieldError{Pointer: "/payload/b", Detail: "is worse"})
		}
		return nil
	}
	for name, tt := range map[string]struct {
		payload, file, content string
		jobs                   []string
		refused                string // line and reason of each
		report                 string
		err                    string
	}{
		"csv": {
			payload: `{"type":"t"}`, file: "a.csv", content: "a,b\n1,\"x, \"\"y\"\"\nz\"\n\n2,ä\n",
			jobs: []string{`{"a":"1","b":"x, \"y\"\nz"}`, `{"a":"2","b":"ä"}`},
		},
		"csv with everything": {
			payload: `{"type":"t","payload":{"to":"{{.row.a}}","n":"{{.row.n}}","text":"no {{.row.n}}: {{index .row \"first name\"}}","who":"{{index .row \"first name\"}}","list":["{{.row.flag}}",null,1.50],"same":"<&>","all":"{{.row}}"},"columns":{"n":"number","flag":"bool","more":"json"}}`,
			file:    "a.csv", content: "\xef\xbb\xbfa;n;first name;flag;more\r\nx@y;1.20;Ann;yes;\"{\"\"k\"\":[1]}\"\r\nb;;Bob;0;\r\nc;12a;C;1;\r\nd;1;D;maybe;\r\ne;1;E;1;{\r\n",
			err: `"delimiter": ";"`,
		},
		"csv with a delimiter": {
			payload: `{"type":"t","delimiter":";","payload":{"to":"{{.row.a}}","n":"{{.row.n}}","text":"no {{.row.n}}: {{index .row \"first name\"}}","who":"{{index .row \"first name\"}}","list":["{{.row.flag}}",null,1.50],"same":"<&>","more":"{{.row.more}}"},"columns":{"n":"number","flag":"bool","more":"json"}}`,
			file:    "a.csv", content: "\xef\xbb\xbfa;n;first name;flag;more\r\nx@y;1.20;Ann;yes;\"{\"\"k\"\":[1]}\"\r\nb;;Bob;0;\r\nc;12a;C;1;\r\nd;1;D;maybe;\r\ne;1;E;1;{\r\nf;2;<F>;FALSE;\r\n",
			jobs: []string{
				`{"to":"x@y","n":1.20,"text":"no 1.20: Ann","who":"Ann","list":[true,null,1.50],"same":"<&>","more":{"k":[1]}}`,
				`{"to":"f","n":2,"text":"no 2: <F>","who":"<F>","list":[false,null,1.50],"same":"<&>","more":null}`,
			},
			refused: `3 /row/n: must be a string, a number, true or false, not null; 4 column "n" is not a number: "12a"; 5 column "flag" is not true or false: "maybe"; 6 column "more" is not JSON: "{"`,
			report:  "a;n;first name;flag;more;line;reason\nb;;Bob;0;;3;/row/n: must be a string, a number, true or false, not null\nc;12a;C;1;;4;\"column \"\"n\"\" is not a number: \"\"12a\"\"\"\nd;1;D;maybe;;5;\"column \"\"flag\"\" is not true or false: \"\"maybe\"\"\"\ne;1;E;1;{;6;\"column \"\"more\"\" is not JSON: \"\"{\"\"\"\n",
		},
		"csv with mistakes": {
			payload: `{"type":"t"}`, file: "a.csv", content: "a,b\n1\n1,2,3\nx\"y,2\n\"x\"y,2\nbad,2\n\xff,2\nok,2\n\"open,2\nmore\n",
			jobs:    []string{`{"a":"ok","b":"2"}`},
			refused: `2 has 1 cells, the header has 2; 3 has 3 cells, the header has 2; 4 bare " in non-quoted-field; 5 extraneous or missing " in quoted-field; 6 /payload/a: is bad; /payload/b: is worse; 7 column "a" is not UTF-8: "\xff"; 9 extraneous or missing " in quoted-field, in line 10: the quote is open to the end of the file, and nothing behind it was read`,
		},
		"csv without names": {
			payload: `{"type":"t","header":["a","","c"]}`, file: "a.csv", content: "1,2,3\n4,5,6",
			jobs: []string{`{"a":"1","c":"3"}`, `{"a":"4","c":"6"}`},
		},
		"tabs":       {payload: `{"type":"t","delimiter":"\t","format":"csv"}`, file: "x", content: "a\tb\n1\t2\n", jobs: []string{`{"a":"1","b":"2"}`}},
		"only names": {payload: `{"type":"t"}`, file: "a.csv", content: "a,b\n"},
		"jsonl": {
			payload: `{"type":"t","payload":{"id":"{{.row.id}}","s":"{{.row.id}}!","d":"{{.row.x | default \"none\"}}"}}`, file: "a.ndjson",
			content: "{\"id\":12345678901234567890}\r\n\n {\"id\":\"b\",\"x\":\"y\"} \n{\"x\":1}\n[1]\n{\"id\":{}}\n{\"id\":1}",
			jobs:    []string{`{"id":12345678901234567890,"s":"12345678901234567890!","d":"none"}`, `{"id":"b","s":"b!","d":"y"}`, `{"id":1,"s":"1!","d":"none"}`},
			refused: `4 /row/id: is required; 5 /row: must be an object with "id"; 6 /row/id: must be a string, a number, true or false, not an object`,
			report:  "{\"line\":4,\"reason\":\"/row/id: is required\",\"row\":{\"x\":1}}\n{\"line\":5,\"reason\":\"/row: must be an object with \\\"id\\\"\",\"row\":[1]}\n{\"line\":6,\"reason\":\"/row/id: must be a string, a number, true or false, not an object\",\"row\":{\"id\":{}}}\n",
		},
		"jsonl as it is": {
			payload: `{"type":"t"}`, file: "a.jsonl", content: "\xef\xbb\xbf{ \"a\" : 1.0 }\n\"text\"\nnull\nnope\n{\"a\":1}{}\n\xff\n",
			jobs:    []string{`{ "a" : 1.0 }`, `"text"`, `null`},
			refused: `4 the line is not JSON: invalid character 'o' in literal null (expecting 'u') (at byte 2); 5 the line is not JSON: invalid character '{' after top-level value (at byte 8); 6 the line is not UTF-8`,
			report:  "{\"line\":4,\"reason\":\"the line is not JSON: invalid character 'o' in literal null (expecting 'u') (at byte 2)\",\"text\":\"nope\\n\"}\n{\"line\":5,\"reason\":\"the line is not JSON: invalid character '{' after top-level value (at byte 8)\",\"text\":\"{\\\"a\\\":1}{}\\n\"}\n{\"line\":6,\"reason\":\"the line is not UTF-8\",\"text\":\"�\\n\"}\n",
		},
		"a long line": {
			payload: `{"type":"t"}`, file: "a.jsonl", content: "1\n" + strings.Repeat("2", 5<<20) + "\n3\n", jobs: []string{"1", "3"},
			refused: "2 the line is longer than 4194304 bytes",
		},
		"a long row":       {payload: `{"type":"t"}`, file: "a.csv", content: "a\n1\n\"" + strings.Repeat("2\n", 3<<20), err: "the row behind line 2 cannot be read: it is longer than 4194304 bytes; perhaps a quote in it is not closed"},
		"empty":            {payload: `{"type":"t"}`, file: "a.csv", content: "", err: "it is empty"},
		"empty lines":      {payload: `{"type":"t"}`, file: "a.jsonl", content: "\n\n"},
		"twice the name":   {payload: `{"type":"t"}`, file: "a.csv", content: "a,b, a\n", err: `has the name "a" twice, for the columns 1 and 3`},
		"no names":         {payload: `{"type":"t"}`, file: "a.csv", content: ",\n1,2\n", err: "has no names"},
		"utf-16":           {payload: `{"type":"t"}`, file: "a.csv", content: "\xff\xfea\x00", err: "UTF-16"},
		"latin names":      {payload: `{"type":"t"}`, file: "a.csv", content: "\xe4\n", err: "not UTF-8"},
		"carriage returns": {payload: `{"type":"t"}`, file: "a.csv", content: "a,b\r1,2\r", err: "carriage return"},
		"no such column":   {payload: `{"type":"t","columns":{"c":"number"}}`, file: "a.csv", content: "a,b\n", err: "/payload/columns/c: there is no such column; known are a, b"},
		"unknown format":   {payload: `{"type":"t"}`, file: "a.txt", content: "a,b\n", err: `add "format"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newQueue()
			q.refuses = refused
			task := handlertest.NewTask(t, tt.payload)
			task.Give("file", tt.file, "application/octet-stream", []byte(tt.content))
			res, err := importer.New(q).Handle(t.Context(), task.Task)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !jobs.IsPermanent(err) {
					t.Fatalf("the error is %v, want a permanent one with %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := q.payloads(); text(t, got) != text(t, tt.jobs) {
				t.Errorf("the jobs are\n%q\nnot\n%q", got, tt.jobs)
			}
			r := res.Value.(importer.Result)
			var reasons []string
			for _, f := range r.Refusals {
				reasons = append(reasons, fmt.Sprintf("%d %s", f.Line, f.Reason))
			}
			if got := strings.Join(reasons, "; "); got != tt.refused {
				t.Errorf("refused is\n%s\nnot\n%s", got, tt.refused)
			}
			if r.Submitted != len(tt.jobs) || r.Rows != r.Submitted+r.Refused || r.Refused != len(r.Refusals) {
				t.Errorf("the result is %+v", r)
			}
			if tt.report != "" {
				_, f := task.Open()
				b, err := io.ReadAll(f)
				if err != nil || string(b) != tt.report {
					t.Errorf("the report is %v\n%q\nnot\n%q", err, b, tt.report)
				}
				_ = f.Close()
			} else if r.Refused == 0 && len(task.End()) > 0 {
				t.Error("there is a report on nothing")
			}
			if err := task.CheckProgress(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPayloads: the door refuses what cannot be an import, and names it.
func TestPayloads(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ payload, err string }{
		{`{"type":"t","payload":{"a":["{{.row.x}}"]},"priority":1,"tags":["a"],"retry_count":0,"timeout":5,"format":"csv","delimiter":";","header":["a"],"columns":{"a":"bool"}}`, ""},
		{`{"type":"t","payload":5}`, ""},
		{``, "invalid_request /payload/type"},
		{`{}`, "invalid_request /payload/type"},
		{`{"type":"t","more":1}`, "invalid_request /payload/more"},
		{`{"type":"t","payload":{"a":["{{.row.x"]}}`, "invalid_request /payload/payload/a/0"},
		{`{"type":"t","payload":{"a":"{{.payload.x}}","b":"{{.rows.x}}"}}`, "invalid_request /payload/payload/a /payload/payload/b"},
		{`{"type":"t","format":"xml"}`, "invalid_request /payload/format"},
		{`{"type":"t","delimiter":"ab"}`, "invalid_request /payload/delimiter"},
		{`{"type":"t","delimiter":"\""}`, "invalid_request /payload/delimiter"},
		{`{"type":"t","header":["a","a"]}`, "invalid_request /payload/header"},
		{`{"type":"t","header":[]}`, "invalid_request /payload/header"},
		{`{"type":"t","columns":{"a":"date"}}`, "invalid_request /payload/columns/a"},
		{`{"type":"t","format":"jsonl","delimiter":",","columns":{}}`, "invalid_request /payload/delimiter /payload/columns"},
		{`{"type":"t","priority":9}`, "invalid_request /payload/priority"},
	} {
		err := importer.New(nil).Check(jobs.NewPayload(json.RawMessage(tt.payload)))
		if got := jobstest.Failure(t, err); got != tt.err {
			t.Errorf("%s: %q (%v), want %q", tt.payload, got, err, tt.err)
		}
	}
}

// TestQueueFull: an import submits as much as there is room for, and is put off meanwhile.
// That uses up no attempt.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	q := newQueue()
	q.room = 700
	task := handlertest.NewTask(t, `{"type":"t"}`)
	task.Give("file", "a.jsonl", "", []byte(numbers(1000)))
	_, err := importer.New(q).Handle(t.Context(), task.Task)
	if _, reason, ok := jobs.SnoozeOf(err); !ok || !strings.Contains(reason, "700 of 700 rows submitted; the queue is full") {
		t.Fatalf("%v, and the batches %v", err, q.sizes)
	}
	if len(q.order) != 700 {
		t.Fatalf("%d jobs are in, of 700", len(q.order))
	}
	q.room = -1
	again(t, task)
	res, err := importer.New(q).Handle(t.Context(), task.Task)
	if err != nil {
		t.Fatal(err)
	}
	if r := res.Value.(importer.Result); r.Rows != 1000 || r.Submitted != 1000 || len(q.order) != 1000 {
		t.Errorf("%+v, %d jobs", r, len(q.order))
	}
}

func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

// again begins another attempt of a task, with the checkpoint that the one before has left.
func again(t *testing.T, task *handlertest.Task) {
	t.Helper()
	j := *task.Job
	j.Checkpoint = task.NextCheckpoint()
	task.Task = jobs.NewTask(&j, 1, task)
}

// TestInterrupted: whatever interrupts an import, and however old the checkpoint is that
// survives, each row becomes one job in the end, and the report is whole.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	const rows = 5000
	var content strings.Builder
	content.WriteString("n,text\n")
	want := 0
	for i := range rows {
		switch rnd.IntN(20) {
		case 0:
			fmt.Fprintf(&content, "%d,bad\n", i)
		case 1:
			fmt.Fprintf(&content, "%d\n\n", i)
		default:
			fmt.Fprintf(&content, "%d,\"%s\"\n", i, strings.Repeat("x\n", rnd.IntN(3)))
			want++
		}
	}
	q := newQueue()
	q.refuses = func(p string) error {
		if strings.Contains(p, "bad") {
			return jobs.Invalid("/payload/text", "is bad")
		}
		return nil
	}
	died := errors.New("died")
	task := handlertest.NewTask(t, `{"type":"t"}`)
	task.Give("file", "a.csv", "text/csv", []byte(content.String()))
	old := task.Job.Checkpoint
	for attempt := 0; ; attempt++ {
		switch rnd.IntN(4) {
		case 0:
			q.room = rnd.IntN(800) // it is put off
		case 1:
			q.room = -1
			at := len(q.sizes) + 1 + rnd.IntN(4)
			q.after = func(n int) error { // the answer gets lost
				if n >= at {
					return died
				}
				return nil
			}
		case 2:
			q.room = -1
			at := len(q.sizes) + 1 + rnd.IntN(4)
			q.fail = func(n int) error {
				if n >= at {
					return died
				}
				return nil
			}
		default:
			q.room = -1
		}
		res, err := importer.New(q).Handle(t.Context(), task.Task)
		q.fail, q.after = nil, nil
		if err == nil {
			if r := res.Value.(importer.Result); r.Rows != rows || r.Submitted != want || len(q.order) != want || r.Refused != rows-want {
				t.Fatalf("after %d attempts %+v, %d jobs, want %d", attempt, r, len(q.order), want)
			}
			break
		}
		if rnd.IntN(3) == 0 { // a crash: the checkpoint is that of an earlier moment
			j := *task.Job
			j.Checkpoint = old
			task.Task = jobs.NewTask(&j, 1, task)
			if rnd.IntN(2) == 0 {
				clear(q.tokens) // a day has passed
			}
			continue
		}
		old = task.Job.Checkpoint
		again(t, task)
	}
	_, f := task.Open()
	defer f.Close() //nolint:errcheck // opened for reading only
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(b), "is bad") + strings.Count(string(b), "has 1 cells"); got != rows-want {
		t.Errorf("the report has %d rows, want %d", got, rows-want)
	}
}

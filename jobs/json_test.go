package jobs_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// anyText draws a string with all that can go wrong in JSON.
func anyText(t *rapid.T, label string) string {
	return rapid.OneOf(
		rapid.Just(""), rapid.StringN(0, 20, -1),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 12), func(b []byte) string { return string(b) }),
		rapid.SampledFrom([]string{"\"", "\\", "\x00\x1f\x7f", "</script>", "\u2028", "\xff\xfe", "é\xc3", "\ud7ff😀", "\r\n\t\b\f"}),
	).Draw(t, label)
}

// anyJob draws a record; its parts need not fit each other.
func anyJob(t *rapid.T) *jobs.Job {
	j := &jobs.Job{}
	jobstest.Draw(t, jobs.JobFields, j)
	jobstest.Set(t, "id", &j.ID)
	jobstest.Set(t, "seq", &j.Seq)
	jobstest.Set(t, "status", &j.Status)
	jobstest.Set(t, "priority", (*uint8)(&j.Priority))
	if rapid.Bool().Draw(t, "odd texts") {
		for _, s := range []*string{&j.Type, &j.Message, &j.Error, &j.Node} {
			*s = anyText(t, "text")
		}
	}
	return j
}

// clean is how text comes back from JSON: each byte that is not UTF-8 is a
// replacement character.
func clean(s string) string { return string([]rune(s)) }

// told is j without what its resource does not tell, with its texts clean.
func told(j *jobs.Job) *jobs.Job {
	c := j.Clone()
	c.Key, c.Run, c.Failures, c.History = j.Seq, max(j.Run, 1), 0, nil
	c.Place, c.Slot, c.Unlisted, c.Checkpoint = 0, false, false, nil
	for _, s := range []*string{&c.Type, &c.Message, &c.Error, &c.Node} {
		*s = clean(*s)
	}
	t := jobs.Terms{}
	if j.Terms != nil {
		t = *j.Terms
	}
	switch {
	case !j.Status.Ended(): // the submission's is not told once it has passed
		if j.DueAt == 0 {
			c.DueAt = t.RunAt
		}
		t.RunAt = 0
	case j.DueAt != 0: // no ended job has one
		t.RunAt, c.DueAt = j.DueAt, 0
	}
	if c.Terms = &t; jobs.AllZero(jobs.TermsFields, &t) {
		c.Terms = nil
	}
	return c
}

// Every attribute that the resource shows comes back, and one that is added.
func TestResourceIsJSONAndComesBack(t *testing.T) {
	of := jobstest.Extra(t, &jobs.TermsFields)
	rapid.Check(t, func(t *rapid.T) {
		j := anyJob(t)
		b := j.AppendJSON([]byte("x"))[1:]
		if !json.Valid(b) || !utf8.Valid(b) {
			t.Fatalf("not JSON: %q", b)
		}
		var back jobs.Job
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		if got, want := told(&back), told(j); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\ngives\n%+v %+v\nnot\n%+v %+v", b, got, got.Terms, want, want.Terms)
		}
		if j.Terms != nil && *of(j.Terms) != "" && *of(back.Terms) != *of(j.Terms) {
			t.Fatalf("the added attribute is lost: %s", b)
		}
		back.Unlisted = j.Unlisted // the tracker sets it again
		if again := back.AppendJSON(nil); string(again) != string(b) {
			t.Fatalf("written again:\n%s\n%s", again, b)
		}
	})
}

func TestEventsAreJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := anyJob(t)
		b := j.AppendEventsJSON(nil, 0, jobs.MaxHistory)
		var got struct {
			Events []struct {
				Seq      int
				Kind     string
				At       *time.Time
				Attempt  int
				Progress int
				Message  string
				Error    string
				RunAt    *time.Time `json:"run_at"`
				Node     string
			}
		}
		if err := json.Unmarshal(b, &got); err != nil || !utf8.Valid(b) {
			t.Fatalf("%v: %q", err, b)
		}
		if got.Events == nil || len(got.Events) != len(j.History) {
			t.Fatalf("%d events, want %d: %s", len(got.Events), len(j.History), b)
		}
		for i, h := range j.History {
			e := got.Events[i]
			text := e.Error
			if h.Kind == jobs.KindSnoozed {
				text = e.Message
			}
			if h.Kind == jobs.KindProgress {
				text = e.Message
				if e.Progress != h.Progress {
					t.Fatalf("progress %d, want %d", e.Progress, h.Progress)
				}
			}
			if e.Seq != i+1 || e.Kind != h.Kind.String() || e.Attempt != h.Attempt || text != clean(h.Text) || e.Node != clean(h.Node) ||
				(e.At != nil) != (h.At != 0) || e.At != nil && jobs.TimeOf(*e.At) != h.At || (e.RunAt != nil) != (h.Due != 0) {
				t.Fatalf("event %d is %+v, want %+v", i, e, h)
			}
		}
	})
}

func TestAppendString(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyText(t, "text")
		b := jobs.AppendString(nil, s)
		var back string
		if err := json.Unmarshal(b, &back); err != nil || back != clean(s) || !utf8.Valid(b) {
			t.Fatalf("%q is written as %q, read as %q (%v)", s, b, back, err)
		}
	})
}

func TestResourceShape(t *testing.T) {
	j := apply(submitted(), event(jobs.KindRetrying, 1, 2e9, 1e9))
	const want = `{"id":"018bcfe5-6800-7aec-9cfb-8c7c6371ddf1","seq":7,"type":"email","priority":2,"status":"retrying","progress":0,"message":"",` +
		`"attempt":1,"max_attempts":4,"timeout":5,"payload":{"to":"a@b.c"},"result":null,"error":"error of attempt 1",` +
		`"errors":[{"attempt":1,"error":"error of attempt 1","at":"2023-11-14T22:13:22Z"}],"tags":["x"],"node":"n1",` +
		`"created_at":"2023-11-14T22:13:20Z","updated_at":"2023-11-14T22:13:22Z","run_at":"2023-11-14T22:13:22.000001Z",` +
		`"started_at":"2023-11-14T22:13:21Z","ended_at":null}`
	if got := string(j.AppendJSON(nil)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestEndedJobComesBackWhole: a lost tracker takes ended jobs from their
// notifications.
func TestEndedJobComesBackWhole(t *testing.T) {
	j := apply(submitted(), event(jobs.KindRetrying, 1, 20, 10), event(jobs.KindFailed, 2, 40, 30))
	var back jobs.Job
	if err := json.Unmarshal(j.AppendJSON(nil), &back); err != nil {
		t.Fatal(err)
	}
	if back.Status != jobs.Failed || back.Failures != 2 || back.Attempt != 2 || jobstest.Kinds(&back) != "submitted retrying started failed" {
		t.Errorf("got %s, history %s", jobstest.Brief(&back), jobstest.Kinds(&back))
	}
}

func TestUnmarshalRefusesWhatIsNoJob(t *testing.T) {
	good := string(submitted().AppendJSON(nil))
	if err := json.Unmarshal([]byte(good), new(jobs.Job)); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`"pending"`, `"sleeping"`},
		{`"pending"`, `""`},
		{`"priority":2`, `"priority":0`},
		{`"priority":2`, `"priority":6`},
		{`"seq":7`, `"seq":0`},
		{`018bcfe5-6800-7aec-9cfb-8c7c6371ddf1`, `00000000-0000-0000-0000-000000000000`},
		{`018bcfe5`, `x`},
		{`"attempt":0`, `"attempt":"0"`},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Fatalf("%s is not in %s", change[0], good)
		}
		if err := json.Unmarshal([]byte(bad), new(jobs.Job)); err == nil {
			t.Errorf("taken: %s", bad)
		}
	}
}

// A resource that is too large loses its largest members in turn, and names them; the
// rest stays.
func TestAppendFitting(t *testing.T) {
	j := &jobs.Job{
		ID: jobs.NewID(), Type: "email", Priority: 3, Status: jobs.Failed, Seq: 1, Error: "e",
		Payload: json.RawMessage(`"` + strings.Repeat("p", 3000) + `"`), Result: json.RawMessage(`"` + strings.Repeat("r", 2000) + `"`),
		Errors: []jobs.AttemptError{{Attempt: 1, Error: "e"}},
	}
	for most, want := range map[int]string{10_000: "", 4000: "payload", 1500: "payload,result,errors", 1: "payload,result,errors"} {
		out, omitted := j.AppendFitting([]byte("before"), nil, most)
		var got jobs.Job
		if err := json.Unmarshal(out[len("before"):], &got); err != nil {
			t.Fatal(err)
		}
		if omitted != want || (got.Payload == nil) != strings.Contains(want, "payload") || (got.Result == nil) != strings.Contains(want, "result") ||
			(len(got.Errors) == 0) != strings.Contains(want, "errors") || got.ID != j.ID || got.Error != "e" {
			t.Errorf("in %d bytes: left out %q, want %q: %d bytes", most, omitted, want, len(out))
		}
		if most > 1 && len(out) > most+len("before") {
			t.Errorf("%d bytes, want at most %d", len(out), most)
		}
	}
	if j.Payload == nil || j.Result == nil || j.Errors == nil {
		t.Error("the job itself was changed")
	}
}

func BenchmarkResource(b *testing.B) {
	j := submitted()
	raw := j.AppendJSON(nil)
	b.ReportAllocs()
	for b.Loop() {
		raw = j.AppendJSON(raw[:0])
	}
}

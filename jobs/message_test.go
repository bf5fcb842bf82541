package jobs_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

func TestDerivedID(t *testing.T) {
	at := jobs.TimeOf(time.Date(2024, 1, 15, 8, 0, 0, 123456789, time.UTC))
	if a, b := jobs.DerivedID(42, at), jobs.DerivedID(42, at); a != b {
		t.Errorf("two ids of one message: %s, %s", a, b)
	}
	// fixed for good: a rebuild by a later version must find the same ids
	if got, want := jobs.DerivedID(42, at).String(), "018d0c22-707b-70f8-8275-0e4dd978df74"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	seen := make(map[jobs.ID]bool)
	for seq := range uint64(2000) {
		for _, at := range []jobs.Time{at, at + 1} {
			id := jobs.DerivedID(seq, at)
			if seen[id] {
				t.Fatalf("%s is given twice", id)
			}
			seen[id] = true
			if id.Version() != 7 || id.Variant() != 1 {
				t.Fatalf("%s has version %d and variant %s", id, id.Version(), id.Variant())
			}
			back, err := jobs.ParseID(id.String())
			if err != nil || back != id {
				t.Fatalf("%s is read back as %s, %v", id, back, err)
			}
			if sec, nsec := id.Time().UnixTime(); sec != at.Std().Unix() || nsec/1e6 != 123 {
				t.Fatalf("%s has the time %d s %d ns", id, sec, nsec)
			}
		}
	}
}

func TestParseID(t *testing.T) {
	id := jobs.NewID()
	for text, ok := range map[string]bool{
		id.String():                              true,
		strings.ToUpper(id.String()):             true,
		"{" + id.String() + "}":                  false,
		"urn:uuid:" + id.String():                false,
		id.String()[:35]:                         false,
		strings.Repeat("x", 36):                  false,
		strings.ReplaceAll(id.String(), "-", ""): false,
		"":                                       false,
	} {
		if got, err := jobs.ParseID(text); (err == nil) != ok || ok && got != id {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}

func TestNewJob(t *testing.T) {
	email := &jobs.Type{Name: "email", RetryCount: 3, Handler: jobstest.Picky{HandlerFunc: jobstest.Nothing}}
	plain := &jobs.Type{Name: "plain", RetryCount: 1, Handler: jobstest.Nothing}
	good := json.RawMessage(`{"to":"a@b.c"}`)
	tests := []struct {
		name    string
		message jobs.Message
		typ     *jobs.Type
		checked bool
		max     int    // attempts
		problem string // a part of the error; "" = it is a job
	}{
		{name: "good", message: jobs.Message{Payload: good, RetryCount: -1}, typ: email, max: 4},
		{name: "its own retries", message: jobs.Message{Payload: good, RetryCount: 7}, typ: email, max: 8},
		{name: "no retries", message: jobs.Message{Payload: good}, typ: email, max: 1},
		{name: "no payload", message: jobs.Message{RetryCount: -1}, typ: plain, max: 2},
		{name: "checked at the door", message: jobs.Message{Payload: json.RawMessage(`{}`), RetryCount: -1}, typ: email, checked: true, max: 4},
		{name: "unknown type", message: jobs.Message{Type: "nope", RetryCount: -1}, max: 1, problem: `unknown job type "nope"`},
		{name: "unknown type, checked", message: jobs.Message{Type: "nope"}, checked: true, max: 1, problem: "unknown job type"},
		{name: "binary type", message: jobs.Message{Type: "\xff\x00"}, max: 1, problem: "unknown job type"},
		{name: "bad payload", message: jobs.Message{Payload: json.RawMessage(`{}`)}, typ: email, max: 1, problem: "/payload/to: is required"},
		{name: "no payload where one is needed", message: jobs.Message{}, typ: email, max: 1, problem: "is required"},
		{name: "not JSON", message: jobs.Message{Payload: json.RawMessage(`hello`)}, typ: plain, max: 1, problem: "not JSON"},
		{name: "spaces", message: jobs.Message{Payload: json.RawMessage("  \n")}, typ: plain, max: 1, problem: "not JSON"},
		{name: "half", message: jobs.Message{Payload: json.RawMessage(`{"to":`)}, typ: plain, max: 1, problem: "not JSON"},
		{name: "binary", message: jobs.Message{Payload: json.RawMessage("\x00\x01\xfe\xff\"\\")}, typ: plain, max: 1, problem: "not JSON"},
		{name: "a string that is not UTF-8", message: jobs.Message{Payload: json.RawMessage("{\"to\":\"\xff\xfe\"}")}, typ: plain, max: 1, problem: "not JSON"},
		{name: "a problem of its own", message: jobs.Message{Payload: good, Problem: "header Job-Timeout: bad\x00\xff"}, typ: email, max: 1, problem: "header Job-Timeout"},
		{name: "a problem and a broken payload", message: jobs.Message{Payload: json.RawMessage("\xff"), Problem: "subject"}, max: 1, problem: "subject"},
		{name: "binary tags", message: jobs.Message{Payload: json.RawMessage("1"), Tags: []string{"\xff", "\n"}, Problem: "header Job-Tags"}, max: 1, problem: "header"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.message
			m.Seq, m.At, m.ID, m.Priority = 9, born, jobs.DerivedID(9, born), 4
			if m.Type == "" && tt.typ != nil {
				m.Type = tt.typ.Name
			}
			j := jobs.NewJob(&m, tt.typ, tt.checked)
			if j.ID != m.ID || j.Key != 9 || j.Seq != 9 || j.Priority != 4 || j.CreatedAt != born || j.UpdatedAt != born || j.Run != 1 || j.MaxAttempts != tt.max || j.Attempt != 0 {
				t.Errorf("got %+v", j)
			}
			if tt.problem == "" {
				if j.Status != jobs.Pending || j.Error != "" || j.EndedAt != 0 || jobstest.Kinds(j) != "submitted" {
					t.Errorf("got %s %q, history %s", j.Status, j.Error, jobstest.Kinds(j))
				}
			} else if j.Status != jobs.Failed || !strings.Contains(j.Error, tt.problem) || j.EndedAt != born || len(j.Errors) != 1 || jobstest.Kinds(j) != "submitted failed" {
				t.Errorf("got %s %q, history %s", j.Status, j.Error, jobstest.Kinds(j))
			}
			for _, b := range [][]byte{j.AppendJSON(nil), j.AppendEventsJSON(nil, 0, jobs.MaxHistory)} {
				if !json.Valid(b) || !utf8.Valid(b) {
					t.Errorf("the resource is not JSON: %q", b)
				}
			}
			var back jobs.Job
			if err := json.Unmarshal(j.AppendJSON(nil), &back); err != nil || back.Status != j.Status || back.ID != j.ID {
				t.Errorf("read back: %v, %+v", err, back)
			}
		})
	}
}

func TestRejectedPayloadIsKeptAsText(t *testing.T) {
	j := jobs.NewJob(&jobs.Message{Seq: 1, At: born, ID: jobs.NewID(), Type: "x", Priority: 3, Payload: json.RawMessage("to=me")}, nil, false)
	if string(j.Payload) != `"to=me"` {
		t.Errorf("got %s", j.Payload)
	}
}

// A payload that is not JSON is kept short, and so is a reason that quotes it.
// Otherwise both would grow every list.
func TestRefusedIsKeptShort(t *testing.T) {
	long := strings.Repeat("\x01", 1<<20)
	j := jobs.NewJob(&jobs.Message{ID: jobs.NewID(), Seq: 1, At: 1, Type: "email", Priority: 3, Payload: []byte(long)}, nil, false)
	var kept string
	if err := json.Unmarshal(j.Payload, &kept); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("… (1048576 bytes, SHA-256 %x)", sha256.Sum256([]byte(long)))
	if !strings.HasPrefix(kept, long[:1024]) || !strings.HasSuffix(kept, want) || len(j.Payload) > 8<<10 {
		t.Errorf("%d bytes are kept, they end in %q", len(j.Payload), kept[max(0, len(kept)-100):])
	}
	j = jobs.NewJob(&jobs.Message{ID: jobs.NewID(), Seq: 1, At: 1, Type: "email", Priority: 3, Payload: []byte("to=me")}, nil, false)
	if string(j.Payload) != `"to=me"` {
		t.Errorf("a short one is %s", j.Payload)
	}
	j = jobs.NewJob(&jobs.Message{ID: jobs.NewID(), Seq: 1, At: 1, Type: "email", Priority: 3, Problem: long}, nil, false)
	if size := len(j.Error) + len(j.Errors[0].Error) + len(j.History[1].Text); size > 3*4100 {
		t.Errorf("the reason takes %d bytes", size)
	}
}

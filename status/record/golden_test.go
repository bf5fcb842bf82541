package record

import (
	"bytes"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// goldenJobs are the jobs whose records testdata/records.hex keeps, each as it was
// written by hand, before there were tables of attributes.
func goldenJobs() map[string]*jobs.Job {
	id := jobs.ID{1, 2, 3, 4, 5, 6, 0x70, 8, 0x80, 10, 11, 12, 13, 14, 15, 16}
	plain := func() *jobs.Job {
		return &jobs.Job{
			ID: id, Key: 70_000, Seq: 70_001, Type: "email", Priority: 2, Status: jobs.Retrying, Progress: 40, Message: "half",
			Run: 2, Attempt: 3, Failures: 3, MaxAttempts: 1001, Lost: 1, Timeout: 90 * time.Second,
			Payload: []byte(`{"to":"a@b.c"}`), Result: []byte(`[1]`), Error: "no route",
			Artifact: &jobs.Artifact{Name: "a.csv", ContentType: "text/csv", Size: 1 << 40, SHA256: "00ff"},
			Errors:   []jobs.AttemptError{{Attempt: 1, Error: "e1", At: 11}, {Attempt: 3, Error: "no route", At: 33}},
			Tags:     []string{"x", "ü"}, Node: "n1",
			CreatedAt: 1_700_000_000_000_000_000, UpdatedAt: 1_700_000_000_000_000_300, DueAt: 5, StartedAt: 6, EndedAt: -7,
			History: []jobs.HistoryEntry{
				{Kind: jobs.KindSubmitted, At: 1_700_000_000_000_000_000},
				{Kind: jobs.KindRetrying, At: 9, Attempt: 3, Progress: 7, Text: "no route", Node: "n1", Due: 10},
			},
		}
	}
	terms := plain()
	terms.Terms = &jobs.Terms{RunAt: 1, ExpiresAt: 2, Deadline: 3, ScheduledFor: 4, UniqueKey: "u", ConcurrencyKey: "c", Schedule: "nightly"}
	terms.Place, terms.Slot = jobs.Held, true
	unlisted := plain()
	unlisted.Artifact, unlisted.Unlisted = nil, true
	checkpoint := terms.Clone()
	checkpoint.Checkpoint = []byte(`{"at":5}`)
	large := plain()
	large.Payload = bytes.Repeat([]byte("x"), InlinePayload+1)
	return map[string]*jobs.Job{"plain": plain(), "terms": terms, "unlisted": unlisted, "checkpoint": checkpoint, "large": large}
}

func goldenBatch() *jobs.Batch {
	j := goldenJobs()["terms"]
	m := &jobs.Message{ID: j.ID, Type: "email", Priority: 4, Payload: j.Payload, Tags: j.Tags, RetryCount: -1, Timeout: time.Minute, Terms: j.Terms}
	last := &jobs.Message{ID: jobs.ID{9}, Type: "export", Priority: 1, RetryCount: 5, BatchEnd: j.ID}
	return &jobs.Batch{ID: j.ID, Messages: []*jobs.Message{m, last}}
}

// TestRecordsOfOld: what earlier versions have written is read as it was meant, and
// written the same.
func TestRecordsOfOld(t *testing.T) {
	golden, err := os.ReadFile("testdata/records.hex")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(golden)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if name == "batch" {
			want := goldenBatch()
			if got, err := DecodeBatch(want.ID, raw); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("batch: %+v, %v", got, err)
			}
			continue
		}
		want := goldenJobs()[name]
		got, apart, err := Decode(raw)
		if apart {
			got.Payload = want.Payload
		}
		if err != nil || apart != (name == "large") || !jobstest.Same(got, want) {
			t.Errorf("%s: %v\ngot  %+v %+v\nwant %+v %+v", name, err, got, got.Terms, want, want.Terms)
		}
		var g Glance
		if err := g.Read(raw); err != nil || string(g.Type) != want.ListedAs() || g.Status != want.Status || g.Ended != want.EndedAt || string(g.Error) != want.Error {
			t.Errorf("a glance at %s: %+v, %v", name, g, err)
		}
	}
}

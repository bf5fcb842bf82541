package status

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tinylib/msgp/msgp"
	"pgregory.net/rapid"

	"jobstream/jobs"
)

func drawTime(t *rapid.T, label string) jobs.Time {
	return jobs.Time(rapid.Int64().Draw(t, label))
}

func drawBytes(longest int) *rapid.Generator[[]byte] {
	return rapid.SliceOfN(rapid.Byte(), 0, longest)
}

// drawJob makes any job at all, also ones that no fold would make.
func drawJob(t *rapid.T) *jobs.Job {
	text := rapid.String()
	j := &jobs.Job{
		Key: rapid.Uint64().Draw(t, "key"), Seq: rapid.Uint64().Draw(t, "seq"), Type: text.Draw(t, "type"),
		Priority: jobs.Priority(rapid.Uint8().Draw(t, "priority")),
		Status:   jobs.Status(rapid.IntRange(1, jobs.NumStatus-1).Draw(t, "status")),
		Progress: rapid.Int().Draw(t, "progress"), Message: text.Draw(t, "message"),
		Run: rapid.Int().Draw(t, "run"), Attempt: rapid.Int().Draw(t, "attempt"),
		Failures: rapid.Int().Draw(t, "failures"), MaxAttempts: rapid.Int().Draw(t, "max"),
		Lost: rapid.Int().Draw(t, "lost"), Timeout: time.Duration(rapid.Int64().Draw(t, "timeout")),
		Payload: drawBytes(50).Draw(t, "payload"), Result: drawBytes(2000).Draw(t, "result"),
		Error: text.Draw(t, "error"), Tags: rapid.SliceOfN(text, 0, 20).Draw(t, "tags"), Node: text.Draw(t, "node"),
		CreatedAt: drawTime(t, "created"), UpdatedAt: drawTime(t, "updated"), DueAt: drawTime(t, "due"),
		StartedAt: drawTime(t, "started"), EndedAt: drawTime(t, "ended"),
	}
	copy(j.ID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
	if rapid.Bool().Draw(t, "big") {
		j.Payload = bytes.Repeat([]byte("x"), rapid.IntRange(inlinePayload-2, inlinePayload+2).Draw(t, "size"))
	}
	if rapid.Bool().Draw(t, "has artifact") {
		j.Artifact = &jobs.Artifact{
			Name: text.Draw(t, "name"), ContentType: text.Draw(t, "content type"),
			Size: rapid.Int64().Draw(t, "size"), SHA256: text.Draw(t, "sum"),
		}
	}
	if rapid.Bool().Draw(t, "has checkpoint") {
		j.Checkpoint = rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "checkpoint")
	}
	for range rapid.SampledFrom([]int{0, 1, 5, jobs.MaxErrors}).Draw(t, "errors") {
		j.Errors = append(j.Errors, jobs.AttemptError{Attempt: len(j.Errors), Error: "e", At: jobs.Time(len(j.Errors))})
	}
	for range rapid.SampledFrom([]int{0, 1, 4, jobs.MaxHistory}).Draw(t, "history") {
		j.History = append(j.History, jobs.HistoryEntry{
			Kind: jobs.Kind(len(j.History) % 10), At: jobs.Time(len(j.History)), Attempt: -len(j.History),
			Progress: len(j.History) % 101, Text: strings.Repeat("t", len(j.History)%40), Node: "n", Due: 5,
		})
	}
	return j
}

// A record gives back every field; only a large payload is left to its bucket.
func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := drawJob(t)
		raw := appendRecord([]byte("before"), j)
		raw, ok := bytes.CutPrefix(raw, []byte("before"))
		if !ok {
			t.Fatalf("appendRecord did not append")
		}
		got, apart, err := decodeRecord(raw)
		if err != nil {
			t.Fatalf("decode: %v", err)
		}
		want := *j
		if apart != (len(j.Payload) > inlinePayload) {
			t.Fatalf("a payload of %d bytes: apart = %v", len(j.Payload), apart)
		}
		if apart {
			want.Payload = nil
		}
		clear(raw) // nothing of the job may point into the record
		if !same(got, &want) {
			t.Fatalf("got  %+v\nwant %+v", got, &want)
		}
	})
}

// A later version may add fields at the end; this one passes them over.
func TestRecordTrailingFields(t *testing.T) {
	j := fullJob()
	raw := appendRecord(nil, j)
	header := len(msgp.AppendArrayHeader(nil, recordFields))
	longer := msgp.AppendArrayHeader([]byte{recordVersion}, recordFields+2)
	longer = append(longer, raw[1+header:]...)
	longer = msgp.AppendString(longer, "a new field")
	longer = msgp.AppendArrayHeader(longer, 1)
	longer = msgp.AppendInt(longer, 7)
	got, _, err := decodeRecord(longer)
	if err != nil || !same(got, j) {
		t.Fatalf("got %+v, %v; want %+v", got, err, j)
	}
}

// fullJob has something in every field.
func fullJob() *jobs.Job {
	m := message(7)
	m.Tags = []string{"a", "b"}
	m.Timeout = time.Minute
	j := jobs.NewJob(m, testTypes.Lookup("email"), true)
	for _, e := range []jobs.Event{event(jobs.KindRetrying, m, 1), event(jobs.KindProgress, m, 2), event(jobs.KindCompleted, m, 2)} {
		e.Artifact = &jobs.Artifact{Name: "a.csv", ContentType: "text/csv", Size: 12, SHA256: "00ff"}
		jobs.Apply(j, &e)
	}
	return j
}

// What is cut off is an error and never half a job.
func TestRecordTruncated(t *testing.T) {
	raw := appendRecord(nil, fullJob())
	for n := range len(raw) {
		j, _, err := decodeRecord(raw[:n:n])
		if j != nil || !errors.Is(err, errRecord) {
			t.Fatalf("%d of %d bytes gave %v, %v", n, len(raw), j, err)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	raw := appendRecord(nil, fullJob())
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Add([]byte{recordVersion})
	f.Add(msgp.AppendArrayHeader([]byte{recordVersion}, 1<<31))
	f.Add(append(msgp.AppendArrayHeader([]byte{recordVersion}, recordFields), 0xc4, 0xff))
	f.Fuzz(func(t *testing.T, raw []byte) {
		j, apart, err := decodeRecord(raw)
		if (j == nil) != (err != nil) {
			t.Fatalf("got %v and %v", j, err)
		}
		if err != nil {
			return
		}
		// What can be read can be written, and means the same.
		if apart {
			j.Payload = make([]byte, inlinePayload+1)
		} else if len(j.Payload) > inlinePayload {
			return // no writer makes these
		}
		again, _, err := decodeRecord(appendRecord(nil, j))
		if apart {
			j.Payload = nil
		}
		if err != nil || !same(again, j) {
			t.Fatalf("again: %+v, %v; first %+v", again, err, j)
		}
	})
}

// Flipped bits are noticed or give another job, but nothing panics.
func TestRecordDamaged(t *testing.T) {
	raw := appendRecord(nil, fullJob())
	for i := range raw {
		for bit := range 8 {
			broken := bytes.Clone(raw)
			broken[i] ^= 1 << bit
			if j, _, err := decodeRecord(broken); (j == nil) != (err != nil) {
				t.Fatalf("bit %d of byte %d: %v, %v", bit, i, j, err)
			}
		}
	}
}

func TestCountersRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c, got typeCounters
		for i := range c.now {
			c.now[i], c.ended[i] = rapid.Int64().Draw(t, "now"), rapid.Int64().Draw(t, "ended")
		}
		raw := c.encode()
		if err := got.decode(raw); err != nil || got != c {
			t.Fatalf("got %v, %v; want %v", got, err, c)
		}
		n := rapid.IntRange(0, len(raw)-1).Draw(t, "cut")
		if err := new(typeCounters).decode(raw[:n]); err == nil {
			t.Fatalf("%d of %d bytes were taken", n, len(raw))
		}
	})
}

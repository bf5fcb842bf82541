package status

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/tinylib/msgp/msgp"
	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// drawJob makes any job at all, also ones that no fold would make.
func drawJob(t *rapid.T) *jobs.Job {
	j := &jobs.Job{}
	jobstest.Draw(t, jobs.JobFields, j)
	if rapid.Bool().Draw(t, "odd") {
		j.Type, j.Error, j.Progress, j.EndedAt = rapid.String().Draw(t, "text"), string([]byte{0xff, 0}), -5, -1
	}
	if rapid.Bool().Draw(t, "big") {
		j.Payload = bytes.Repeat([]byte("x"), rapid.IntRange(inlinePayload-2, inlinePayload+2).Draw(t, "size"))
	}
	return j
}

// A record gives back every attribute, and one that is added; only a large payload is
// left to its bucket. Versions without the added one pass it over.
func TestRecordRoundTrip(t *testing.T) {
	known, knownTerms := jobs.JobFields, jobs.TermsFields
	ofJob, ofTerms := jobstest.Extra(t, &jobs.JobFields), jobstest.Extra(t, &jobs.TermsFields)
	ofHistory := jobstest.Extra(t, &jobs.HistoryFields)
	more, moreTerms := jobs.JobFields, jobs.TermsFields
	rapid.Check(t, func(t *rapid.T) {
		j := drawJob(t)
		raw := appendRecord([]byte("before"), j)
		raw, ok := bytes.CutPrefix(raw, []byte("before"))
		if !ok {
			t.Fatalf("appendRecord did not append")
		}
		defer func() { jobs.JobFields, jobs.TermsFields = more, moreTerms }()
		for _, later := range []bool{true, false} {
			if !later {
				jobs.JobFields, jobs.TermsFields = known, knownTerms
			}
			got, apart, err := decodeRecord(bytes.Clone(raw))
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
			if !same(got, &want) {
				t.Fatalf("got  %+v %+v\nwant %+v %+v", got, got.Terms, &want, want.Terms)
			}
			if later && (*ofJob(got) != *ofJob(j) || j.Terms != nil && *ofTerms(got.Terms) != *ofTerms(j.Terms)) {
				t.Fatal("the added attributes are lost")
			}
			for i := range j.History {
				if *ofHistory(&got.History[i]) != *ofHistory(&j.History[i]) {
					t.Fatal("the added attribute of the history is lost")
				}
			}
		}
		for n := range len(raw) {
			if j, _, err := decodeRecord(raw[:n:n]); j != nil || !errors.Is(err, errRecord) {
				t.Fatalf("%d of %d bytes gave %v, %v", n, len(raw), j, err)
			}
		}
	})
}

// Nothing of a job points into the record that it is read from.
func TestRecordIsCopied(t *testing.T) {
	j := fullJob()
	raw := appendRecord(nil, j)
	got, _, err := decodeRecord(raw)
	clear(raw)
	if err != nil || !same(got, j) {
		t.Fatalf("got %+v, %v; want %+v", got, err, j)
	}
}

// Terms that are there and say nothing are still there.
func TestRecordOfEmptyTerms(t *testing.T) {
	j := fullJob()
	j.Terms = &jobs.Terms{}
	if got, _, err := decodeRecord(appendRecord(nil, j)); err != nil || !same(got, j) {
		t.Fatalf("got %+v, %v; want %+v", got, err, j)
	}
}

// A batch gives back every attribute of its messages, and one that is added.
func TestBatchRoundTrip(t *testing.T) {
	of, ofTerms := jobstest.Extra(t, &jobs.MessageFields), jobstest.Extra(t, &jobs.TermsFields)
	rapid.Check(t, func(t *rapid.T) {
		b := &jobs.Batch{ID: jobs.NewID()}
		for range rapid.IntRange(1, 4).Draw(t, "messages") {
			m := &jobs.Message{}
			jobstest.Draw(t, jobs.MessageFields, m)
			b.Messages = append(b.Messages, m)
		}
		b.Messages[len(b.Messages)-1].BatchEnd = b.ID
		raw := appendBatch(nil, b)
		got, err := decodeBatch(b.ID, raw)
		if err != nil || !reflect.DeepEqual(got, b) {
			t.Fatalf("got %+v, %v; want %+v", got, err, b)
		}
		for i, m := range b.Messages {
			if g := got.Messages[i]; *of(g) != *of(m) || m.Terms != nil && *ofTerms(g.Terms) != *ofTerms(m.Terms) {
				t.Fatalf("message %d has lost the added attribute", i)
			}
		}
		for n := range len(raw) {
			if got, err := decodeBatch(b.ID, raw[:n]); !errors.Is(err, errBatch) {
				t.Fatalf("%d of %d bytes gave %+v, %v", n, len(raw), got, err)
			}
		}
	})
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

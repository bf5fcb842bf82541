package record

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
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
		j.Payload = bytes.Repeat([]byte("x"), rapid.IntRange(InlinePayload-2, InlinePayload+2).Draw(t, "size"))
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
		raw := Append([]byte("before"), j)
		raw, ok := bytes.CutPrefix(raw, []byte("before"))
		if !ok {
			t.Fatalf("Append did not append")
		}
		defer func() { jobs.JobFields, jobs.TermsFields = more, moreTerms }()
		for _, later := range []bool{true, false} {
			if !later {
				jobs.JobFields, jobs.TermsFields = known, knownTerms
			}
			got, apart, err := Decode(bytes.Clone(raw))
			if err != nil {
				t.Fatalf("decode: %v", err)
			}
			want := *j
			if apart != (len(j.Payload) > InlinePayload) {
				t.Fatalf("a payload of %d bytes: apart = %v", len(j.Payload), apart)
			}
			if apart {
				want.Payload = nil
			}
			if !jobstest.Same(got, &want) {
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
			if j, _, err := Decode(raw[:n:n]); j != nil || !errors.Is(err, ErrDamaged) {
				t.Fatalf("%d of %d bytes gave %v, %v", n, len(raw), j, err)
			}
		}
	})
}

// Nothing of a job points into the record that it is read from.
func TestRecordIsCopied(t *testing.T) {
	j := fullJob()
	raw := Append(nil, j)
	got, _, err := Decode(raw)
	clear(raw)
	if err != nil || !jobstest.Same(got, j) {
		t.Fatalf("got %+v, %v; want %+v", got, err, j)
	}
}

// Terms that are there and say nothing are still there.
func TestRecordOfEmptyTerms(t *testing.T) {
	j := fullJob()
	j.Terms = &jobs.Terms{}
	if got, _, err := Decode(Append(nil, j)); err != nil || !jobstest.Same(got, j) {
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
		raw := AppendBatch(nil, b)
		got, err := DecodeBatch(b.ID, raw)
		if err != nil || !reflect.DeepEqual(got, b) {
			t.Fatalf("got %+v, %v; want %+v", got, err, b)
		}
		for i, m := range b.Messages {
			if g := got.Messages[i]; *of(g) != *of(m) || m.Terms != nil && *ofTerms(g.Terms) != *ofTerms(m.Terms) {
				t.Fatalf("message %d has lost the added attribute", i)
			}
		}
		for n := range len(raw) {
			if got, err := DecodeBatch(b.ID, raw[:n]); !errors.Is(err, ErrBatch) {
				t.Fatalf("%d of %d bytes gave %+v, %v", n, len(raw), got, err)
			}
		}
	})
}

// fullJob has something in every field.
func fullJob() *jobs.Job {
	at := jobs.TimeOf(time.Date(2024, 1, 15, 8, 0, 0, 0, time.UTC))
	m := &jobs.Message{
		Seq: 7, At: at, ID: jobs.DerivedID(7, at), Type: "email", Priority: 3, Payload: []byte(`{"n":7}`), RetryCount: -1,
		Tags: []string{"a", "b"}, Timeout: time.Minute,
	}
	j := jobs.NewJob(m, nil, true)
	for _, e := range []jobs.Event{
		{Kind: jobs.KindRetrying, Attempt: 1, Error: "it broke", Due: at.Add(75 * time.Second)},
		{Kind: jobs.KindProgress, Attempt: 2, Progress: 40, Message: "under way"},
		{Kind: jobs.KindCompleted, Attempt: 2, Result: []byte(`{"ok":true}`)},
	} {
		e.ID, e.Seq, e.Type, e.Priority, e.CreatedAt, e.MaxAttempts, e.Run, e.Node = m.ID, 7, m.Type, 3, at, 4, 1, "node-a"
		e.StartedAt = at.Add(time.Duration(e.Attempt) * time.Minute)
		e.At = e.StartedAt.Add(5 * time.Second)
		e.Artifact = &jobs.Artifact{Name: "a.csv", ContentType: "text/csv", Size: 12, SHA256: "00ff"}
		jobs.Apply(j, &e)
	}
	return j
}

func FuzzDecodeRecord(f *testing.F) {
	raw := Append(nil, fullJob())
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Add([]byte{recordVersion})
	f.Add(msgp.AppendArrayHeader([]byte{recordVersion}, 1<<31))
	f.Add(append(msgp.AppendArrayHeader([]byte{recordVersion}, recordFields), 0xc4, 0xff))
	f.Fuzz(func(t *testing.T, raw []byte) {
		j, apart, err := Decode(raw)
		if (j == nil) != (err != nil) {
			t.Fatalf("got %v and %v", j, err)
		}
		if err != nil {
			return
		}
		// A record that can be read can be written, with the same meaning.
		if apart {
			j.Payload = make([]byte, InlinePayload+1)
		} else if len(j.Payload) > InlinePayload {
			return // no writer makes these
		}
		again, _, err := Decode(Append(nil, j))
		if apart {
			j.Payload = nil
		}
		if err != nil || !jobstest.Same(again, j) {
			t.Fatalf("again: %+v, %v; first %+v", again, err, j)
		}
	})
}

// Flipped bits are noticed or give another job, but nothing panics.
func TestRecordDamaged(t *testing.T) {
	raw := Append(nil, fullJob())
	for i := range raw {
		for bit := range 8 {
			broken := bytes.Clone(raw)
			broken[i] ^= 1 << bit
			if j, _, err := Decode(broken); (j == nil) != (err != nil) {
				t.Fatalf("bit %d of byte %d: %v, %v", bit, i, j, err)
			}
		}
	}
}

// A glance reads the same values as decoding does, however much stands behind them.
func TestGlance(t *testing.T) {
	long := fullJob()
	long.Payload = []byte(`"` + strings.Repeat("x", InlinePayload) + `"`)
	for name, j := range map[string]*jobs.Job{"full": fullJob(), "long": long, "bare": {Type: "email"}} {
		t.Run(name, func(t *testing.T) {
			raw := Append(nil, j)
			var g Glance
			if err := g.Read(raw); err != nil {
				t.Fatal(err)
			}
			payload := j.Payload
			if g.Apart {
				payload = nil
			}
			if string(g.Type) != j.ListedAs() || g.Priority != j.Priority || g.Status != j.Status || string(g.Payload) != string(payload) ||
				g.Apart != (len(j.Payload) > InlinePayload) || string(g.Error) != j.Error ||
				g.Created != j.CreatedAt || g.Started != j.StartedAt || g.Ended != j.EndedAt {
				t.Errorf("%+v\nof %+v", g, j)
			}
			for _, e := range j.Errors {
				if text := jobs.NewNeedle(strings.ToUpper(e.Error)); !g.InErrors(&text) {
					t.Errorf("%q is not found", e.Error)
				}
			}
			if text := jobs.NewNeedle("nowhere"); g.InErrors(&text) {
				t.Error("what is nowhere is found")
			}
		})
	}
	raw := Append(nil, fullJob())
	var g Glance
	for cut := range len(raw) / 3 {
		if err := g.Read(raw[:cut]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut to %d bytes: %v", cut, err)
		}
	}
}

// BenchmarkRecord is the encoding alone.
func BenchmarkRecord(b *testing.B) {
	j := fullJob()
	raw := Append(nil, j)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			raw = Append(raw[:0], j)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := Decode(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}

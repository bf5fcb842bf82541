package broker_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

func sampleEvent() jobs.Event {
	return jobs.Event{
		Kind: jobs.KindCompleted, ID: jobs.NewID(), Seq: 7, Type: "email", Priority: 3, CreatedAt: 1_700_000_000_000_000_001,
		MaxAttempts: 4, Run: 1, Attempt: 2, At: 1_700_000_001_000_000_000, StartedAt: 1_700_000_000_500_000_000, Node: "n1",
		Result: json.RawMessage(`{"ok":true}`), Artifact: &jobs.Artifact{Name: "a.csv", ContentType: "text/csv", Size: 3, SHA256: "00"},
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	r, _ := read(t, b, jobs.Positions{})
	nc, _ := connect(t, b)
	sub, err := nc.SubscribeSync("status.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	e := sampleEvent()
	if err := b.EventLog.Append([]jobs.Event{e}); err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	if m.Subject != "status.completed.email."+e.ID.String() || !json.Valid(m.Data) {
		t.Fatalf("%s %s", m.Subject, m.Data)
	}
	r.until(t, "the event", func() bool { return len(r.events) == 1 && reflect.DeepEqual(r.events[0], e) })

	var many []jobs.Event
	for range 3000 {
		e := sampleEvent()
		e.Error = strings.Repeat("x", 300)
		many = append(many, e)
	}
	if err := b.EventLog.Append(many); err != nil {
		t.Fatal(err)
	}
	r.until(t, "all events", func() bool { return len(r.events) == 3001 })
	if !reflect.DeepEqual(r.events[1:], many) {
		t.Fatal("the events have changed on the way")
	}
	if n := len(r.seqs); n < 4 || n > 10 {
		t.Fatalf("they went in %d messages", n)
	}
	if err := b.EventLog.Append(nil); err != nil {
		t.Fatal(err)
	}
}

func TestAppendTooLarge(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t, func(o *broker.Options) { o.MaxPayload = 1000 })
	r, _ := read(t, b, jobs.Positions{})
	large, small := sampleEvent(), sampleEvent()
	large.Result = json.RawMessage(`"` + strings.Repeat("x", 1000) + `"`)
	for _, events := range [][]jobs.Event{{large}, {small, large, small}} {
		if err := b.EventLog.Append(events); err == nil || !strings.Contains(err.Error(), large.ID.String()) {
			t.Fatalf("got %v", err)
		}
	}
	r.until(t, "the small ones", func() bool { return len(r.events) == 2 })
}

func TestForeignStatusMessages(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	r, _ := read(t, b, jobs.Positions{})
	nc, _ := connect(t, b)
	id := jobs.NewID().String()
	for _, body := range []string{
		"", "hello", "{", "\x01\xdd\xff\xff\xff\xff", "\x02", `{"kind":"odd"}`, `{"kind":"started","id":"4711"}`,
		`{"kind":"started","id":"` + id + `","type":"email","priority":3,"run":1,"attempt":1,"unknown":1}`,
	} {
		if err := nc.PublishMsg(&nats.Msg{Subject: "status.x", Data: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	r.until(t, "all messages", func() bool { return len(r.seqs) == 8 })
	if len(r.events) != 1 || r.events[0].Kind != jobs.KindStarted {
		t.Fatalf("%+v", r.events)
	}
}

// orderly is a sink that says how many submissions it had when the first event came.
type orderly struct {
	*recorder
	before int
}

func (o *orderly) Happened(seq uint64, events []jobs.Event) {
	o.mu.Lock()
	if len(o.seqs) == 0 {
		o.before = len(o.messages)
	}
	o.mu.Unlock()
	o.recorder.Happened(seq, events)
}

// TestEventsComeAfterSubmissions: of the messages that are there at the start, those of JOBS
// come first, so that an event's job is always known. The last messages of JOBS may be gone,
// or all.
func TestEventsComeAfterSubmissions(t *testing.T) {
	t.Parallel()
	const all = 3000
	for name, kept := range map[string]int{"all there": all, "the last ones gone": all - 10, "none there": 0} {
		t.Run(name, func(t *testing.T) {
			b := brokertest.New(t)
			nc, js := connect(t, b)
			e := sampleEvent()
			if err := b.EventLog.Append([]jobs.Event{e}); err != nil {
				t.Fatal(err)
			}
			for range all - 1 {
				if err := nc.Publish("jobs.email.3", []byte(`{}`)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := js.Publish(t.Context(), "jobs.email.3", nil); err != nil {
				t.Fatal(err)
			}
			s, err := js.Stream(t.Context(), broker.JobsStream)
			if err != nil {
				t.Fatal(err)
			}
			for seq := kept + 1; kept > 0 && seq <= all; seq++ {
				if err := s.DeleteMsg(t.Context(), uint64(seq)); err != nil {
					t.Fatal(err)
				}
			}
			if kept == 0 {
				if err := s.Purge(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			o := &orderly{recorder: newRecorder()}
			readInto(t, b, jobs.Positions{}, o)
			o.until(t, "the event", func() bool { return len(o.events) == 1 })
			if o.before != kept {
				t.Errorf("an event came after %d of %d submissions", o.before, kept)
			}
		})
	}
}

// drawEvent draws an event with what every one has, and anything else.
func drawEvent(t *rapid.T) jobs.Event {
	var e jobs.Event
	jobstest.Draw(t, jobs.EventFields, &e)
	jobstest.Set(t, "kind", &e.Kind)
	jobstest.Set(t, "id", &e.ID)
	jobstest.Set(t, "priority", (*uint8)(&e.Priority))
	e.Type = rapid.StringMatching(`[a-zA-Z0-9_-]{1,64}`).Draw(t, "type")
	return e
}

// TestEventsRoundTrip: both forms of events give back every attribute, and a new one.
// Versions without that pass it over.
func TestEventsRoundTrip(t *testing.T) {
	known := jobs.EventFields
	of := jobstest.Extra(t, &jobs.EventFields)
	more := jobs.EventFields
	rapid.Check(t, func(t *rapid.T) {
		events := make([]jobs.Event, rapid.IntRange(1, 5).Draw(t, "events"))
		for i := range events {
			events[i] = drawEvent(t)
			jobstest.Set(t, "colour", of(&events[i]))
		}
		defer func() { jobs.EventFields = more }()
		bodies := [][]byte{broker.EncodeJSON(&events[0]), broker.EncodePacked(events)}
		for _, later := range []bool{true, false} {
			if !later {
				jobs.EventFields = known
			}
			for _, body := range bodies {
				got, err := broker.DecodeEvents(bytes.Clone(body))
				if err != nil {
					t.Fatalf("%v of %q", err, body)
				}
				if want := events[:len(got)]; !reflect.DeepEqual(got, want) {
					t.Fatalf("got  %+v\nwant %+v", got, want)
				}
				for i := range got {
					if later && *of(&got[i]) != *of(&events[i]) {
						t.Fatalf("event %d has lost the added attribute", i)
					}
				}
			}
		}
	})
}

// goldenEvents are those that testdata/events.txt has, packed and one by one as JSON, as
// they were written by hand, before there were tables of attributes.
func goldenEvents() []jobs.Event {
	core := jobs.Event{
		Kind: jobs.KindStarted, ID: jobs.ID{1, 2, 3, 4, 5, 6, 0x70, 8, 0x80, 10, 11, 12, 13, 14, 15, 16}, Seq: 70_000, Type: "email", Priority: 2,
		CreatedAt: 1_700_000_000_000_000_001, MaxAttempts: 1001, Run: 2, Attempt: 3,
		At: 1_700_000_001_000_000_000, StartedAt: 1_700_000_000_500_000_000, Node: "n1",
	}
	completed, failed, left := core, core, core
	completed.Kind, completed.Result = jobs.KindCompleted, json.RawMessage(`{"ok":true}`)
	completed.Artifact = &jobs.Artifact{Name: "a.csv", ContentType: "text/csv", Size: 1 << 40, SHA256: "00ff"}
	failed.Kind, failed.Progress, failed.Message, failed.Error = jobs.KindRetrying, 40, "half", "no \"route\"\nü"
	failed.Due, failed.Lost = 1_700_000_009_000_000_000, 2
	left.Kind, left.Error, left.Checkpoint = jobs.KindReleased, "stop", json.RawMessage(`{"at":5}`)
	return []jobs.Event{core, completed, failed, left}
}

// TestEventsOfOld: what earlier versions have written is read as it was meant.
func TestEventsOfOld(t *testing.T) {
	t.Parallel()
	golden, err := os.ReadFile("testdata/events.txt")
	if err != nil {
		t.Fatal(err)
	}
	packed, single, _ := strings.Cut(string(golden), "\n")
	body, err := hex.DecodeString(packed)
	if err != nil {
		t.Fatal(err)
	}
	want := goldenEvents()
	if got, err := broker.DecodeEvents(body); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("packed: %v\ngot  %+v\nwant %+v", err, got, want)
	}
	for line := range strings.Lines(single) {
		if got, err := broker.DecodeEvents([]byte(line)); err != nil || !reflect.DeepEqual(got, want[:1]) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", line, err, got, want[0])
		}
		want = want[1:]
	}
	if len(want) != 0 {
		t.Errorf("%d events are missing", len(want))
	}
}

// BenchmarkEvents is the packed form of what most jobs report, an event at a time.
func BenchmarkEvents(b *testing.B) {
	e := sampleEvent()
	e.Artifact = nil
	body := broker.EncodePacked([]jobs.Event{e})
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			body = broker.EncodePacked([]jobs.Event{e})
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := broker.DecodeEvents(body); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestLengthsInEventsAreNotBelieved: reading a message needs memory in proportion to its
// bytes, whatever lengths stand in it.
func TestLengthsInEventsAreNotBelieved(t *testing.T) {
	const size = 2 << 20
	array := func(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{1, 0xdd}, n) }
	e := sampleEvent()
	many := broker.EncodePacked(slices.Repeat([]jobs.Event{e}, 4000))
	for name, body := range map[string][]byte{
		"two million events": append(array(2_000_000), make([]byte, size)...),
		"four billion":       append(array(math.MaxUint32), make([]byte, size)...),
		"as many as bytes":   append(array(size), make([]byte, size)...),
		"a tenth of that":    append(array(size/10), make([]byte, size)...),
		"nested":             append(array(1), bytes.Repeat([]byte{0x91}, size)...),
		"nested at the end":  append(broker.EncodePacked([]jobs.Event{e}), bytes.Repeat([]byte{0x91}, size)...),
		"too many, all there": append(array(80_000), bytes.Repeat(
			broker.EncodePacked([]jobs.Event{{Kind: jobs.KindStarted, ID: e.ID, Type: "x", Priority: 1}})[6:], 80_000)...),
		"a long text": append(array(1), 0x9c, 2, 0xc6, 0xff, 0xff, 0xff, 0xff),
	} {
		var err error
		if used := allocated(func() { _, err = broker.DecodeEvents(body) }); used > 1<<20 {
			t.Errorf("%s: %d bytes of memory for %d", name, used, len(body))
		} else if err == nil && !strings.HasPrefix(name, "nested at") {
			t.Errorf("%s: taken", name)
		}
	}
	if got, err := broker.DecodeEvents(many); err != nil || len(got) != 4000 {
		t.Errorf("what we write ourselves: %d, %v", len(got), err)
	}
}

// allocated is the number of bytes that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzDecodeEvents(f *testing.F) {
	e := sampleEvent()
	f.Add(broker.EncodeJSON(&e))
	f.Add(broker.EncodePacked([]jobs.Event{e, e}))
	f.Add([]byte("\x01\xdd\x00\x00\x00\x01\x90"))
	f.Add([]byte("\x01\xdd\x00\x1e\x84\x80"))
	f.Fuzz(func(t *testing.T, body []byte) {
		var events []jobs.Event
		var err error
		// Others allocate, too: the fuzzer itself, and what is left of other tests.
		if used := allocated(func() { events, err = broker.DecodeEvents(body) }); used > 1<<20+uint64(64*len(body)) {
			t.Fatalf("%d bytes of memory for %d", used, len(body))
		}
		if err != nil {
			return
		}
		again, err := broker.DecodeEvents(broker.EncodePacked(events))
		if err != nil || len(again) != len(events) || len(events) > 0 && !reflect.DeepEqual(again, events) {
			t.Fatalf("%+v became %+v, %v", events, again, err)
		}
	})
}

package broker_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
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
)

func sampleEvent() jobs.Event {
	return jobs.Event{
		Kind: jobs.KindCompleted, ID: jobs.NewID(), Seq: 7, Type: "email", Priority: 3, CreatedAt: 1_700_000_000_000_000_001,
		MaxAttempts: 4, Run: 1, Attempt: 2, At: 1_700_000_001_000_000_000, StartedAt: 1_700_000_000_500_000_000, Node: "n1",
		Result: json.RawMessage(`{"ok":true}`), Artifact: &jobs.Artifact{Name: "a.csv", ContentType: "text/csv", Size: 3, SHA256: "00"},
	}
}

func TestAppend(t *testing.T) {
	b := brokertest.New(t, withPort)
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
	if err := b.Append([]jobs.Event{e}); err != nil {
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
	if err := b.Append(many); err != nil {
		t.Fatal(err)
	}
	r.until(t, "all events", func() bool { return len(r.events) == 3001 })
	if !reflect.DeepEqual(r.events[1:], many) {
		t.Fatal("the events have changed on the way")
	}
	if n := len(r.seqs); n < 4 || n > 10 {
		t.Fatalf("they went in %d messages", n)
	}
	if err := b.Append(nil); err != nil {
		t.Fatal(err)
	}
}

func TestAppendTooLarge(t *testing.T) {
	b := brokertest.New(t, func(o *broker.Options) { o.MaxPayload = 1000 })
	r, _ := read(t, b, jobs.Positions{})
	large, small := sampleEvent(), sampleEvent()
	large.Result = json.RawMessage(`"` + strings.Repeat("x", b.MaxEvent()) + `"`)
	for _, events := range [][]jobs.Event{{large}, {small, large, small}} {
		if err := b.Append(events); err == nil || !strings.Contains(err.Error(), large.ID.String()) {
			t.Fatalf("got %v", err)
		}
	}
	r.until(t, "the small ones", func() bool { return len(r.events) == 2 })
}

func TestForeignStatusMessages(t *testing.T) {
	b := brokertest.New(t, withPort)
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

// What both streams hold at the start comes in the only order in which an event's job is
// always known, also where the last messages of JOBS are gone, or all.
func TestEventsComeAfterSubmissions(t *testing.T) {
	const all = 3000
	for name, kept := range map[string]int{"all there": all, "the last ones gone": all - 10, "none there": 0} {
		t.Run(name, func(t *testing.T) {
			b := brokertest.New(t, withPort)
			nc, js := connect(t, b)
			e := sampleEvent()
			if err := b.Append([]jobs.Event{e}); err != nil {
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

func eventGen() *rapid.Generator[jobs.Event] {
	moment := rapid.Map(rapid.Int64Range(0, 4_000_000_000_000_000_000), func(n int64) jobs.Time { return jobs.Time(n) })
	return rapid.Custom(func(t *rapid.T) jobs.Event {
		e := jobs.Event{
			Kind:     jobs.Kind(rapid.IntRange(int(jobs.KindStarted), int(jobs.KindSnoozed)).Draw(t, "kind")),
			Seq:      rapid.Uint64().Draw(t, "seq"),
			Type:     rapid.StringMatching(`[a-zA-Z0-9_-]{1,64}`).Draw(t, "type"),
			Priority: jobs.Priority(rapid.IntRange(1, 5).Draw(t, "priority")), CreatedAt: moment.Draw(t, "created"),
			MaxAttempts: rapid.IntRange(0, 1001).Draw(t, "max"), Run: rapid.IntRange(0, 9).Draw(t, "run"),
			Attempt: rapid.IntRange(0, 1001).Draw(t, "attempt"), At: moment.Draw(t, "at"), StartedAt: moment.Draw(t, "started"),
			Node: rapid.String().Draw(t, "node"), Progress: rapid.IntRange(0, 100).Draw(t, "progress"),
			Message: rapid.String().Draw(t, "message"), Error: rapid.String().Draw(t, "error"), Due: moment.Draw(t, "due"),
			Lost: rapid.IntRange(0, 9).Draw(t, "lost"),
		}
		copy(e.ID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		if rapid.Bool().Draw(t, "result") {
			e.Result, _ = json.Marshal(rapid.String().Draw(t, "value"))
		}
		if rapid.Bool().Draw(t, "checkpoint") {
			e.Checkpoint, _ = json.Marshal(rapid.String().Draw(t, "left"))
		}
		if rapid.Bool().Draw(t, "artifact") {
			e.Artifact = &jobs.Artifact{Name: rapid.String().Draw(t, "name"), ContentType: rapid.String().Draw(t, "ct"), Size: rapid.Int64Min(0).Draw(t, "size"), SHA256: "ab"}
		}
		return e
	})
}

func TestEventsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfN(eventGen(), 1, 5).Draw(t, "events")
		for _, body := range [][]byte{broker.EncodeJSON(&events[0]), broker.EncodePacked(events)} {
			got, err := broker.DecodeEvents(body)
			if err != nil {
				t.Fatalf("%v of %q", err, body)
			}
			if want := events[:len(got)]; !reflect.DeepEqual(got, want) {
				t.Fatalf("got  %+v\nwant %+v", got, want)
			}
		}
	})
}

func TestNewerPackedEvents(t *testing.T) {
	e := sampleEvent()
	got, err := broker.DecodeEvents(broker.EncodePackedWithMore(&e))
	if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], e) {
		t.Fatalf("%+v, %v", got, err)
	}
}

// What a message says of its own lengths is not believed: to read it takes memory in
// proportion to its bytes.
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
		"nested at the end":  append(broker.EncodePackedWithMore(&e), bytes.Repeat([]byte{0x91}, size)...),
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

// allocated is how many bytes f allocates.
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
	f.Add(broker.EncodePackedWithMore(&e))
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

func TestParseAck(t *testing.T) {
	tests := []struct {
		reply    string
		consumer string
		want     [3]uint64
		ok       bool
	}{
		{"$JS.ACK.JOBS.email-3.1.7.8.1700000000000000000.9", "email-3", [3]uint64{7, 8, 1700000000000000000}, true},
		{"$JS.ACK._.hash.JOBS.email-3.1.7.8.17.9", "email-3", [3]uint64{7, 8, 17}, true},
		{"$JS.ACK.hub.hash.JOBS.email-3.1.7.8.17.9.random", "email-3", [3]uint64{7, 8, 17}, true},
		{"$JS.ACK.JOBS.email-3.1.7.8.17", "", [3]uint64{}, false},
		{"$JS.ACK.a.JOBS.email-3.1.7.8.17.9", "", [3]uint64{}, false},
		{"_INBOX.1.2.3.4.5.6.7.8", "", [3]uint64{}, false},
		{"", "", [3]uint64{}, false},
	}
	for _, tt := range tests {
		consumer, got, ok := broker.ParseAck(tt.reply)
		if ok != tt.ok || ok && (consumer != tt.consumer || got != tt.want) {
			t.Errorf("%s: %s %v %v", tt.reply, consumer, got, ok)
		}
	}
}

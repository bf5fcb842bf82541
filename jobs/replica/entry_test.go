package replica

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var anEntry = rapid.Custom(func(t *rapid.T) Entry {
	e := Entry{
		Epoch: rapid.Uint64().Draw(t, "epoch"), Number: rapid.Uint64().Draw(t, "number"),
		Node: rapid.StringN(0, 60, maxName).Draw(t, "node"), Kind: Kind(rapid.IntRange(int(Lead), int(Resign)).Draw(t, "kind")),
		More: rapid.Bool().Draw(t, "more"), Body: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "body"),
	}
	copy(e.Previous[:], rapid.SliceOfN(rapid.Byte(), len(e.Previous), len(e.Previous)).Draw(t, "previous"))
	return e
})

// TestEntryCoding decodes what was encoded, and never accepts a beginning of it as the
// same.
func TestEntryCoding(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := anEntry.Draw(t, "entry")
		b := e.Append([]byte("before"))[len("before"):]
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(e, got) {
			t.Fatalf("%+v became %+v", e, got)
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if got, err := Decode(b[:cut]); err == nil && len(got.Body) != len(e.Body)-(len(b)-cut) {
			t.Fatalf("the first %d of %d bytes were taken for %+v", cut, len(b), got)
		}
	})
}

// TestOtherVersion names the problem when a node is of another release.
func TestOtherVersion(t *testing.T) {
	t.Parallel()
	b := (&Entry{Epoch: 1, Number: 1, Kind: Beat}).Append(nil)
	b[0] = version + 1
	if _, err := Decode(b); err == nil || !strings.Contains(err.Error(), "release") {
		t.Fatalf("the error is %v", err)
	}
}

func TestPositionCoding(t *testing.T) {
	t.Parallel()
	p := Position{Seq: 7, Number: 5, Epoch: 3, Hash: HashOf([]byte("x"))}
	b, _ := p.AppendBinary(nil)
	var got Position
	if err := got.UnmarshalBinary(b); err != nil || got != p {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := got.UnmarshalBinary(b[1:]); err == nil {
		t.Fatal("a position that is too short was decoded")
	}
}

// FuzzDecode finds no bytes that break the decoder, or that it decodes to something
// else than they say.
func FuzzDecode(f *testing.F) {
	f.Add((&Entry{Epoch: 1, Number: 2, Node: "a", Kind: Commit, Body: []byte("body")}).Append(nil))
	f.Add((&Entry{Epoch: 1 << 60, Number: 1 << 50, Node: strings.Repeat("n", maxName), Kind: Lead, More: true}).Append(nil))
	f.Add([]byte{version, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(e.Append(nil))
		if err != nil || !reflect.DeepEqual(e, again) {
			t.Fatalf("%x is %+v, which becomes %+v, %v", b, e, again, err)
		}
	})
}

// TestChain follows messages of entries long and short, and refuses everything that does
// not belong at its place.
func TestChain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var writer, reader chain
		var log []Message
		var bodies [][]byte
		epoch := uint64(0)
		for range rapid.IntRange(1, 8).Draw(t, "entries") {
			kind := Commit
			if epoch == 0 || rapid.IntRange(0, 3).Draw(t, "lead") == 0 {
				kind = Lead
				epoch++
			}
			size := rapid.SampledFrom([]int{0, 1, 1000, maxBody, maxBody + 1, 3*maxBody - 1}).Draw(t, "size")
			if kind == Lead {
				size = min(size, maxBody)
			}
			body := bytes.Repeat([]byte{byte(len(log))}, size)
			messages := writer.entry(epoch, "a", kind, body)
			if kind == Commit && rapid.IntRange(0, 3).Draw(t, "cut off") == 0 {
				messages = messages[:len(messages)-1] // its leader dies, and another one leads
			}
			for _, m := range messages {
				log = append(log, Message{Seq: uint64(len(log) + 1), Body: m})
				_, whole, err := writer.next(log[len(log)-1])
				if err != nil {
					t.Fatal(err)
				}
				if whole {
					bodies = append(bodies, body)
				}
			}
			if len(writer.parts) > 0 {
				epoch++
				log = append(log, Message{Seq: uint64(len(log) + 1), Body: writer.entry(epoch, "b", Lead, nil)[0]})
				if _, _, err := writer.next(log[len(log)-1]); err != nil {
					t.Fatal(err)
				}
				bodies = append(bodies, nil)
			}
		}
		for i, m := range log {
			other := rapid.IntRange(0, len(log)-1).Draw(t, "other")
			if other != i {
				before := reader
				if _, _, err := reader.next(Message{Seq: m.Seq, Body: log[other].Body}); err == nil {
					t.Fatalf("message %d was taken for message %d", other+1, i+1)
				}
				reader = before
			}
			e, whole, err := reader.next(m)
			if err != nil {
				t.Fatal(err)
			}
			if whole {
				if !bytes.Equal(e.Body, bodies[0]) {
					t.Fatalf("entry %d has %d bytes, not %d", e.Number, len(e.Body), len(bodies[0]))
				}
				bodies = bodies[1:]
			}
		}
		if len(bodies) != 0 || !reflect.DeepEqual(reader.Position, writer.Position) {
			t.Fatalf("%d entries are missing; the ends are %+v and %+v", len(bodies), reader.Position, writer.Position)
		}
	})
}

package broker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
)

// listStore is as much of a stream's store as the index of the lanes uses.
type listStore struct {
	server.StreamStore
	first, last uint64
	subjects    map[uint64]string
}

func (s *listStore) StoreMsg(subject string, _, _ []byte, _ int64) (uint64, int64, error) {
	s.last++
	s.subjects[s.last] = subject
	return s.last, 0, nil
}

func (s *listStore) LoadNextMsg(filter string, wc bool, start uint64, sm *server.StoreMsg) (*server.StoreMsg, uint64, error) {
	for seq := max(start, s.first); seq <= s.last; seq++ {
		if s.subjects[seq] == filter || wc && s.subjects[seq] != "" {
			return sm, seq, nil
		}
	}
	return nil, s.last, server.ErrStoreEOF
}

func (s *listStore) Truncate(seq uint64) error {
	for ; s.last > seq; s.last-- {
		delete(s.subjects, s.last)
	}
	return nil
}

func (s *listStore) FastState(state *server.StreamState) {
	state.FirstSeq, state.LastSeq, state.Msgs = s.first, s.last, uint64(len(s.subjects))
}

// TestLaneIndexFindsTheSame: whatever happened to the stream, and whoever reads
// which lane from where, the index finds what the store alone finds.
func TestLaneIndexFindsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &listStore{first: 1, subjects: make(map[uint64]string)}
		subject := rapid.SampledFrom([]string{"a", "b", "c", "no lane"})
		for range rapid.IntRange(0, 20).Draw(t, "older") {
			_, _, _ = s.StoreMsg(subject.Draw(t, "subject"), nil, nil, 0)
		}
		x := broker.NewLaneIndex(s, rapid.IntRange(1, 30).Draw(t, "most"))
		for _, lane := range []string{"a", "b", "c"} {
			x.Track(lane)
		}
		type seen struct {
			subject string
			seq     uint64
		}
		var untold []seen // stored, and the index does not know yet
		tell := func() {
			for _, u := range untold {
				x.Stored(u.subject, u.seq)
			}
			untold = nil
		}
		positions := make(map[string]uint64)
		t.Repeat(map[string]func(*rapid.T){
			"store": func(t *rapid.T) {
				tell()
				for range rapid.IntRange(1, 10).Draw(t, "messages") {
					_, _, _ = x.StoreMsg(subject.Draw(t, "subject"), nil, nil, 0)
				}
			},
			"store, told late": func(t *rapid.T) {
				name := subject.Draw(t, "subject")
				seq, _, _ := s.StoreMsg(name, nil, nil, 0)
				untold = append(untold, seen{name, seq})
			},
			"store, never told": func(t *rapid.T) {
				tell()
				_, _, _ = s.StoreMsg(subject.Draw(t, "subject"), nil, nil, 0)
			},
			"delete": func(t *rapid.T) { delete(s.subjects, rapid.Uint64Range(0, s.last).Draw(t, "seq")) },
			"purge": func(t *rapid.T) {
				tell()
				s.first = rapid.Uint64Range(s.first, s.last+5).Draw(t, "first")
				s.last = max(s.last, s.first-1)
			},
			"truncate": func(t *rapid.T) {
				tell()
				if err := x.Truncate(rapid.Uint64Range(s.first-1, s.last).Draw(t, "last")); err != nil {
					t.Fatal(err)
				}
			},
			"look": func(t *rapid.T) {
				name, wc := subject.Draw(t, "subject"), rapid.Bool().Draw(t, "all")
				reader := fmt.Sprint(name, rapid.IntRange(1, 2).Draw(t, "reader"))
				if rapid.IntRange(0, 9).Draw(t, "jump") == 0 {
					positions[reader] = rapid.Uint64Range(0, s.last+9).Draw(t, "start")
				}
				for range rapid.IntRange(1, 10).Draw(t, "times") {
					start := positions[reader]
					sm, seq, err := x.LoadNextMsg(name, wc, start, new(server.StoreMsg))
					want, wantSeq, wantErr := s.LoadNextMsg(name, wc, start, new(server.StoreMsg))
					if seq != wantSeq || (sm == nil) != (want == nil) || err != wantErr { //nolint:errorlint // the very error
						t.Fatalf("from %d on the index finds %q at %d (%v), the store %d (%v)", start, name, seq, err, wantSeq, wantErr)
					}
					positions[reader] = seq + 1
				}
			},
		})
	})
}

// TestLaneIndexOfALongLane: a reader that never catches up, and then does.
func TestLaneIndexOfALongLane(t *testing.T) {
	s := &listStore{first: 1, subjects: make(map[uint64]string)}
	x := broker.NewLaneIndex(s, 1<<20)
	x.Track("a")
	position := uint64(1)
	look := func(round int) (found bool) {
		_, want, wantErr := s.LoadNextMsg("a", false, position, nil)
		_, seq, err := x.LoadNextMsg("a", false, position, nil)
		if seq != want || (err == nil) != (wantErr == nil) {
			t.Fatalf("round %d: from %d on the index finds %d (%v), the store %d (%v)", round, position, seq, err, want, wantErr)
		}
		position = seq + 1
		return err == nil
	}
	for round := range 500 {
		for _, subject := range []string{"a", "b", "a", "a"} {
			_, _, _ = x.StoreMsg(subject, nil, nil, 0)
		}
		look(round)
		look(round)
	}
	for look(-1) {
	}
}

// TestLaneIndexIsUsed: this version of the server has its stores where they are
// looked for, a lane's search begins at its own message, and lanes and other
// clients' consumers get what is theirs.
func TestLaneIndexIsUsed(t *testing.T) {
	b := brokertest.New(t, withPort)
	x, ok := b.LaneIndex()
	if !ok {
		t.Fatal("there is no index: read store.go beside the server's new version")
	}
	lanes := []jobs.Lane{{Type: "email", Priority: 1}, {Type: "email", Priority: 3}, {Type: "export", Priority: 3}}
	in := brokertest.NewInspector(100)
	if err := b.OpenLanes(t.Context(), lanes, in); err != nil {
		t.Fatal(err)
	}
	nc, js := connect(t, b)
	const each = 20
	for range each {
		for _, l := range lanes {
			submit(t, b, message(l.Type, l.Priority))
		}
		if err := nc.Publish("jobs.email", []byte(`{}`)); err != nil { // into lane 3
			t.Fatal(err)
		}
		if err := nc.Publish("jobs.stray", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	settled(t, b, 5*each)
	info, err := js.Stream(t.Context(), broker.JobsStream)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[jobs.Lane][]uint64)
	for seq := uint64(1); seq <= 5*each; seq++ {
		m, err := info.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lanes {
			if m.Subject == fmt.Sprintf("jobs.%s.%d", l.Type, l.Priority) {
				want[l] = append(want[l], seq)
			}
		}
	}
	first := want[lanes[1]]
	if at := x.Next("jobs.email.3", first[0]+1); at != first[1] {
		t.Errorf("a search behind message %d begins at %d, not at the next one of that lane, %d", first[0], at, first[1])
	}
	for _, l := range lanes {
		if err := b.Pull(l, 2*each); err != nil {
			t.Fatal(err)
		}
		for _, seq := range want[l] {
			if d := in.Next(t); d.Lane != l || d.Seq != seq {
				t.Fatalf("%s got message %d of %s, want %d", l, d.Seq, d.Lane, seq)
			}
		}
	}
	other, err := js.CreateConsumer(t.Context(), broker.JobsStream, jetstream.ConsumerConfig{FilterSubject: "jobs.email.3"})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := other.FetchNoWait(100)
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for m := range batch.Messages() {
		md, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, md.Sequence.Stream)
	}
	if fmt.Sprint(got) != fmt.Sprint(want[lanes[1]]) {
		t.Errorf("another client's consumer got %v, want %v", got, want[lanes[1]])
	}
}

// TestLaneIndexBesideOthers: while a consumer of another client, or a stream that
// copies JOBS, may be running, the server is left as it is, and the lanes work all
// the same.
func TestLaneIndexBesideOthers(t *testing.T) {
	for name, begin := range map[string]func(jetstream.JetStream) error{
		"durable consumer": func(js jetstream.JetStream) error {
			_, err := js.CreateConsumer(t.Context(), broker.JobsStream, jetstream.ConsumerConfig{Durable: "audit", FilterSubject: "jobs.>"})
			return err
		},
		"copying stream": func(js jetstream.JetStream) error {
			_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ARCHIVE", Sources: []*jetstream.StreamSource{{Name: broker.JobsStream}}})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			there := func(o *broker.Options) { o.Dir, o.Port = dir, -1 }
			b := brokertest.New(t, there)
			_, js := connect(t, b)
			if err := begin(js); err != nil {
				t.Fatal(err)
			}
			b.Close()
			b = brokertest.New(t, there)
			// that of a copying stream comes a moment later
			for late := time.Now().Add(patience); ; {
				if n := b.JobsConsumers(); n > 0 {
					break
				}
				if time.Now().After(late) {
					t.Fatal("the stream has no consumer")
				}
			}
			b.WrapJobs()
			if _, ok := b.LaneIndex(); ok {
				t.Error("the store was exchanged under a consumer that runs")
			}
			lane := jobs.Lane{Type: "email", Priority: 3}
			in := brokertest.NewInspector(1)
			if err := b.OpenLanes(t.Context(), []jobs.Lane{lane}, in); err != nil {
				t.Fatal(err)
			}
			submit(t, b, message(lane.Type, lane.Priority))
			if err := b.Pull(lane, 1); err != nil {
				t.Fatal(err)
			}
			if d := in.Next(t); d.Lane != lane || d.Seq != 1 {
				t.Errorf("got %+v", d)
			}
		})
	}
}

package broker_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// fakeNeeds is a tracker that knows which messages are needed. Every message of JOBS has
// its lane here, whether the tracker has read it or not.
type fakeNeeds struct {
	position uint64
	lanes    map[uint64]jobs.Lane
	needed   map[uint64]bool
}

func (f *fakeNeeds) Positions() jobs.Positions { return jobs.Positions{Jobs: f.position} }

func (f *fakeNeeds) Floor() (floor uint64, queued int) {
	floor = f.position + 1
	for seq := range f.needed {
		if seq <= f.position {
			queued++
			floor = min(floor, seq)
		}
	}
	return floor, queued
}

// Queued misses some of what the tracker has read since its position was asked for.
func (f *fakeNeeds) Queued(_ context.Context, each func(jobs.Lane, uint64)) error {
	for seq := range f.needed {
		if seq <= f.position || seq%2 == 0 {
			each(f.lanes[seq], seq)
		}
	}
	return nil
}

// lowest is the lowest message that a lane needs.
func (f *fakeNeeds) lowest(lane jobs.Lane) uint64 {
	low := f.position + 1
	for seq := range f.needed {
		if f.lanes[seq] == lane {
			low = min(low, seq)
		}
	}
	return low
}

// deadIn are the dead messages of a list, and those of them below the lowest one that
// their lane needs.
func (f *fakeNeeds) deadIn(there []uint64) (dead, loose int) {
	for _, seq := range there {
		if seq > f.position || f.needed[seq] {
			continue
		}
		dead++
		if seq < f.lowest(f.lanes[seq]) {
			loose++
		}
	}
	return dead, loose
}

// TestTail: jobs of four lanes end in any order, some run for long, and the tracker is behind
// the stream. Messages that are needed or not read stay. Dead ones go as soon as they are
// many. Those that have to stay all the same lift the stream's bound.
func TestTail(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // no secret
	const queue = 40
	b := brokertest.New(t, func(o *broker.Options) { o.QueueSize = queue })
	_, js := connect(t, b)
	stream, err := js.Stream(t.Context(), broker.JobsStream)
	if err != nil {
		t.Fatal(err)
	}
	needs := &fakeNeeds{lanes: make(map[uint64]jobs.Lane), needed: make(map[uint64]bool)}
	tail := broker.NewTail(b, needs, func(_ context.Context, upTo uint64) error {
		t.Errorf("somebody else is said to have removed all up to %d", upTo)
		return nil
	})
	var last uint64
	left, lifted, byLane := 0, 0, 0
	for round := range 60 {
		info, err := stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		bound := int(info.Config.MaxMsgs)
		for range min(random.IntN(30), bound-int(info.State.Msgs)) { //nolint:gosec // few
			l := jobs.Lane{Type: []string{"email", "report"}[random.IntN(2)], Priority: jobs.Priority(1 + random.IntN(2))}
			submit(t, b, message(l.Type, l.Priority))
			last++
			needs.lanes[last], needs.needed[last] = l, true
		}
		stored(t, b, last)
		needs.position += uint64(random.IntN(int(last-needs.position) + 1)) //nolint:gosec // few
		for seq := range needs.needed {
			// Every 25th runs for long, and one day all of them end.
			if seq <= needs.position && (seq%25 != 1 || random.IntN(40) == 0 || len(needs.needed) > 2*queue) {
				delete(needs.needed, seq)
			}
		}
		before, _ := needs.deadIn(present(t, stream, last))
		if err := tail.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		there := present(t, stream, last)
		for seq := range needs.needed {
			if !slices.Contains(there, seq) {
				t.Fatalf("round %d: message %d is needed and gone", round, seq)
			}
		}
		dead, loose := needs.deadIn(there)
		if dead-min(left, dead) > max(queue, left)/2 && loose > 0 {
			t.Errorf("round %d: %d messages are dead, and %d of them could go; %d were left before", round, dead, loose, left)
		}
		floor, _ := needs.Floor()
		first := append(there, floor)[0]
		if first+queue/2 < floor {
			t.Errorf("round %d: JOBS begins at %d, nothing below %d is needed", round, first, floor)
		}
		if loose == 0 && dead > 0 {
			left = dead // every lane has been purged, or could have been
		}
		left = min(left, dead)
		if dead < before && first >= floor {
			byLane++
		}
		info, err = stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slack := int(info.Config.MaxMsgs) - 2*queue
		if off := slack - dead; off > queue/4 || off < -queue/4 {
			t.Errorf("round %d: with %d dead messages the bound is lifted by %d", round, dead, slack)
		}
		if slack > 0 {
			lifted++
		}
	}
	if lifted == 0 || byLane == 0 {
		t.Errorf("the bound was lifted %d times, and lanes were purged %d times: not much was tried", lifted, byLane)
	}
}

// present lists the sequences that a stream has messages for.
func present(t *testing.T, stream jetstream.Stream, last uint64) (there []uint64) {
	t.Helper()
	info, err := stream.Info(t.Context(), jetstream.WithDeletedDetails(true))
	if err != nil {
		t.Fatal(err)
	}
	for seq := info.State.FirstSeq; seq <= last; seq++ {
		if !slices.Contains(info.State.Deleted, seq) {
			there = append(there, seq)
		}
	}
	return there
}

// TestFewAreNotPurged, since a purge makes lanes forget redeliveries.
func TestFewAreNotPurged(t *testing.T) {
	t.Parallel()
	brokertest.Bubble(t, testFewAreNotPurged)
}

func testFewAreNotPurged(t *testing.T) {
	t.Helper()
	b := brokertest.New(t)
	needs := &fakeNeeds{}
	tail := broker.NewTail(b, needs, nil)
	begun := time.Now()
	for want := range uint64(2) { // the first sweep purges, since there was none for long
		submit(t, b, message("email", 3))
		stored(t, b, want+1)
		needs.position++
		if err := tail.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st := stored(t, b, want+1); st.Msgs != want && time.Since(begun) < broker.PurgeFew {
			t.Errorf("%d messages are there, want %d", st.Msgs, want)
		}
	}
}

// TestNothingIsPurgedTwice, however long ago that was.
func TestNothingIsPurgedTwice(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t)
	tail := broker.NewTail(b, &fakeNeeds{position: 1}, nil)
	nc, _ := connect(t, b)
	purges := make(chan *nats.Msg, 10)
	if _, err := nc.ChanSubscribe("$JS.API.STREAM.PURGE.JOBS", purges); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	submit(t, b, message("email", 3))
	stored(t, b, 1)
	for range 3 {
		if err := tail.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		tail.LongAgo()
	}
	if err := nc.Flush(); err != nil { // what the server has passed on is here
		t.Fatal(err)
	}
	if n := len(purges); n != 1 {
		t.Errorf("JOBS was purged %d times of one message", n)
	}
}

// TestSweepIsAskedFor when half a queue has died since the last one, however much is
// needed or still there.
func TestSweepIsAskedFor(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t, func(o *broker.Options) { o.QueueSize = 100 })
	needs := &fakeNeeds{position: 1000, needed: map[uint64]bool{999: true, 1000: true}}
	tail := broker.NewTail(b, needs, func(context.Context, uint64) error { return nil })
	if err := tail.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		position uint64
		queued   int
		want     bool
	}{{1049, 2, false}, {1050, 2, true}, {1050, 3, false}, {1000, 0, false}, {1100, 52, true}} {
		tail.Committed(&jobs.Commit{Positions: jobs.Positions{Jobs: c.position}, Load: jobs.Load{Queued: c.queued}})
		if asked := tail.Asked(); asked != c.want {
			t.Errorf("a sweep is asked for at %d with %d needed: %v", c.position, c.queued, asked)
		}
	}
}

// TestAcksOfPurgedMessages: the server forgets the deliveries of purged messages, and the
// sweep sends the other acks. Those far behind the last purge go at once.
func TestAcksOfPurgedMessages(t *testing.T) {
	t.Parallel()
	const all = 300
	b := brokertest.New(t, func(o *broker.Options) { o.QueueSize = all })
	needs := &fakeNeeds{position: all, needed: map[uint64]bool{201: true}}
	tail := broker.NewTail(b, needs, nil)
	shows, deliveries := fetch(t, b, all)
	nc, _ := connect(t, b)
	acks := make(chan *nats.Msg, all)
	if _, err := nc.ChanSubscribe("$JS.ACK.JOBS.>", acks); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, d := range deliveries {
		if d.Seq == 201 {
			continue
		}
		if err := tail.Ack(d); err != nil {
			t.Fatal(err)
		}
	}
	shows("acks wait", all)
	if err := tail.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	shows("after the sweep", 1)
	if err := nc.Flush(); err != nil { // what the server has passed on is here
		t.Fatal(err)
	}
	if sent := len(acks); sent != all-201 {
		t.Errorf("%d acks were sent, want those of the %d messages behind the purge", sent, all-201)
	}

	far := deliveries[200]
	far.Seq = 201 + broker.UnsentWithin
	if err := tail.Ack(far); err != nil {
		t.Fatal(err)
	}
	shows("far behind the purge", 0)
}

// fetch lets n messages be delivered. shows waits until so many of them have no ack.
func fetch(t *testing.T, b *broker.Broker, n int) (shows func(when string, open int), deliveries []jobs.Delivery) {
	t.Helper()
	_, js := connect(t, b)
	lane := jobs.Lane{Type: "email", Priority: 3}
	in := jobstest.NewInspector(n)
	if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, in); err != nil {
		t.Fatal(err)
	}
	for range n {
		submit(t, b, message("email", 3))
	}
	stored(t, b, uint64(n)) //nolint:gosec // few
	if err := b.Lanes.Pull(lane, n); err != nil {
		t.Fatal(err)
	}
	for range n {
		deliveries = append(deliveries, in.Next(t))
	}
	return func(when string, open int) {
		t.Helper()
		if err := b.Flush(); err != nil { // everything sent is there
			t.Fatal(err)
		}
		for late := time.Now().Add(patience); ; {
			c, err := js.Consumer(t.Context(), broker.JobsStream, lane.String())
			if err != nil {
				t.Fatal(err)
			}
			switch has := c.CachedInfo().NumAckPending; {
			case has == open:
				return
			case has < open || time.Now().After(late):
				t.Fatalf("%s: %d have no ack, want %d", when, has, open)
			}
		}
	}, deliveries
}

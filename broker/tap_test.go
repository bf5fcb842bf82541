package broker_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
)

// TestFeedChangesOver: whoever brings a message, a consumer or the tap, and whenever
// the one gives way to the other, all that is stored comes once and in its order.
func TestFeedChangesOver(t *testing.T) {
	var followed, met, overflown int
	rapid.Check(t, func(t *rapid.T) {
		s := &listStore{first: 1, subjects: make(map[uint64]string)}
		store := broker.NewTap(s)
		put := func() {
			subject := fmt.Sprint("jobs.a.", rapid.IntRange(1, 5).Draw(t, "priority"))
			_, _, _ = store.StoreMsg(subject, []byte("h"), []byte("body"), 0)
		}
		for range rapid.IntRange(0, 5).Draw(t, "older") {
			put()
		}
		most := rapid.IntRange(10, 200).Draw(t, "most")
		f := broker.NewFeed(store, 0, most)
		following, pending := f.Join(), false
		var at uint64 // the consumer's place
		underWay := 0 // what it has sent may still come when nothing is asked of it any more
		if !following {
			at = f.Consume(s.last)
		}
		var taken uint64
		mayLack := make(map[uint64]bool) // deleted before they were taken
		take := func() {
			seqs, bodies := f.Take()
			for i, seq := range seqs {
				for taken++; taken < seq; taken++ {
					if !mayLack[taken] {
						t.Fatalf("message %d came, %d was due", seq, taken)
					}
				}
				if taken != seq {
					t.Fatalf("message %d came again or too late, after %d", seq, taken-1)
				}
				if want := s.subjects[seq] + "hbody"; bodies[i] != want && !mayLack[seq] {
					t.Fatalf("message %d is %q, want %q", seq, bodies[i], want)
				}
			}
		}
		deliver := func() (more bool) {
			_, seq, err := s.LoadNextMsg(">", true, at, nil)
			switch {
			case following || err != nil:
				return false
			case f.Asked():
				underWay = 3
			case underWay > 0:
				underWay--
			default:
				return false
			}
			left := 0
			for k := range s.subjects {
				if k > seq {
					left++
				}
			}
			f.Deliver(seq, s.subjects[seq], []byte("h"), []byte("body"), left)
			at = seq + 1
			return true
		}
		turn := func(levelFirst bool) { // what keepReading does
			switch {
			case levelFirst && !following && f.Level():
				following = f.Join()
			case f.Broken():
				if following && f.Followed() {
					return // it was said of the consumer
				}
				if following {
					overflown++
				}
				if following = f.Join(); !following {
					at, underWay = f.Consume(s.last), 0
				}
			case !following && f.Level():
				if following = f.Join(); following {
					followed++
					if pending {
						met++
					}
				}
				pending = !following
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				const largest = len("jobs.a.3hbody")
				if n := f.Queued(); n > 2*(most+largest)+3*largest {
					t.Fatalf("%d bytes wait to be taken, of %d that may be under way", n, most)
				}
			},
			"store": func(t *rapid.T) {
				for range rapid.IntRange(1, 9).Draw(t, "messages") {
					put()
				}
			},
			"store past the tap": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "rarely") == 0 {
					_, _, _ = s.StoreMsg("jobs.a.3", nil, nil, 0)
				}
			},
			"deliver": func(t *rapid.T) {
				for range rapid.IntRange(1, 9).Draw(t, "messages") {
					deliver()
				}
			},
			"delete": func(t *rapid.T) {
				if s.last == 0 {
					return
				}
				seq := rapid.Uint64Range(1, s.last).Draw(t, "seq")
				mayLack[seq] = true
				delete(s.subjects, seq)
			},
			"lift": func(t *rapid.T) { // as a purge beyond the end does
				if rapid.IntRange(0, 9).Draw(t, "rarely") > 0 {
					return
				}
				for range rapid.IntRange(1, 3).Draw(t, "sequences") {
					s.last++
					mayLack[s.last] = true
				}
			},
			"take": func(*rapid.T) { take() },
			"turn": func(t *rapid.T) { turn(rapid.Bool().Draw(t, "level first")) },
			"a delivery is lost": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "rarely") == 0 {
					f.LoseDelivery()
				}
			},
		})
		put()                  // the last one is always found
		for range 4 * s.last { // each request may be for one message only
			turn(false)
			for deliver() {
			}
			take()
		}
		if taken != s.last {
			t.Fatalf("%d came last, stored were %d", taken, s.last)
		}
	})
	t.Logf("the tap was followed %d times, %d of them after a while together, and let go %d times", followed, met, overflown)
	if followed == 0 || overflown == 0 {
		t.Error("some way was not gone")
	}
}

// uneven is a sink that checks the order and now and then stops taking.
type uneven struct {
	mu    sync.Mutex
	next  uint64
	stops []uint64
	stop  chan chan struct{}
	fail  func(format string, args ...any)
	want  uint64
	done  chan struct{}
}

func (u *uneven) Submitted(m *jobs.Message) {
	u.mu.Lock()
	u.next++
	if m.Seq != u.next || string(m.Payload) == "" || m.Type != "email" {
		u.fail("message %d of type %q came, %d was due", m.Seq, m.Type, u.next)
	}
	stops := len(u.stops) > 0 && u.stops[0] == m.Seq
	if stops {
		u.stops = u.stops[1:]
	}
	if m.Seq == u.want {
		close(u.done)
	}
	u.mu.Unlock()
	if stops {
		on := make(chan struct{})
		u.stop <- on
		<-on
	}
}

func (u *uneven) Happened(uint64, []jobs.Event) {}

// TestTapUnderAFlood: several publishers, and a sink that stops so long that the
// reader must let go of the tap. It misses nothing, and follows again in the end.
func TestTapUnderAFlood(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const n, publishers = 40_000, 4
	b := brokertest.New(t)
	u := &uneven{stop: make(chan chan struct{}), fail: t.Errorf, want: n, done: make(chan struct{})}
	for range 5 {
		u.stops = append(u.stops, 1+r.Uint64N(n-1))
	}
	slices.Sort(u.stops)
	u.stops = slices.Compact(u.stops)
	stops := len(u.stops)
	readInto(t, b, jobs.Positions{}, u)
	awaitTap(t, b)
	payload := json.RawMessage(`"` + strings.Repeat("x", 500) + `"`)
	ahead := make(chan struct{}, n)
	for range publishers {
		go func() {
			for range n / publishers {
				m := message("email", 3)
				m.Payload = payload
				if err := b.Submit(m, nil); err != nil {
					t.Error(err)
				}
				ahead <- struct{}{}
			}
		}()
	}
	published := 0
	for range stops {
		on := <-u.stop
		for range min(10_000, n-published) { // more than may be under way
			<-ahead
			published++
		}
		close(on)
	}
	select {
	case <-u.done:
	case <-time.After(3 * patience):
		u.mu.Lock()
		t.Fatalf("message %d came last of %d", u.next, n)
	}
	awaitTap(t, b)
}

func awaitTap(t *testing.T, b *broker.Broker) {
	t.Helper()
	for late := time.Now().Add(patience); !b.TapFollowed(); {
		if time.Now().After(late) {
			t.Fatal("the tap is not followed")
		}
	}
}

// TestTapOfAStreamThatIsMadeAnew: somebody deletes JOBS and makes it again; the tap
// is in the old one.
func TestTapOfAStreamThatIsMadeAnew(t *testing.T) {
	t.Parallel()
	b := brokertest.New(t, withPort)
	_, js := connect(t, b)
	rec := newRecorder()
	readInto(t, b, jobs.Positions{}, rec)
	awaitTap(t, b)
	info, err := js.Stream(t.Context(), broker.JobsStream)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "jobs.email.3", []byte("1")); err != nil {
		t.Fatal(err)
	}
	heard := func(body string) {
		t.Helper()
		rec.until(t, "message "+body, func() bool {
			return slices.ContainsFunc(rec.messages, func(m *jobs.Message) bool { return string(m.Payload) == body })
		})
	}
	heard("1")
	if err := js.DeleteStream(t.Context(), broker.JobsStream); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), info.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	for i := range 5 { // the first of them may be taken for the one that was read
		if _, err := js.Publish(t.Context(), "jobs.email.3", []byte(strconv.Itoa(10+i))); err != nil {
			t.Fatal(err)
		}
	}
	heard("14")
	if _, err := js.Publish(t.Context(), "jobs.email.3", []byte("20")); err != nil {
		t.Fatal(err)
	}
	heard("20")
}

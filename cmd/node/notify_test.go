package node

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
	"jobstream/jobs"
)

// endsSeen gathers the jobs that commits end, in their order.
type endsSeen struct {
	mu    sync.Mutex
	ids   []jobs.ID
	count chan int // holds the latest number of them
}

func newEndsSeen() *endsSeen { return &endsSeen{count: make(chan int, 1)} }

func (e *endsSeen) committed(c *jobs.Commit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for j := range c.Ended() {
		e.ids = append(e.ids, j.ID)
	}
	select {
	case <-e.count:
	default:
	}
	e.count <- len(e.ids)
}

func (e *endsSeen) await(t *testing.T, n int) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case have := <-e.count:
			if have >= n {
				return
			}
		case <-late:
			t.Fatalf("fewer than %d jobs end", n)
		}
	}
}

// TestCommitsWithoutNotifications: while the stream of notifications is full, jobs
// come and end as ever. Then all of
// them are notified, also by the next process.
func TestCommitsWithoutNotifications(t *testing.T) {
	t.Parallel()
	const each, submitters = 3000, 100
	payload := []byte(`"` + strings.Repeat("x", 4<<10) + `"`)
	types := []string{"one", "two"}
	o := Options{Dir: t.TempDir(), NATS: ":0", Keyring: anybody(), Bounds: Bounds{Queue: 10_000}}
	ends := newEndsSeen()
	caughtUp := func(n *core) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		mustDo(t, n.notifier.caughtUp(ctx))
	}
	// full makes the stream refuse everything, or take it again.
	full := func(n *core, on bool) {
		nc, err := nats.Connect(n.Broker.ClientURL())
		mustDo(t, err)
		defer nc.Close()
		js, err := jetstream.New(nc)
		mustDo(t, err)
		stream, err := js.Stream(t.Context(), broker.NotificationsStream)
		mustDo(t, err)
		config := stream.CachedInfo().Config
		if config.MaxMsgSize = -1; on {
			config.MaxMsgSize = 1
		}
		_, err = js.UpdateStream(t.Context(), config)
		mustDo(t, err)
	}
	submit := func(n *core) {
		var all sync.WaitGroup
		for i := range submitters {
			all.Go(func() {
				for range each / submitters {
					s := &jobs.Submission{Type: types[i%len(types)], Priority: jobs.DefaultPriority, RetryCount: -1, Payload: payload}
					if _, _, err := n.Submitter.Submit(t.Context(), s); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
	}

	broken, n := open(t, o, typesOf(jobs.HandlerFunc(nothing), types...)...)
	n.Store.Listen(ends.committed)
	full(n, true)
	submit(n)
	ends.await(t, each)
	if got := notifiedIDs(t, n); len(got) != 0 {
		t.Fatalf("%d notifications are stored", len(got))
	}
	full(n, false)
	caughtUp(n)
	notified := make(map[jobs.ID]bool)
	for _, id := range notifiedIDs(t, n) {
		notified[id] = true
	}
	if len(notified) != each {
		t.Errorf("%d of %d jobs were notified", len(notified), each)
	}

	full(n, true)
	submit(n)
	ends.await(t, 2*each)
	before := len(notifiedIDs(t, n))
	broken.stopWatch()
	<-broken.watched
	broken.down(errors.New("as if it were killed"))

	_, n = open(t, o, typesOf(jobs.HandlerFunc(nothing), types...)...)
	caughtUp(n)
	// Recent notifications may be repeated first.
	got := notifiedIDs(t, n)[before:]
	if at := len(ends.ids) - len(got); at < 0 || at > each || !slices.Equal(got, ends.ids[at:]) {
		t.Errorf("%d jobs were notified after the restart, or in another order than they ended", len(got))
	}
}

// notifiedIDs are the jobs in the stream of notifications.
func notifiedIDs(t *testing.T, n *core) (ids []jobs.ID) {
	t.Helper()
	mustDo(t, n.Broker.Reader.Kept(t.Context(), func(body []byte) error {
		var j struct {
			ID jobs.ID `json:"id"`
		}
		ids = append(ids, jobs.ID{})
		err := json.Unmarshal(body, &j)
		ids[len(ids)-1] = j.ID
		return err
	}))
	return ids
}

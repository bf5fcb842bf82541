package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"time"

	"jobstream/broker"
	"jobstream/broker/client"
	"jobstream/httpapi"
	"jobstream/jobs"
	"jobstream/jobs/access"
)

// memberWorker is the work of a member that does not lead. It does jobs under leases of the
// leader, with its own handlers, so another leader interrupts none of them. A node that
// leads has the pool; what it had begun before goes on beside that.
type memberWorker struct {
	mu    sync.Mutex
	over  bool               // it does not begin any more
	stop  context.CancelFunc // nil: it has not begun
	ended chan struct{}
	look  func() // beats at once; nil: nobody listens
}

// followPause is how often a worker looks whether its node still leads.
const followPause = 250 * time.Millisecond

// work begins the work.
func (m *member) work(all []broker.Endpoint) {
	types := m.workTypes()
	if len(types) == 0 {
		return
	}
	w := &m.worker
	who := &access.Principal{Name: access.Anonymous, Scopes: []access.Scope{access.Work}, Member: true}
	handle := make(map[string]func(context.Context, *broker.Request) ([]byte, error), len(all))
	for _, e := range all {
		handle[e.Name] = e.Handle
	}
	c := client.Over(&client.Way{
		Do: func(ctx context.Context, name string, body []byte) ([]byte, error) {
			if name == "worker.next" && m.waitUntilFollowing(ctx) {
				return []byte(`{"leases":[]}`), nil
			}
			q := broker.NewRequest(who, nil, body, innerBody, func() bool { return ctx.Err() != nil })
			q.Realm = realm
			return handle[name](ctx, q)
		},
		Files: httpapi.As(who, m), Revoked: w.listen, Grace: func() context.Context { return *m.grace.Load() },
	})
	ctx, stop := context.WithCancel(context.Background())
	if !w.begin(stop) {
		stop()
		return
	}
	m.store.Listen(w.committed)
	o := client.Options{
		Concurrency: min(m.n.o.Workers.Max, jobs.MaxLeases), Name: jobs.MemberWorker(m.n.o.Name, strings.ToLower(rand.Text()[:8])),
		Types: types, Logger: m.n.log,
	}
	go func() {
		defer close(w.ended)
		if err := c.Work(ctx, m.n.registry, o); err != nil && ctx.Err() == nil {
			m.n.breaks(fmt.Errorf("this node does no jobs any more: %w", err))
		}
	}()
}

// workTypes are the types that this node does under leases.
func (m *member) workTypes() (names []string) {
	for _, t := range m.n.registry.Types() {
		if t.Anywhere() {
			names = append(names, t.Name)
		}
	}
	if len(names) > jobs.MaxAskTypes {
		m.n.log.Warn("this node has more types than it can ask the leader for; it does the others only while it leads", "types", len(names), "most", jobs.MaxAskTypes)
		names = names[:jobs.MaxAskTypes]
	}
	return names
}

// begin is false if the node stops already.
func (w *memberWorker) begin(stop context.CancelFunc) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return false
	}
	w.stop, w.ended = stop, make(chan struct{})
	return true
}

// waitUntilFollowing waits while this node leads. It says whether it did.
func (m *member) waitUntilFollowing(ctx context.Context) (led bool) {
	for m.machine.Leads() && ctx.Err() == nil {
		led = true
		sleep(ctx, followPause)
	}
	return led
}

// listen is [client.Way.Revoked].
func (w *memberWorker) listen(look func()) (stop func()) {
	w.set(look)
	return func() { w.set(nil) }
}

func (w *memberWorker) set(look func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look = look
}

// committed has the worker look at its jobs when some were ended or deleted by hand.
func (w *memberWorker) committed(c *jobs.Commit) {
	for i := range c.Changes {
		before, after := c.Changes[i].Before, c.Changes[i].After
		if before == nil || before.Status != jobs.Processing || !jobs.OfMember(before.Node) {
			continue
		}
		if after == nil || after.Status == jobs.Cancelled || after.Status == jobs.Failed {
			w.mu.Lock()
			if w.look != nil {
				w.look()
			}
			w.mu.Unlock()
			return
		}
	}
}

// end ends the work: what runs gets the grace, and goes back to the queue then.
func (w *memberWorker) end() {
	w.mu.Lock()
	w.over = true
	stop, ended := w.stop, w.ended
	w.mu.Unlock()
	if stop != nil {
		stop()
		<-ended
	}
}

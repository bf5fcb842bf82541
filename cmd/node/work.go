package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	look  func() // has the worker look at its jobs and their number; nil: nobody listens

	max atomic.Int32 // jobs at a time
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
		Files: httpapi.As(who, m), Most: w.most, Listen: w.listen, Grace: func() context.Context { return *m.grace.Load() },
	})
	ctx, stop := context.WithCancel(context.Background())
	if !w.begin(stop) {
		stop()
		return
	}
	m.store.Listen(w.committed)
	o := client.Options{
		Name:  jobs.MemberWorker(m.n.o.Name, strings.ToLower(rand.Text()[:8])),
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

// most is how many jobs this node does at a time under leases.
func (w *memberWorker) most() int { return min(int(w.max.Load()), jobs.MaxLeases) }

// resize changes the number of workers of this node, until its next start.
func (w *memberWorker) resize(most int) {
	w.max.Store(int32(most))
	w.wake()
}

// wake has the worker look, if it works.
func (w *memberWorker) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.look != nil {
		w.look()
	}
}

// resizePath is where the leader tells a member its number of workers.
const resizePath = "/inner/workers/"

// serveResize is the leader's word.
func (m *member) serveResize(w http.ResponseWriter, r *http.Request) {
	most, err := strconv.ParseInt(r.PathValue("most"), 10, 32)
	if err != nil || most < 1 || most > jobs.MaxPoolSize {
		http.Error(w, "this is no number of workers", http.StatusBadRequest)
		return
	}
	m.worker.resize(int(most))
	m.n.log.Info("workers resized", "max_workers", most)
}

// resizeTime is how long another member may take to hear of its number of workers.
const resizeTime = 2 * time.Second

// tell has another member change its number of workers.
func (m *member) tell(ctx context.Context, node string, most int) error {
	ctx, cancel := context.WithTimeout(ctx, resizeTime)
	defer cancel()
	answer, err := m.askInner(ctx, http.MethodPost, node, resizePath+strconv.Itoa(most))
	if err != nil {
		return err
	}
	return answer.Close() // it is empty
}

// others are the other nodes whose number of workers a wish changes: the one that it names, or
// all that are there. What is not for this node, which leads, is taken out of the wish.
func (m *member) others(wish *jobs.Resize) (others []string, err error) {
	if wish.Node == m.n.o.Name {
		return nil, nil
	}
	var names []string
	for _, n := range m.Nodes() {
		names = append(names, n.Name)
		if n.Name == wish.Node || wish.Node == "" && n.Name != m.n.o.Name && n.Workers > 0 { // else it has said nothing for a while
			others = append(others, n.Name)
		}
	}
	switch {
	case wish.Node == "":
		return others, nil
	case len(others) == 0:
		return nil, noNode(wish.Node, names...)
	case wish.MinWorkers != nil:
		return nil, jobs.Invalid("/min_workers", "counts at the node that leads only, which is "+m.n.o.Name)
	}
	wish.MaxWorkers = nil
	return others, nil
}

// tellAll has other members change their numbers of workers.
func (m *member) tellAll(ctx context.Context, nodes []string, most int) error {
	var failed []string
	for _, name := range nodes {
		if err := m.tell(ctx, name, most); err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", name, err))
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return &jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: "not all nodes have heard of their number of workers; try again: " + strings.Join(failed, "; ")}
}

func noNode(name string, known ...string) error {
	return jobs.Invalid("/node", fmt.Sprintf("%s is not a node of this server; there is %s", jobs.Quote(name), strings.Join(known, ", ")))
}

// elsewhere is how many jobs the other members do at a time, at most.
func (m *member) elsewhere() (workers int) {
	for _, n := range m.Nodes() {
		if n.Name != m.n.o.Name {
			workers += n.Workers
		}
	}
	return workers
}

// listen is [client.Way.Listen].
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
			w.wake()
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

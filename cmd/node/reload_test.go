package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// conf is a configuration that a test changes.
type conf struct {
	mu      sync.Mutex
	types   []*jobs.Type
	restart []string
	err     error
}

func (c *conf) read() (Reread, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Reread{Types: slices.Clone(c.types), NeedsRestart: c.restart}, c.err
}

func (c *conf) set(types ...*jobs.Type) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.types = types
}

// reloaded reloads, which must work.
func reloaded(t *testing.T, n *Node) *api.Reloaded {
	t.Helper()
	r, err := n.Reload(t.Context())
	mustDo(t, err)
	return r
}

// submitted submits a job and returns it, or the kind of the error.
func submitted(t *testing.T, n *Node, typ string) (*jobs.Job, jobs.ErrorKind) {
	t.Helper()
	j, err := n.Submit(t.Context(), &jobs.Submission{Type: typ, Priority: 3, RetryCount: -1})
	if err == nil {
		return j, ""
	}
	e, _ := jobs.AsError(err)
	return nil, e.Kind
}

// ended waits for the end of a job.
func ended(t *testing.T, n *Node, id jobs.ID, want jobs.Status) *jobs.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	j, err := n.Wait(ctx, id)
	mustDo(t, err)
	if j == nil || j.Status != want {
		t.Fatalf("the job is %+v, want it %s", j, want)
	}
	return j
}

// TestReload adds, changes and removes types. Each is known, or is not, from the answer
// on; a removed one's jobs wait until it is back.
func TestReload(t *testing.T) {
	t.Parallel()
	c := &conf{}
	gate := make(chan struct{})
	old := typesOf(gated(gate), "stays", "goes")
	old[1].Backoff = jobs.DefaultBackoff()
	c.set(old...)
	n, _ := open(t, Options{Handlers: Handlers{Reread: c.read}, NATS: ":0", Keyring: anybody()}, old...)
	running, _ := submitted(t, n, "goes")
	if r := reloaded(t, n); len(r.Added)+len(r.Changed)+len(r.Removed) > 0 {
		t.Errorf("a reload of nothing says %+v", r)
	}

	next := *old[0]
	next.RetryCount = 7
	c.set(&next, typesOf(jobs.HandlerFunc(echo), "comes")[0])
	c.restart = []string{"server.port"}
	r := reloaded(t, n)
	if fmt.Sprint(*r) != "{[comes] [stays] [goes] [] [server.port]}" {
		t.Errorf("the reload says %+v", *r)
	}
	if _, kind := submitted(t, n, "goes"); kind != jobs.UnknownType {
		t.Errorf("a removed type gives %q", kind)
	}
	if j, kind := submitted(t, n, "stays"); kind != "" || j.MaxAttempts != 8 {
		t.Errorf("a changed type gives %q, %+v", kind, j)
	}
	j, kind := submitted(t, n, "comes")
	if kind != "" {
		t.Fatalf("a new type gives %q", kind)
	}
	ended(t, n, j.ID, jobs.Completed)
	nc, err := nats.Connect(n.NATSURL())
	mustDo(t, err)
	defer nc.Close()
	m, err := nc.Request("jobstream.submit", []byte(`{"type":"comes"}`), patience)
	if mustDo(t, err); m.Header.Get("Nats-Service-Error-Code") != "" {
		t.Errorf("over NATS a new type gives %s", m.Data)
	}
	m, err = nc.Request("jobstream.reload", nil, patience)
	if mustDo(t, err); string(m.Data) != `{"added":[],"changed":[],"removed":[],"taken_up":[],"needs_restart":["server.port"]}` {
		t.Errorf("over NATS the answer is %s", m.Data)
	}
	if info := fmt.Sprint(n.typeNames(t)); info != "[comes stays]" {
		t.Errorf("the types are %s", info)
	}

	close(gate)
	ended(t, n, running.ID, jobs.Completed) // without its type
	c.set(append(old, c.types...)[1:]...)
	reloaded(t, n)
	j, _ = submitted(t, n, "goes")
	ended(t, n, j.ID, jobs.Completed)
}

// typeNames are the types that REST shows.
func (n *Node) typeNames(t *testing.T) (names []string) {
	t.Helper()
	back := newBackend(n.core.Load(), nil)
	all, err := back.Types.Types(t.Context())
	mustDo(t, err)
	for i := range all {
		names = append(names, all[i].Name)
	}
	return names
}

// TestReloadFails: nothing changes, and the error says why.
func TestReloadFails(t *testing.T) {
	t.Parallel()
	c := &conf{}
	one, two := typesOf(jobs.HandlerFunc(echo), "one"), typesOf(jobs.HandlerFunc(echo), "two")
	c.set(one...)
	n, core := open(t, Options{Handlers: Handlers{Reread: c.read}}, one...)
	unchanged := func(what string, want jobs.ErrorKind) {
		t.Helper()
		_, err := n.Reload(t.Context())
		if e, ok := jobs.AsError(err); !ok || e.Kind != want {
			t.Errorf("%s: %v", what, err)
		}
		if n.registry.Lookup("one") == nil || n.registry.Lookup("two") != nil {
			t.Errorf("%s: the types are %v", what, n.registry.Names())
		}
	}
	c.set(two...)
	c.err = jobs.Invalid("config/jobs.two.timeout", "is not a duration")
	unchanged("a wrong file", jobs.InvalidRequest)
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/reload", nil))
	if w.Code != 422 || !strings.Contains(w.Body.String(), `"errors":[{"pointer":"config/jobs.two.timeout"`) {
		t.Errorf("over REST: %d %s", w.Code, w.Body)
	}

	c.err = nil
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Reload(interrupted); err == nil || n.registry.Lookup("one") == nil {
		t.Errorf("interrupted: %v", err)
	}
	if _, kind := submitted(t, n, "one"); kind != "" {
		t.Errorf("after an interruption: %q", kind)
	}

	n.stopWatch()
	<-n.watched
	n.watched = make(chan struct{})
	close(n.watched)
	n.rest.Drain()
	mustDo(t, core.drain(t.Context()))
	unchanged("while it stops", jobs.ShuttingDown)

	<-n.down(errors.New("as if it were stuck"))
	unchanged("while it heals", jobs.Unavailable)
	mustDo(t, n.up(t.Context()))
	reloaded(t, n)
	j, _ := submitted(t, n, "two")
	ended(t, n, j.ID, jobs.Completed)

	without, _ := open(t, Options{}, one...)
	if _, err := without.Reload(t.Context()); err == nil {
		t.Error("a node without a configuration was reloaded")
	}
}

// TestReloadUnderLoad exchanges the types at random while jobs come in and run, and the
// core is broken off in between. Every accepted job runs, and none twice unless a core
// was broken off under it.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	runs, round := make(map[jobs.ID]int), make(chan struct{})
	handler := jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
		mu.Lock()
		runs[task.Job.ID]++
		end := round
		mu.Unlock()
		return gated(end)(ctx, task) // it runs during the next reload
	})
	next := func(c chan struct{}) {
		mu.Lock()
		defer mu.Unlock()
		close(round)
		round = c
	}
	names := []string{"a", "b", "c", "d"}
	some := func() (types []*jobs.Type) {
		for _, typ := range typesOf(handler, names...) {
			typ.MaxWorkers, typ.RetryCount = rng.IntN(3), rng.IntN(3)
			if rng.IntN(3) > 0 {
				types = append(types, typ)
			}
		}
		return types
	}
	c := &conf{}
	c.set(typesOf(handler, names...)...)
	n, _ := open(t, Options{Handlers: Handlers{Reread: c.read}, Recovery: Recovery{HealPause: time.Millisecond}}, c.types...)
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var accepted []jobs.ID
	for i := range 5 * len(names) {
		clients.Go(func() {
			for ctx.Err() == nil {
				j, kind := submitted(t, n, names[i%len(names)]) //nolint:contextcheck // the end of ctx cuts nothing off
				switch kind {
				case "":
					if j.Status.Ended() && j.Status != jobs.Completed {
						t.Errorf("a job was accepted as %+v", j)
					}
					mu.Lock()
					accepted = append(accepted, j.ID)
					mu.Unlock()
				case jobs.UnknownType, jobs.Unavailable, jobs.ShuttingDown:
				default:
					t.Errorf("a submission gives %q", kind)
				}
			}
		})
	}
	const rounds = 60
	for i := range rounds {
		c.set(some()...)
		if i%20 == 10 {
			n.core.Load().health.stuck <- errors.New("as if it were stuck")
		}
		for {
			_, err := n.Reload(t.Context())
			if err == nil {
				break
			}
			if e, ok := jobs.AsError(err); !ok || e.Kind != jobs.Unavailable && e.Kind != jobs.ShuttingDown {
				t.Fatal(err)
			}
			runtime.Gosched()
		}
		next(make(chan struct{}))
	}
	stop()
	done := make(chan struct{})
	close(done)
	next(done)
	clients.Wait()
	c.set(typesOf(handler, names...)...)
	reloaded(t, n)
	for _, id := range accepted {
		ended(t, n, id, jobs.Completed)
	}
	mu.Lock()
	defer mu.Unlock()
	twice := 0
	for _, times := range runs {
		if times > 1 {
			twice++
		}
	}
	t.Logf("%d jobs, %d of them ran again after a broken core", len(accepted), twice)
	if len(accepted) == 0 || twice > rounds/20*10 { // each core had ten workers
		t.Errorf("of %d jobs %d ran twice", len(accepted), twice)
	}
}

// TestReloadLeavesNothing reloads often, with new names each time: no goroutine and no
// consumer is left over.
func TestReloadLeavesNothing(t *testing.T) {
	c := &conf{}
	first := typesOf(jobs.HandlerFunc(echo), "first")
	c.set(first...)
	n, core := open(t, Options{Handlers: Handlers{Reread: c.read}}, first...)
	nc, err := nats.Connect("", nats.InProcessServer(core.Broker))
	mustDo(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	mustDo(t, err)
	consumers := func() int {
		s, err := js.Stream(t.Context(), "JOBS")
		mustDo(t, err)
		return s.CachedInfo().State.Consumers
	}
	before, goroutines := consumers(), runtime.NumGoroutine()
	for round := range 200 {
		name := fmt.Sprint("round-", round)
		c.set(append(typesOf(jobs.HandlerFunc(echo), name), first...)...)
		reloaded(t, n)
		j, _ := submitted(t, n, name)
		ended(t, n, j.ID, jobs.Completed)
	}
	c.set(first...)
	reloaded(t, n)
	if got := consumers(); got != before {
		t.Errorf("%d consumers, %d at first", got, before)
	}
	const few = 50 // they come and go, and one left by each reload would be too many
	for end := time.Now().Add(patience); runtime.NumGoroutine() > goroutines+few && time.Now().Before(end); {
		runtime.Gosched()
	}
	if got := runtime.NumGoroutine(); got > goroutines+few {
		t.Errorf("%d goroutines, %d at first", got, goroutines)
	}
	if all := core.Pool.Workers().Types; len(all) != 1 {
		t.Errorf("the pool has the types %v", all)
	}
}

// keeper is a handler that counts how often it had to let go.
type keeper struct {
	jobs.HandlerFunc
	closed atomic.Int32
}

func (k *keeper) CloseIdle() { k.closed.Add(1) }

// TestReloadClosesIdle has handlers let go of what they keep: when their type is changed or
// removed, and in the end.
func TestReloadClosesIdle(t *testing.T) {
	t.Parallel()
	var stays, changes, goes keeper
	types := []*jobs.Type{typesOf(&stays, "stays")[0], typesOf(&changes, "changes")[0], typesOf(&goes, "goes")[0]}
	c := &conf{}
	c.set(types...)
	n, err := Open(t.Context(), Options{Dir: t.TempDir(), Handlers: Handlers{Reread: c.read}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}, jobs.NewRegistry(types...))
	mustDo(t, err)
	want := func(when string, counts ...int32) {
		t.Helper()
		if got := []int32{stays.closed.Load(), changes.closed.Load(), goes.closed.Load()}; !slices.Equal(got, counts) {
			t.Errorf("%s they have closed %v times, want %v", when, got, counts)
		}
	}
	reloaded(t, n)
	want("without a change", 0, 0, 0)
	next := *types[1]
	c.set(types[0], &next)
	reloaded(t, n)
	want("after the reload", 0, 1, 1)
	atOnce, cancel := context.WithCancel(t.Context())
	cancel()
	mustDo(t, n.Shutdown(atOnce))
	want("in the end", 1, 2, 1)
}

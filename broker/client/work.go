package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
)

// Options are the settings of a worker. All may be missing.
type Options struct {
	// Types are those of the registry that the worker does; nil = all that have a function.
	Types []string
	// Concurrency is how many jobs run at a time, at most [jobs.MaxLeases]; 0 = 10. Of jobs
	// that take some milliseconds the worker has more, which wait for a moment.
	Concurrency int
	// Name is the worker's in lists and events: up to 64 letters, digits, _, -, @ and #. No
	// other worker has it. "" = the name of the machine, and something at random.
	Name string
	// Grace is how long running jobs may go on when the worker is to stop; 0 = 10 s, below 0
	// = not at all. The server then gives them to others.
	Grace time.Duration
	// REST is the address of the server's REST side, like http://127.0.0.1:8080. Tasks need it
	// for files, [jobs.Task.Artifact] and [jobs.Task.Input], and for nothing else. The token
	// and the TLS of the connection count there, too.
	REST string
	// Figures are kept up to date by the worker; nil: nobody looks.
	Figures *Figures
	// Logger gets what the worker does and what goes wrong; nil: silence.
	Logger *slog.Logger
}

// Work does jobs with the handlers of a registry until ctx ends: each in this process, under
// a lease of the server. A handler cannot tell that from a server's own process. Its
// context has the same causes, and one more, [ErrLost]. The server's settings of a type
// count, all but [jobs.Type.Grace]. Its types must be remote there: run: remote in the
// configuration, or [jobs.Definition.Remote] in a program.
//
// After the end of ctx no job begins. Running ones have [Options.Grace]; then they are
// interrupted, and go back to the queue without an attempt used up. The error is nil then,
// unless the server could not be notified. Before that, Work returns only if nothing makes
// sense any more: the server does not know a type or does not let the worker in, or the
// connection is closed.
func (c *Client) Work(ctx context.Context, r *jobs.Registry, o Options) error {
	w, err := newWorker(c, r, o)
	if err != nil {
		return err
	}
	var end context.CancelFunc
	w.life, end = context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stop, err := w.listen()
	if err != nil {
		return err
	}
	defer stop()
	beating := make(chan struct{})
	go func() { defer close(beating); w.beat() }()
	err = w.ask(ctx)
	err = errors.Join(err, w.drain(end))
	end()
	<-beating
	w.closeIdle()
	return err
}

// listen has the worker beat at once when the server may have ended an execution, until stop
// is called.
func (w *worker) listen() (stop func(), err error) {
	if w.c.way != nil {
		return w.c.way.Listen(func() { wake(w.news); wake(w.free) }), nil
	}
	revoked, err := w.c.nc.Subscribe(subject("worker.cancel."+w.o.Name), func(*nats.Msg) { wake(w.news) })
	if err != nil {
		return nil, err
	}
	return func() { _ = revoked.Unsubscribe() }, nil // it fails only if the connection is closed
}

// defaultWorkers is the [Options.Concurrency] of those who do not say.
const defaultWorkers = 10

// worker is one call of [Client.Work].
type worker struct {
	c      *Client
	o      Options
	types  []string
	r      *jobs.Registry
	log    *slog.Logger
	door   *door           // nil: nobody has said where REST is
	life   context.Context // ends when nothing can be reported any more
	news   chan struct{}   // has an element: beat at once
	sooner chan struct{}   // has an element: a beat is due before the next one
	free   chan struct{}   // has an element: a job has ended
	runs   sync.WaitGroup  // the tasks

	ends ends

	mu       sync.Mutex
	due      time.Time        // when the next beat is
	tasks    map[string]*task // whose end is not reported, by the tokens of their leases
	ahead    ahead
	untold   int  // tasks whose end could not be reported
	accepted bool // an ask was answered
}

func newWorker(c *Client, r *jobs.Registry, o Options) (*worker, error) {
	w := &worker{c: c, o: o, r: r, log: o.Logger, news: make(chan struct{}, 1), sooner: make(chan struct{}, 1), free: make(chan struct{}, 1), tasks: make(map[string]*task)}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	w.o.Figures = cmp.Or(o.Figures, new(Figures))
	w.o.Concurrency = cmp.Or(o.Concurrency, defaultWorkers)
	w.o.Name = cmp.Or(o.Name, someName())
	w.o.Grace = max(cmp.Or(o.Grace, 10*time.Second), 0)
	switch {
	case w.o.Concurrency < 1 || w.o.Concurrency > jobs.MaxLeases:
		return nil, fmt.Errorf("client: Options.Concurrency is %d; it must be from 1 to %d", o.Concurrency, jobs.MaxLeases)
	case !jobs.ValidWorkerName(w.o.Name):
		return nil, fmt.Errorf("client: Options.Name is %s; it must be 1 to %d letters, digits, _, -, @ or #", jobs.Quote(o.Name), jobs.MaxWorkerName)
	}
	switch {
	case c.way != nil:
		w.door = &door{c: c, base: "http://leader", http: &http.Client{Transport: c.way.Files}}
	case o.REST != "":
		var err error
		if w.door, err = newDoor(c, o.REST); err != nil {
			return nil, err
		}
	}
	return w, w.choose()
}

// choose finds the types to ask for.
func (w *worker) choose() error {
	for _, t := range w.r.Types() {
		if t.Handler != nil && !t.Remote && !t.Internal && (w.c.way == nil || t.Anywhere()) {
			w.types = append(w.types, t.Name)
		}
	}
	can := w.types
	if len(w.o.Types) > 0 {
		w.types = w.o.Types
	}
	for _, name := range w.types {
		if !slices.Contains(can, name) {
			return fmt.Errorf("client: Options.Types has %s, for which the registry has no function; it has some for %s", jobs.Quote(name), strings.Join(can, ", "))
		}
	}
	if n := len(w.types); n == 0 || n > jobs.MaxAskTypes {
		return fmt.Errorf("client: the worker would have %d types; 1 to %d are possible", n, jobs.MaxAskTypes)
	}
	return nil
}

// someName is a name that no other worker has.
func someName() string {
	const machine = 40 // bytes of it
	host, _ := os.Hostname()
	host = strings.Map(func(r rune) rune {
		if !jobs.ValidWorkerName(string(r)) {
			return '-'
		}
		return r
	}, host)
	return cmp.Or(host[:min(len(host), machine)], "worker") + "-" + strings.ToLower(rand.Text()[:8])
}

// wake notifies whoever waits at a channel with room for one element.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ask asks for jobs and begins them, until ctx ends. The error is a reason to give up. The
// first ask, and that after a failure, wait for no job: their answer says that the server
// is there.
func (w *worker) ask(ctx context.Context) error {
	wait := time.Duration(0)
	for n := 0; ctx.Err() == nil; {
		room := w.room()
		if room == 0 {
			select {
			case <-w.free:
			case <-ctx.Done():
			}
			continue
		}
		asked := time.Now()
		most := min(room, jobs.MaxAsk)
		leases, err := w.next(ctx, most, wait)
		if ctx.Err() == nil {
			w.o.Figures.asked(err)
		}
		if err == nil {
			n, wait = 0, askTime
			w.accept(leases, asked, len(leases) == most)
			continue
		}
		if err := w.askAgain(ctx, n, err); err != nil {
			return err
		}
		n, wait = n+1, 0
	}
	return nil
}

// askAgain waits after the n-th ask in a row that has failed. The error is a reason to give
// up.
func (w *worker) askAgain(ctx context.Context, n int, why error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // a worker that is to stop has ended well
	}
	if err := w.hopeless(why); err != nil {
		return err
	}
	w.elsewhere(n, why)
	w.log.Log(ctx, level(n), "cannot ask for jobs; it is tried again", "worker", w.o.Name, "error", why)
	if w.c.pause(ctx, n+1, why) != nil {
		return w.c.closed() // nil if ctx has ended
	}
	return nil
}

// elsewhere connects to another server of a cluster, if this one has said some times that it
// cannot answer.
func (w *worker) elsewhere(n int, why error) {
	e, known := jobs.AsError(why)
	if w.c.way != nil || !known || e.Kind != jobs.Unavailable && e.Kind != jobs.ShuttingDown || n%3 != 2 || len(w.c.nc.Servers()) < 2 {
		return
	}
	if err := w.c.nc.ForceReconnect(); err != nil {
		w.log.Debug("the worker stays where it is", "worker", w.o.Name, "error", err)
	}
}

// level is that of a line about the n-th failure in a row: a short one interests nobody.
func level(n int) slog.Level {
	if n == 3 {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// room is how many jobs may come.
func (w *worker) room() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(min(w.ahead.room(w.most()), jobs.MaxLeases-len(w.tasks)), 0)
}

// most is how many jobs run at a time.
func (w *worker) most() int {
	if w.c.way != nil {
		return w.c.way.Most()
	}
	return w.o.Concurrency
}

// hopeless is the error of an ask if no later one can succeed. A type that the server does
// not know is one only at first: later it may be on its way back.
func (w *worker) hopeless(err error) error {
	if again(err) {
		return nil
	}
	if w.c.way != nil {
		return nil // the leader may have another configuration, or another version, for a while
	}
	e, known := jobs.AsError(err)
	switch {
	case !known:
		return err
	case e.Kind == jobs.UnknownType:
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.accepted {
			return nil
		}
		return fmt.Errorf("client: the server has no jobs for workers of %s: %w; such a type has run: remote in its configuration, or comes from Definition.Remote in its program", strings.Join(w.types, ", "), err)
	case e.Kind == jobs.TooMany || e.Kind == jobs.Internal:
		return nil
	}
	return fmt.Errorf("client: the server refuses the worker: %w", err)
}

// accept begins the jobs of leases. A lease lasts from the moment at which it was asked for,
// as far as the worker can know. If that was a while ago, a beat renews it first. all says
// that there were as many as it wanted.
func (w *worker) accept(leases []jobs.Lease, asked time.Time, all bool) {
	w.mu.Lock()
	w.accepted = true
	if all {
		w.ahead.asked(time.Since(asked))
	}
	w.mu.Unlock()
	late := slices.ContainsFunc(leases, func(l jobs.Lease) bool { return time.Since(asked) > l.Span/3 })
	var lost []string
	if late {
		asked = time.Now()
		b, err := w.renew(leases)
		if err != nil {
			w.log.Warn("jobs have come, and the connection was lost then; they are given back", "worker", w.o.Name, "jobs", len(leases), "error", err)
			w.giveBack(leases)
			return
		}
		lost = b.Lost
		for token := range b.Cancelled {
			lost = append(lost, token)
		}
	}
	for i := range leases {
		if !slices.Contains(lost, leases[i].Token) {
			w.begin(&leases[i], asked)
		}
	}
}

// drain waits for the running jobs and their reports. When the grace is over it interrupts
// them; when that takes too long as well, end ends the reports.
func (w *worker) drain(end func()) error {
	w.giveBackAll()
	ended := make(chan struct{})
	go func() { w.runs.Wait(); close(ended) }()
	within := func(ctx context.Context) bool {
		select {
		case <-ended:
			return true
		case <-ctx.Done():
			return false
		}
	}
	grace, cancel := w.grace()
	defer cancel()
	if !within(grace) {
		late, cancel := context.WithTimeout(context.Background(), w.interrupt()+reportTime)
		defer cancel()
		if !within(late) {
			end()
			<-ended
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.untold == 0 {
		return nil
	}
	return fmt.Errorf("client: the server could not be notified of the ends of %d jobs; their leases end, and they run again", w.untold)
}

// grace ends when running jobs are to end.
func (w *worker) grace() (context.Context, context.CancelFunc) {
	if w.c.way != nil {
		return w.c.way.Grace(), func() {}
	}
	return context.WithTimeout(context.Background(), w.o.Grace)
}

// reportTime is how long a worker that stops tries to reach the server.
const reportTime = 10 * time.Second

// interrupt interrupts what runs. It returns how long that may take.
func (w *worker) interrupt() (grace time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.tasks {
		grace = max(grace, t.typ.GraceOrDefault())
		t.cancel(jobs.ErrShutdown)
	}
	return grace
}

// closeIdle closes what handlers have kept open.
func (w *worker) closeIdle() {
	for _, name := range w.types {
		if t := w.r.Admitted(name); t != nil {
			if c, ok := t.Handler.(jobs.IdleCloser); ok {
				c.CloseIdle()
			}
		}
	}
}

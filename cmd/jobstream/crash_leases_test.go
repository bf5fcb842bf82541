package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
)

// The crash tests of leases have workers in processes of their own (this test binary,
// started again), which are killed with SIGKILL, and a line between them and the server
// that can lose one direction. The type far is theirs; its leases last five seconds.

const (
	workerEnv  = "TEST_WORKER_NOTES" // says that this process is a worker, and where it notes what it does
	workerURL  = "TEST_WORKER_URL"   // of REST, or of NATS
	workerName = "TEST_WORKER_NAME"
)

// runWorker is a worker. It notes the begin and the acknowledged end of each job in a
// file. A job takes as long as its payload says.
func runWorker(file string) int {
	notes, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	w := &process{name: os.Getenv(workerName), notes: notes}
	if at := os.Getenv(workerURL); strings.HasPrefix(at, "nats:") {
		nc, err := nats.Connect(at, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.RetryOnFailedConnect(true))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		w.send = func(verb, _ string, body []byte, d time.Duration) (string, []byte, error) {
			m, err := nc.Request("jobstream.worker."+verb, body, d)
			if err != nil {
				return "", nil, err
			}
			return m.Header.Get("Nats-Service-Error-Code"), m.Data, nil
		}
	} else {
		w.send = overREST(at)
	}
	for {
		w.one()
	}
}

// overREST sends the requests of a worker over REST.
func overREST(at string) func(verb, lease string, body []byte, d time.Duration) (string, []byte, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return func(verb, lease string, body []byte, d time.Duration) (string, []byte, error) {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		path := map[string]string{"next": "/leases", "beat": "/leases/beat", "done": "/leases/" + lease + "/done"}[verb]
		if verb == "done" {
			body = []byte("{}")
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, at+path, strings.NewReader(string(body)))
		if err != nil {
			return "", nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return "", nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		answer, err := io.ReadAll(resp.Body)
		if code := resp.StatusCode; code != http.StatusOK {
			return fmt.Sprint(code), answer, err
		}
		return "", answer, err
	}
}

// process is the worker of a process.
type process struct {
	name  string
	notes *os.File
	send  func(verb, lease string, body []byte, d time.Duration) (code string, answer []byte, err error)
}

// one does one job, if there is one.
func (w *process) one() {
	asked := time.Now()
	code, b, err := w.send("next", "", fmt.Appendf(nil, `{"types":["far"],"worker":%q,"wait":"5s"}`, w.name), 10*time.Second)
	var a struct{ Leases []*leaseOf }
	if err != nil || code != "" || json.Unmarshal(b, &a) != nil || len(a.Leases) == 0 {
		time.Sleep(rand.N(100 * time.Millisecond)) // as a worker does
		return
	}
	l := a.Leases[0]
	w.note("begins", l)
	var in struct{ MS int }
	_ = json.Unmarshal(l.Job.Payload, &in)
	until := asked.Add(jobs.MinLease)
	for end := time.Now().Add(time.Duration(in.MS) * time.Millisecond); time.Now().Before(end); {
		time.Sleep(min(time.Until(end), time.Second)) // the work
		sent := time.Now()
		_, b, err := w.send("beat", "", fmt.Appendf(nil, `{"worker":%q,"leases":[%q]}`, w.name, l.Lease), time.Second)
		var beat struct {
			Lost   []string
			Cancel map[string]string
		}
		if err == nil && json.Unmarshal(b, &beat) == nil && len(beat.Lost)+len(beat.Cancel) == 0 {
			until = sent.Add(jobs.MinLease)
		}
		if len(beat.Lost)+len(beat.Cancel) > 0 || time.Now().After(until) {
			return
		}
	}
	for time.Now().Before(until.Add(10 * jobs.MinLease)) { // the server may be away for a while
		switch code, _, err := w.send("done", l.Lease, fmt.Appendf(nil, `{"lease":%q}`, l.Lease), 2*time.Second); {
		case err != nil || strings.HasPrefix(code, "5"):
			time.Sleep(rand.N(200 * time.Millisecond))
		case code == "":
			w.note("ends", l)
			return
		default: // it is lost
			return
		}
	}
}

func (w *process) note(what string, l *leaseOf) {
	_, _ = fmt.Fprintf(w.notes, "%s %s %d %s\n", what, l.Job.ID, l.Fence, w.name)
}

// startWorkerProcess starts a worker in a process of its own.
func startWorkerProcess(t *testing.T, notes, at, name string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0]) //nolint:noctx // it is killed by hand
	c.Env = append(os.Environ(), workerEnv+"="+notes, workerURL+"="+at, workerName+"="+name)
	c.Stderr = os.Stderr
	mustDo(t, c.Start())
	t.Cleanup(func() { killWorker(c) })
	return c
}

func killWorker(c *exec.Cmd) {
	_ = c.Process.Kill() // it may be dead already
	_ = c.Wait()
}

// line is a proxy between workers and a server that can be exchanged, or between two
// nodes of a cluster. It can lose what goes in one direction, without either side
// noticing, let nothing connect, and be slow.
type line struct {
	l         net.Listener
	to        atomic.Pointer[string]
	deafUp    atomic.Bool  // to the server
	deafDown  atomic.Bool  // from the server
	closed    atomic.Bool  // to new connections
	delay     atomic.Int64 // of whatever passes, in nanoseconds
	mu        sync.Mutex
	open      map[net.Conn]bool
	forgotten atomic.Int64 // bytes
}

func newLine(t *testing.T) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed by the test's end
	mustDo(t, err)
	p := &line{l: l, open: make(map[net.Conn]bool)}
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.join(c)
		}
	}()
	return p
}

// connect lets new connections lead to a server.
func (p *line) connect(at string) {
	u, err := url.Parse(at)
	if err != nil {
		panic(err)
	}
	p.to.Store(&u.Host)
}

// url is where workers connect.
func (p *line) url(scheme string) string { return scheme + "://" + p.l.Addr().String() }

func (p *line) join(c net.Conn) {
	s, err := net.Dial("tcp", *p.to.Load()) //nolint:noctx // on the loopback
	if err == nil && p.closed.Load() {
		_ = s.Close()
		err = net.ErrClosed
	}
	if err != nil {
		_ = c.Close()
		return
	}
	p.mu.Lock()
	p.open[c], p.open[s] = true, true
	p.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { p.pass(s, c, &p.deafUp) })
	wg.Go(func() { p.pass(c, s, &p.deafDown) })
	wg.Wait()
	p.mu.Lock()
	delete(p.open, c)
	delete(p.open, s)
	p.mu.Unlock()
}

func (p *line) pass(to, from net.Conn, deaf *atomic.Bool) {
	defer func() {
		if !deaf.Load() { // a line that is cut brings no end of the connection either
			_ = to.Close()
		}
		_ = from.Close()
	}()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if d := p.delay.Load(); d > 0 {
			time.Sleep(time.Duration(d)) // being slow is what it is for
		}
		if deaf.Load() {
			p.forgotten.Add(int64(n))
		} else if _, e := to.Write(b[:n]); e != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// cut ends all connections.
func (p *line) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
	}
}

// idle says whether nothing is connected any more.
func (p *line) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open) == 0
}

// mend lets both directions pass again, over new connections.
func (p *line) mend() {
	p.closed.Store(false)
	p.delay.Store(0)
	p.deafUp.Store(false)
	p.deafDown.Store(false)
	p.cut()
}

// yard is a server in a process of its own, with a line to it.
type yard struct {
	t    *testing.T
	door string
	dir  string
	c    *child
	line *line
}

// eachDoor runs a test over both doors, beside each other.
func eachDoor(t *testing.T, f func(y *yard)) {
	t.Parallel()
	for _, door := range []string{"REST", "NATS"} {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			y := &yard{t: t, door: door, dir: t.TempDir(), line: newLine(t)}
			y.start()
			f(y)
		})
	}
}

// start starts the server, or its next life.
func (y *yard) start() {
	y.t.Helper()
	y.c = startChild(y.t, y.dir)
	at := y.c.rest
	if y.door == "NATS" {
		at = y.c.nats
	}
	y.line.connect(at)
}

// worker is one in this process, at the other end of the line.
func (y *yard) worker(name string) *worker {
	if y.door == "NATS" {
		return natsWorker(y.t, y.line.url("nats"), name)
	}
	return restWorker(y.t, y.line.url("http"), name)
}

// process is one in a process of its own, at the other end of the line.
func (y *yard) process(name string) *exec.Cmd {
	scheme := map[string]string{"REST": "http", "NATS": "nats"}[y.door]
	return startWorkerProcess(y.t, filepath.Join(y.dir, "notes"), y.line.url(scheme), name)
}

func (y *yard) submit(more string) (id string) {
	y.t.Helper()
	a := ask(y.t, http.MethodPost, y.c.rest+"/jobs", `{"type":"far"`+more+`}`)
	id, ok := idIn([]byte(a.body))
	if !ok {
		y.t.Fatalf("it is not admitted: %+v", a)
	}
	return id
}

func (y *yard) job(id string) *jobs.Job {
	y.t.Helper()
	var j jobs.Job
	if code := get(y.t, y.c.rest+"/jobs/"+id, &j); code != http.StatusOK {
		y.t.Fatalf("job %s answers %d", id, code)
	}
	return &j
}

// await waits until a job has a state.
func (y *yard) await(id string, cond func(j *jobs.Job) bool) *jobs.Job {
	y.t.Helper()
	var j *jobs.Job
	waitUntil(y.t, func() bool {
		j = y.job(id)
		return cond(j)
	})
	return j
}

// upTo is a random time.
func upTo(rng *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(most)))
}

func processing(by string) func(*jobs.Job) bool {
	return func(j *jobs.Job) bool { return j.Status == jobs.Processing && j.Node == by }
}

// completes has a worker end a job that was lost lost times before, in its first attempt.
func (y *yard) completes(w *worker, id string, lost int) {
	y.t.Helper()
	l := w.next("far")
	if l.Job.ID != id || l.Job.Attempt != 1 {
		y.t.Errorf("the lease is for attempt %d of %s, want the first of %s", l.Job.Attempt, l.Job.ID, id)
	}
	if e := w.end("done", l.Lease, nil); e.Status != "completed" {
		y.t.Errorf("its end is answered with %+v", e)
	}
	if j := y.job(id); j.Status != jobs.Completed || j.Lost != lost {
		y.t.Errorf("the job is %s and has lost %d workers, want completed and %d", j.Status, j.Lost, lost)
	}
}

// lost is the refusal of a lost lease.
func (y *yard) lost(w *worker, lease string) problem {
	y.t.Helper()
	p := w.refused(http.StatusConflict, "done", lease, nil)
	if p.Code != "lease_lost" {
		y.t.Errorf("the lost lease is refused with %+v", p)
	}
	return p
}

// TestCrashWorkerAsking kills a worker while it asks. The job that comes then is not given
// to it. The server may need a moment to notice the kill, so there are several tries.
func TestCrashWorkerAsking(t *testing.T) {
	eachDoor(t, func(y *yard) {
		for i := range 5 {
			name := fmt.Sprint("dead-", i)
			dead := y.process(name)
			waitUntil(y.t, func() bool { return strings.Contains(ask(y.t, http.MethodGet, y.c.rest+"/workers", "").body, name) })
			killWorker(dead)
			waitUntil(y.t, y.line.idle)
			id := y.submit("")
			w := y.worker("w")
			l := w.next("far")
			w.end("done", l.Lease, nil)
			if j := y.job(id); j.Status == jobs.Completed && j.Lost == 0 {
				return
			}
			y.line.cut() // w is gone, too
		}
		y.t.Error("every job was given to a worker that was dead")
	})
}

// TestCrashAnswerLost loses the answer with a lease on its way, without an end of the
// connection. The lease ends by itself.
func TestCrashAnswerLost(t *testing.T) {
	eachDoor(t, func(y *yard) {
		w := y.worker("cut")
		asked := make(chan error, 1)
		go func() {
			_, _, err := w.send("next", "", map[string]any{"types": "far", "worker": w.name, "wait": "1m"})
			asked <- err
		}()
		waitUntil(y.t, func() bool {
			return strings.Contains(ask(y.t, http.MethodGet, y.c.rest+"/workers", "").body, `"worker":"cut"`)
		})
		y.line.deafDown.Store(true)
		id := y.submit("")
		y.await(id, processing("cut"))
		y.await(id, func(j *jobs.Job) bool { return j.Lost == 1 })
		y.line.mend()
		select {
		case err := <-asked:
			if err == nil {
				y.t.Error("the answer has arrived all the same")
			}
		default: // it waits for an answer that has been lost
		}
		y.completes(y.worker("w"), id, 1)
	})
}

// TestCrashWorkerAtWork kills a worker in the middle of a job. Another one gets the same
// attempt.
func TestCrashWorkerAtWork(t *testing.T) {
	eachDoor(t, func(y *yard) {
		dead := y.process("dead")
		id := y.submit(`,"payload":{"ms":600000}`)
		y.await(id, processing("dead"))
		killed := time.Now()
		killWorker(dead)
		y.await(id, func(j *jobs.Job) bool { return j.Lost == 1 })
		if after := time.Since(killed); after < jobs.MinLease/2 {
			y.t.Errorf("it was lost %s after the kill", after)
		}
		y.completes(y.worker("w"), id, 1)
	})
}

// TestCrashWorkerHangs has a worker that beats and does nothing else. The attempt times
// out.
func TestCrashWorkerHangs(t *testing.T) {
	eachDoor(t, func(y *yard) {
		id := y.submit(`,"timeout":"1s","retry_count":0`)
		w := y.worker("w")
		l := w.next("far")
		waitUntil(y.t, func() bool { return len(w.beat(l.Lease).Lost) == 1 })
		j := y.await(id, func(j *jobs.Job) bool { return j.Status.Ended() })
		if j.Status != jobs.Failed || !strings.Contains(j.Error, "timed out after 1s") {
			y.t.Errorf("the job is %s: %s", j.Status, j.Error)
		}
		if p := y.lost(w, l.Lease); p.Job.Status != "failed" {
			y.t.Errorf("the refusal says %+v", p.Job)
		}
	})
}

// TestCrashWorkerTooBusy has a worker that is too busy to beat.
func TestCrashWorkerTooBusy(t *testing.T) {
	eachDoor(t, func(y *yard) {
		id := y.submit("")
		w := y.worker("busy")
		l := w.next("far")
		y.await(id, func(j *jobs.Job) bool { return j.Lost == 1 })
		y.lost(w, l.Lease)
		y.completes(y.worker("w"), id, 1)
		y.lost(w, l.Lease)
	})
}

// TestCrashServerKilledAtWork kills the server while a worker works. The worker goes on.
func TestCrashServerKilledAtWork(t *testing.T) {
	eachDoor(t, func(y *yard) {
		id := y.submit("")
		w := y.worker("w")
		l := w.next("far")
		y.c.kill()
		y.start()
		if j := y.job(id); j.Status != jobs.Processing || j.Node != "w" {
			y.t.Errorf("after the start the job is %s by %s", j.Status, j.Node)
		}
		waitUntil(y.t, func() bool { // the line may just be connecting
			code, b, err := w.send("beat", "", map[string]any{"leases": []string{l.Lease}})
			return err == nil && code == http.StatusOK && strings.Contains(string(b), `"lost":[]`)
		})
		if e := w.end("done", l.Lease, nil); e.Status != "completed" || e.Repeated {
			y.t.Errorf("its end is answered with %+v", e)
		}
		if j := y.job(id); j.Status != jobs.Completed || j.Lost != 0 || j.Attempt != 1 {
			y.t.Errorf("the job is %s in attempt %d and has lost %d workers", j.Status, j.Attempt, j.Lost)
		}
	})
}

// TestCrashServerKilledWorkerToo kills both. The lease ends one span after the start.
func TestCrashServerKilledWorkerToo(t *testing.T) {
	eachDoor(t, func(y *yard) {
		id := y.submit("")
		l := y.worker("dead").next("far")
		y.c.kill()
		y.start()
		y.await(id, func(j *jobs.Job) bool { return j.Lost == 1 })
		w := y.worker("w")
		y.completes(w, id, 1)
		y.lost(w, l.Lease)
	})
}

// TestCrashServerKilledAtTheEnd kills the server at random moments around the end of a
// job. The worker repeats its report until it is answered.
func TestCrashServerKilledAtTheEnd(t *testing.T) {
	eachDoor(t, func(y *yard) {
		rng := seeded(y.t)
		repeated := 0
		for range rounds(y.t, 3) {
			id := y.submit("")
			w := y.worker("w")
			l := w.next("far")
			go func() { _, _, _ = w.send("done", l.Lease, map[string]any{}) }()
			time.Sleep(upTo(rng, 4*time.Millisecond)) // the kill has to meet any moment
			y.c.kill()
			y.start()
			var e end
			waitUntil(y.t, func() bool {
				code, b, err := w.send("done", l.Lease, map[string]any{})
				if err != nil || code >= http.StatusInternalServerError {
					return false
				}
				if code != http.StatusOK {
					y.t.Fatalf("the report is answered with %d %s", code, b)
				}
				return json.Unmarshal(b, &e) == nil
			})
			if e.Repeated {
				repeated++
			}
			if j := y.job(id); j.Status != jobs.Completed || j.Lost != 0 {
				y.t.Errorf("the job is %s and has lost %d workers", j.Status, j.Lost)
			}
		}
		y.t.Logf("%d reports had arrived before the kill", repeated)
	})
}

// TestCrashEndUnanswered loses the answer to the end of a job. The repeated report is
// fine, also after a crash of the server.
func TestCrashEndUnanswered(t *testing.T) {
	eachDoor(t, func(y *yard) {
		id := y.submit("")
		w := y.worker("w")
		l := w.next("far")
		y.line.deafDown.Store(true)
		go func() { _, _, _ = w.send("done", l.Lease, map[string]any{}) }()
		y.await(id, func(j *jobs.Job) bool { return j.Status == jobs.Completed })
		y.c.kill()
		y.start()
		y.line.mend()
		again := y.worker("w")
		if e := again.end("done", l.Lease, nil); e.Status != "completed" || !e.Repeated {
			y.t.Errorf("the repeated end is answered with %+v", e)
		}
		if a := ask(y.t, http.MethodDelete, y.c.rest+"/jobs/"+id, ""); a.code != http.StatusNoContent {
			y.t.Fatalf("%+v", a)
		}
		again.refused(http.StatusNotFound, "done", l.Lease, nil)
	})
}

// TestCrashServerStops stops the server while one worker works and another one asks.
// Nobody's work is lost.
func TestCrashServerStops(t *testing.T) {
	eachDoor(t, func(y *yard) {
		held := ask(y.t, http.MethodPost, y.c.rest+"/jobs", `{"type":"held"}`) // the stop waits for it
		w, asking := y.worker("w"), y.worker("asking")
		first, second := y.submit(""), y.submit("")
		l, kept := w.next("far"), w.next("far")
		heldID, _ := idIn([]byte(held.body))
		y.await(heldID, func(j *jobs.Job) bool { return j.Status == jobs.Processing })
		mustDo(y.t, y.c.cmd.Process.Signal(syscall.SIGTERM))
		waitUntil(y.t, func() bool {
			code, b, err := asking.send("next", "", map[string]any{"types": "far", "wait": 0})
			return err == nil && code == http.StatusServiceUnavailable && strings.Contains(string(b), "shutting_down")
		})
		if b := w.beat(l.Lease); len(b.Lost)+len(b.Cancel) != 0 {
			y.t.Errorf("while the server stops the beat is answered with %+v", b)
		}
		if e := w.end("done", l.Lease, nil); e.Status != "completed" {
			y.t.Errorf("while the server stops the end is answered with %+v", e)
		}
		if err := <-y.c.done; err != nil {
			y.t.Errorf("it ended with %v\n%s", err, y.c.logged())
		}
		y.start()
		if j := y.job(first); j.Status != jobs.Completed {
			y.t.Errorf("the first job is %s", j.Status)
		}
		if j := y.job(second); j.Status != jobs.Processing || j.Node != "w" {
			y.t.Errorf("the second job is %s by %s", j.Status, j.Node)
		}
		y.line.mend()
		if e := y.worker("w").end("done", kept.Lease, nil); e.Status != "completed" || e.Repeated {
			y.t.Errorf("after the start its end is answered with %+v", e)
		}
	})
}

// TestCrashTrackerLost deletes the tracker while a worker works. Its lease is unknown
// then, and the job comes again.
func TestCrashTrackerLost(t *testing.T) {
	eachDoor(t, func(y *yard) {
		id := y.submit("")
		w := y.worker("w")
		l := w.next("far")
		y.c.kill()
		for _, name := range []string{"status.db", "status.db-journal"} {
			if err := os.Remove(filepath.Join(y.dir, "data", name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				y.t.Fatal(err)
			}
		}
		y.start()
		y.line.mend()
		again := y.worker("w")
		again.refused(http.StatusNotFound, "done", l.Lease, nil)
		l = again.next("far")
		if l.Job.ID != id {
			y.t.Errorf("the lease is for %s, want %s", l.Job.ID, id)
		}
		if e := again.end("done", l.Lease, nil); e.Status != "completed" {
			y.t.Errorf("its end is answered with %+v", e)
		}
	})
}

// TestCrashCutForLong cuts a worker off for longer than its lease. Its late report is
// refused.
func TestCrashCutForLong(t *testing.T) {
	eachDoor(t, func(y *yard) {
		id := y.submit("")
		w := y.worker("cut")
		l := w.next("far")
		y.line.deafUp.Store(true)
		y.line.deafDown.Store(true)
		y.await(id, func(j *jobs.Job) bool { return j.Lost == 1 })
		y.line.mend()
		y.completes(y.worker("w"), id, 1)
		if p := y.lost(y.worker("cut"), l.Lease); p.Job.Status != "completed" {
			y.t.Errorf("the refusal says %+v", p.Job)
		}
	})
}

// TestCrashDeadline lets the deadline of a job come while a worker works.
func TestCrashDeadline(t *testing.T) {
	eachDoor(t, func(y *yard) {
		id := y.submit(`,"deadline":1`)
		w := y.worker("w")
		l := w.next("far")
		waitUntil(y.t, func() bool { return strings.Contains(w.beat(l.Lease).Cancel[l.Lease], jobs.DeadlineReason) })
		if j := y.job(id); j.Status != jobs.Failed {
			y.t.Errorf("the job is %s", j.Status)
		}
		y.lost(w, l.Lease)
	})
}

// TestCrashWorkers has three workers do hundreds of jobs, while they and the server are
// killed at random moments, and the line loses what it carries. Each job ends once.
func TestCrashWorkers(t *testing.T) {
	eachDoor(t, func(y *yard) {
		rng := seeded(y.t)
		promised := make(map[string]bool)
		count := 200 // jobs
		submit := func() {
			for range count / 4 {
				promised[y.submit(fmt.Sprintf(`,"payload":{"ms":%d},"priority":%d`, rng.IntN(60), 1+rng.IntN(5)))] = true
			}
		}
		submit()
		names, workers := 0, make([]*exec.Cmd, 3)
		for i := range workers {
			names++
			workers[i] = y.process(fmt.Sprintf("w%d", names))
		}
		for round := range rounds(y.t, 6) {
			time.Sleep(upTo(rng, 500*time.Millisecond)) // the kill has to meet any moment
			switch rng.IntN(4) {
			case 0:
				y.c.kill()
				y.start()
			case 1:
				deaf := []*atomic.Bool{&y.line.deafUp, &y.line.deafDown}[rng.IntN(2)]
				deaf.Store(true)
				time.Sleep(upTo(rng, 200*time.Millisecond)) // for as long as the line is bad
				y.line.mend()
			default:
				i := rng.IntN(len(workers))
				killWorker(workers[i])
				names++
				workers[i] = y.process(fmt.Sprintf("w%d", names))
			}
			if round < 3 {
				submit()
			}
		}
		waitUntil(y.t, func() bool { return unfinished(y.t, y.c) == 0 })
		told := make(map[string]map[string]bool)
		waitUntil(y.t, func() bool { // the last ones follow the commit that ended their job
			told = notifications(y.t, y.c)
			return len(told) >= len(promised)
		})
		lost := 0
		for id := range promised {
			j := y.job(id)
			if lost += j.Lost; j.Status != jobs.Completed || j.Attempt != 1 {
				y.t.Errorf("job %s is %s in attempt %d: %s", id, j.Status, j.Attempt, j.Error)
			}
			if len(told[id]) != 1 {
				y.t.Errorf("job %s was notified under %d ids", id, len(told[id]))
			}
		}
		y.checkNotes(promised)
		y.t.Logf("%d jobs, %d worker processes, %d lost leases", len(promised), names, lost)
	})
}

// checkNotes checks what the workers have noted: every job was begun, no end was
// acknowledged for two executions, and none for one that is older than another begin.
func (y *yard) checkNotes(promised map[string]bool) {
	y.t.Helper()
	text, err := os.ReadFile(filepath.Join(y.dir, "notes"))
	mustDo(y.t, err)
	begun, ended := make(map[string]int64), make(map[string]int64)
	for _, row := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		var what, id, by string
		var fence int64
		if _, err := fmt.Sscan(row, &what, &id, &fence, &by); err != nil {
			y.t.Fatalf("%s: %v", row, err)
		}
		switch {
		case what == "begins":
			if begun[id] = max(begun[id], fence); ended[id] != 0 && fence > ended[id] {
				y.t.Errorf("job %s was given out again after its end", id)
			}
		case ended[id] != 0 && ended[id] != fence:
			y.t.Errorf("two executions of job %s have ended it", id)
		default:
			ended[id] = fence
		}
	}
	for id := range promised {
		if begun[id] == 0 {
			y.t.Errorf("nobody has begun job %s", id)
		}
		if ended[id] != 0 && ended[id] < begun[id] {
			y.t.Errorf("job %s was ended by an execution that was not its last", id)
		}
	}
}

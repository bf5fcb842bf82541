package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

// TestContractDrain stops a server while a job runs: nothing new is taken, what
// runs is finished, and lookups go on until then.
func TestContractDrain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	s := setup{handlers: map[string]jobs.Handler{"held": p}, change: one}
	h := open(t, dir, s)
	nc := h.dial()
	running := h.submit(`{"type":"held"}`).ID
	pl := p.next(t)
	queued := h.submit(`{"type":"held"}`).ID
	h.end()
	waitUntil(t, func() bool { return h.do(http.MethodGet, "/readyz", "").code == http.StatusServiceUnavailable })
	r := h.do(http.MethodPost, "/jobs", `{"type":"held"}`)
	r.wantProblem(t, http.StatusServiceUnavailable, "shutting_down")
	if r.header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	waitUntil(t, func() bool { // the doors close one after the other
		return h.call(nc, "submit", `{"type":"nope"}`) != nil && h.call(nc, "submit", `{"type":"held"}`).Header.Get("Nats-Service-Error-Code") == "503"
	})
	wantProblem(t, h.call(nc, "submit", `{"type":"held"}`).Data, http.StatusServiceUnavailable, "shutting_down")
	for path, want := range map[string]int{"/livez": 200, "/healthz": 200, "/jobs/" + running: 200, "/workers/stats": 200, "/jobs": 200} {
		if r := h.do(http.MethodGet, path, ""); r.code != want {
			t.Errorf("while draining %s answers %d: %s", path, r.code, r.body)
		}
	}
	late := h.accepted(nc, "jobs.held", `"late"`) // a bare message is kept, not run
	if pl.ctx.Err() != nil {
		t.Error("the running job was interrupted within its grace")
	}
	pl.finish()
	h.awaitEnd()
	if len(p.stage) != 0 {
		t.Error("a job started while the server was stopping")
	}

	h = open(t, dir, s)
	if j := h.job(running); j.Status != "completed" || j.Attempt != 1 {
		t.Errorf("the job that was running is %+v", j)
	}
	p.next(t).finish()
	p.next(t).finish()
	h.await(queued, "completed")
	waitUntil(t, func() bool { return h.stats().CompletedJobs >= 3 })
	if j := h.await(late, "completed"); string(j.Payload) != `"late"` {
		t.Errorf("the late message became %+v", j)
	}
}

// TestContractSilentConnection stops a server while somebody is connected who
// has not asked for anything: nobody has to wait for that, and nothing was cut
// off.
func TestContractSilentConnection(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(h.rest, "http://"))
	mustDo(t, err)
	defer func() { _ = c.Close() }()
	h.await(h.submit(`{"type":"export"}`).ID, "completed") // by then it has been accepted
	h.close()
	if strings.Contains(h.log.String(), "level=WARN") {
		t.Errorf("the stop is not as smooth as it could be:\n%s", h.log)
	}
}

// TestContractHandedBack stops a server whose job takes longer than the grace:
// it runs again after the next start and no attempt is used up.
func TestContractHandedBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	s := setup{handlers: map[string]jobs.Handler{"held": p}, change: func(c *config.Config) { c.Worker.ShutdownGrace = 20 * time.Millisecond }}
	h := open(t, dir, s)
	id := h.submit(`{"type":"held","retry_count":0}`).ID
	for range 3 {
		pl := p.next(t)
		if pl.task.Attempt != 1 {
			t.Errorf("it is attempt %d", pl.task.Attempt)
		}
		h.await(id, "processing")
		h.close()
		if pl.ctx.Err() == nil || context.Cause(pl.ctx) != jobs.ErrShutdown { //nolint:errorlint // a cause comes as it is
			t.Errorf("its context ended with %v", context.Cause(pl.ctx))
		}
		h = open(t, dir, s)
	}
	p.next(t).finish()
	j := h.await(id, "completed")
	if j.Attempt != 1 || len(j.Errors) != 0 || j.Error != "" {
		t.Errorf("it ended as %+v", j)
	}
	if _, kinds := h.events(id); kinds != "submitted "+strings.Repeat("started released ", 3)+"started completed" {
		t.Errorf("its events are %s", kinds)
	}
}

// prepared is a data folder with jobs in every state.
type prepared struct {
	dir     string
	held    *puppet
	setup   setup
	records map[string][]byte // job resources of the ended ones, by id
	waiting []string          // pending ones in their order
	sleeper string            // a retrying one
	counts  *api.Stats
}

func prepare(t *testing.T) *prepared {
	t.Helper()
	const backoff = 2 * time.Second // the server is stopped before the job is tried again
	p := &prepared{dir: t.TempDir(), held: newPuppet(), records: map[string][]byte{}}
	p.setup = setup{
		handlers: map[string]jobs.Handler{"held": p.held, "good": jobs.HandlerFunc(nothing), "bad": jobs.HandlerFunc(failing), "act": jobs.HandlerFunc(act)},
		change: func(c *config.Config) {
			k := c.Jobs["held"]
			k.MaxWorkers = 1
			c.Jobs["held"] = k
			c.Jobs["act"] = config.JobType{Run: "act", RetryCount: 2, Timeout: time.Minute, Backoff: jobs.Backoff{Kind: jobs.Constant, Base: backoff}}
			c.Worker.ShutdownGrace = 0
		},
	}
	h := open(t, p.dir, p.setup)
	for _, kind := range []string{"good", "bad", "good"} {
		id := h.submit(`{"type":%q,"tags":["kept"],"payload":{"x":[1,2,{"y":"ü"}]}}`, kind).ID
		waitUntil(t, func() bool { return h.job(id).EndedAt != nil })
		p.records[id] = h.do(http.MethodGet, "/jobs/"+id, "").body
	}
	for range 5 {
		p.waiting = append(p.waiting, h.submit(`{"type":"held","tags":["kept"],"payload":{"z":1}}`).ID)
	}
	p.held.next(t)
	p.sleeper = h.submit(`{"type":"act","payload":{"fail":1}}`).ID
	waitUntil(t, func() bool { return h.job(p.sleeper).Status != "pending" })
	h.await(p.sleeper, "retrying")
	p.counts = h.stats()
	h.close()
	return p
}

// check lets everything that was unfinished run, and compares.
func (p *prepared) check(t *testing.T, h *house) {
	t.Helper()
	for id, record := range p.records {
		if now := h.do(http.MethodGet, "/jobs/"+id, "").body; !bytes.Equal(now, record) {
			t.Errorf("a record has changed:\n%s%s", record, now)
		}
	}
	if s := h.stats(); s.CompletedJobs < p.counts.CompletedJobs || s.FailedJobs != p.counts.FailedJobs {
		t.Errorf("the stats are %+v, they were %+v", s, p.counts)
	}
	for _, id := range p.waiting {
		pl := p.held.next(t)
		if pl.id() != id || pl.task.Attempt != 1 || string(pl.task.Job.Payload) != `{"z":1}` {
			t.Errorf("job %s started, attempt %d; want %s", pl.id(), pl.task.Attempt, id)
		}
		pl.finish()
	}
	for _, id := range append(p.waiting, p.sleeper) {
		h.await(id, "completed")
	}
	j := h.job(p.sleeper)
	if j.Attempt != 2 || len(j.Errors) != 1 {
		t.Errorf("the one that was to be tried again ended as %+v", j)
	}
	events, _ := h.events(p.sleeper)
	for i, e := range events {
		if e.Kind == "retrying" && events[len(events)-1].At.Before(*e.RunAt) {
			t.Errorf("it ended before event %d, a retry, was due: %+v", i, events)
		}
	}
	h.awaitStats(func(s *api.Stats) bool {
		return s.CompletedJobs == 2+6 && s.FailedJobs == 1 && s.QueuedJobs+s.RetryingJobs+s.ActiveWorkers == 0
	})
	if found := h.pages("", "asc", 4); len(found) != 9 {
		t.Errorf("%d jobs are listed", len(found))
	}
	if found := h.pages("tag=kept", "", 0); len(found) != 8 {
		t.Errorf("%d jobs are listed by their tag", len(found))
	}
	h.await(h.submit(`{"type":"good"}`).ID, "completed")
}

// TestContractRestart stops cleanly, does something to the data folder, and
// starts again: nothing is lost.
func TestContractRestart(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(t *testing.T, dir, earlier string){
		"untouched": func(*testing.T, string, string) {},
		"broker vanished": func(t *testing.T, dir, _ string) {
			t.Helper()
			mustDo(t, os.RemoveAll(filepath.Join(dir, "broker")))
		},
		"broker rolled back": func(t *testing.T, dir, earlier string) {
			t.Helper()
			mustDo(t, os.RemoveAll(filepath.Join(dir, "broker")))
			mustDo(t, os.CopyFS(filepath.Join(dir, "broker"), os.DirFS(earlier)))
		},
		"JOBS vanished": func(t *testing.T, dir, _ string) {
			t.Helper()
			found, err := filepath.Glob(filepath.Join(dir, "broker", "jetstream", "*", "streams", "JOBS"))
			mustDo(t, err)
			if len(found) != 1 {
				t.Fatalf("the stream is not where it was expected: %v", found)
			}
			mustDo(t, os.RemoveAll(found[0]))
		},
		"consumers vanished": func(t *testing.T, dir, _ string) {
			t.Helper()
			found, err := filepath.Glob(filepath.Join(dir, "broker", "jetstream", "*", "streams", "JOBS", "obs"))
			mustDo(t, err)
			if len(found) != 1 {
				t.Fatalf("the consumers are not where they were expected: %v", found)
			}
			mustDo(t, os.RemoveAll(found[0]))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := prepare(t)
			earlier := filepath.Join(t.TempDir(), "earlier")
			if strings.Contains(name, "rolled") {
				mustDo(t, os.CopyFS(earlier, os.DirFS(filepath.Join(p.dir, "broker"))))
				h := open(t, p.dir, p.setup) // one more job, which the copy does not know
				p.waiting = append(p.waiting, h.submit(`{"type":"held","tags":["kept"],"payload":{"z":1}}`).ID)
				p.held.next(t)
				h.close()
			}
			harm(t, p.dir, earlier)
			h := open(t, p.dir, p.setup)
			if strings.Contains(name, "rolled") {
				p.checkRolled(t, h)
				return
			}
			p.check(t, h)
		})
	}
}

// checkRolled is check with the one job more.
func (p *prepared) checkRolled(t *testing.T, h *house) {
	t.Helper()
	for _, id := range p.waiting {
		pl := p.held.next(t)
		if pl.id() != id || pl.task.Attempt != 1 {
			t.Errorf("job %s started, attempt %d; want %s", pl.id(), pl.task.Attempt, id)
		}
		pl.finish()
	}
	for _, id := range append(p.waiting, p.sleeper) {
		h.await(id, "completed")
	}
	for id, record := range p.records {
		if now := h.do(http.MethodGet, "/jobs/"+id, "").body; !bytes.Equal(now, record) {
			t.Errorf("a record has changed:\n%s%s", record, now)
		}
	}
	if found := h.pages("", "asc", 4); len(found) != 10 {
		t.Errorf("%d jobs are listed", len(found))
	}
}

// TestContractTypeRemoved takes a type out of the configuration while it has
// unfinished jobs: they wait until it is back.
func TestContractTypeRemoved(t *testing.T) {
	t.Parallel()
	p := prepare(t)
	without := p.setup
	without.handlers = maps.Clone(p.setup.handlers)
	without.change = func(c *config.Config) {
		p.setup.change(c)
		delete(c.Jobs, "held")
		delete(c.Jobs, "act")
	}
	for range 2 {
		h := open(t, p.dir, without)
		for _, id := range p.waiting {
			if j := h.job(id); j.Status != "pending" || j.Attempt > 1 {
				t.Errorf("without its type job %s is %+v", id, j)
			}
		}
		if s := h.stats(); s.QueuedJobs != 5 || s.Types["held"].QueuedJobs != 5 || s.RetryingJobs != 1 {
			t.Errorf("without the type the stats are %+v", s)
		}
		h.do(http.MethodPost, "/jobs", `{"type":"held"}`).wantProblem(t, http.StatusUnprocessableEntity, "unknown_type")
		h.await(h.submit(`{"type":"good"}`).ID, "completed")
		if !strings.Contains(h.log.String(), "type=held") {
			t.Errorf("the log does not say that a type is missing:\n%s", h.log)
		}
		h.close()
	}
	h := open(t, p.dir, p.setup)
	for range p.waiting {
		p.held.next(t).finish()
	}
	for _, id := range append(p.waiting, p.sleeper) {
		h.await(id, "completed")
	}
}

// TestContractInTheWay starts the program where something is in its way: it
// says so in one line and ends with 1.
func TestContractInTheWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir, setup{})
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	mustDo(t, err)
	defer func() { _ = l.Close() }()
	_, taken, err := net.SplitHostPort(l.Addr().String())
	mustDo(t, err)
	file := filepath.Join(t.TempDir(), "file")
	mustDo(t, os.WriteFile(file, nil, 0o600))
	for name, c := range map[string]struct{ env, want string }{
		"same folder": {"JOBSTREAM_DATA_DIR=" + dir, dir},
		"REST port":   {"JOBSTREAM_SERVER_PORT=" + taken, taken},
		"NATS port":   {"JOBSTREAM_BROKER_PORT=" + taken, taken},
		"a file":      {"JOBSTREAM_DATA_DIR=" + file, file},
	} {
		t.Run(name, func(t *testing.T) {
			env := []string{"JOBSTREAM_DATA_DIR=" + t.TempDir(), "JOBSTREAM_SERVER_PORT=0", "JOBSTREAM_BROKER_PORT=-1", c.env}
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), []string{"serve"}, env, &stdout, &stderr)
			text := stderr.String()
			if code != 1 || stdout.Len() != 0 || strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "jobstream: ") || !strings.Contains(text, c.want) {
				t.Errorf("it ended with %d, and said %q%q; want one line with %s", code, stdout.String(), text, c.want)
			}
		})
	}
	h.await(h.submit(`{"type":"export"}`).ID, "completed") // the first one is none the worse
}

// TestContractWithoutNATSPort serves REST only.
func TestContractWithoutNATSPort(t *testing.T) {
	t.Parallel()
	h := openProgram(t, t.TempDir(), "JOBSTREAM_BROKER_PORT=0")
	if strings.Contains(h.log.line("msg=ready"), "nats=") {
		t.Errorf("there should be no NATS port: %s", h.log)
	}
	h.await(h.submit(`{"type":"export"}`).ID, "completed")
}

// TestContractCommands has the commands that do not serve.
func TestContractCommands(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	mustDo(t, os.WriteFile(bad, []byte("worker: {max_workers: 0, speed: 9}\nserver: {port: eighty}\njobs: {mine: {run: magic}}\n"), 0o600))
	good := filepath.Join(dir, "good.yaml")
	mustDo(t, os.WriteFile(good, []byte("email: {smtp: {username: me, password: secret-word}}\njobs: {letters: {run: email, retry_count: 9}}\n"), 0o600))
	for name, c := range map[string]struct {
		args       []string
		env        []string
		code       int
		out, stray []string // what stdout (code 0) or stderr must and must not have
	}{
		"help":            {args: []string{"--help"}, out: []string{"serve", "config", "bench", "version", "Usage:"}},
		"help of serve":   {args: []string{"serve", "--help"}, out: []string{"--config"}},
		"version":         {args: []string{"version"}, out: []string{"jobstream ", "nats-server ", "go1."}},
		"config":          {args: []string{"config", "--config", good}, env: []string{"JOBSTREAM_WORKER_MAX_WORKERS=20"}, out: []string{"max_workers: 20", "letters:", "run: email", "retry_count: 9"}, stray: []string{"secret-word", "export:"}},
		"config defaults": {args: []string{"config"}, out: []string{"port: 8080", "port: 4222", "transport: outbox", "cleanup"}},
		"env of a type":   {args: []string{"config", "-c", good}, env: []string{"JOBSTREAM_JOBS_LETTERS_RETRY_COUNT=4"}, out: []string{"retry_count: 4"}},
		"bad file":        {args: []string{"serve", "--config", bad}, code: 2, out: []string{"worker.max_workers", "worker.speed", "server.port", "eighty", "jobs.mine.run", "magic"}},
		"bad file, shown": {args: []string{"config", "--config", bad}, code: 2, out: []string{"worker.max_workers"}},
		"no file":         {args: []string{"--config", filepath.Join(dir, "none.yaml")}, code: 2, out: []string{"none.yaml"}},
		"bad variable":    {env: []string{"JOBSTREAM_SERVER_PORT=99999"}, code: 2, out: []string{"JOBSTREAM_SERVER_PORT", "99999"}},
		"unknown env":     {env: []string{"JOBSTREAM_SERVER_PROT=80"}, code: 2, out: []string{"JOBSTREAM_SERVER_PROT"}},
		"beyond loopback": {env: []string{"JOBSTREAM_SERVER_HOST=0.0.0.0"}, code: 2, out: []string{"server.host", "insecure"}},
		"unknown command": {args: []string{"dance"}, code: 2, out: []string{"dance"}},
		"unknown flag":    {args: []string{"--fast"}, code: 2, out: []string{"--fast"}},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), c.args, c.env, &stdout, &stderr)
			text, other := stdout.String(), stderr.String()
			if c.code != 0 {
				text, other = other, text
			}
			if code != c.code || other != "" {
				t.Errorf("it ended with %d, want %d; the other stream has %q", code, c.code, other)
			}
			for _, want := range c.out {
				if !strings.Contains(text, want) {
					t.Errorf("%q is missing in:\n%s", want, text)
				}
			}
			for _, stray := range c.stray {
				if strings.Contains(text, stray) {
					t.Errorf("%q should not be in:\n%s", stray, text)
				}
			}
		})
	}
}

// TestContractNothingLeft stops a server that was used by every door and looks
// for goroutines that stayed.
func TestContractNothingLeft(t *testing.T) {
	before := goleak.IgnoreCurrent()
	func() {
		h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"good": jobs.HandlerFunc(nothing), "bad": jobs.HandlerFunc(failing)}})
		defer h.close()
		nc, err := nats.Connect(h.nats, nats.NoReconnect())
		mustDo(t, err)
		defer nc.Close()
		for i := range 20 {
			h.submit(`{"type":%q}`, []string{"good", "bad"}[i%2])
			h.call(nc, "submit", `{"type":"good"}`)
			h.accepted(nc, "jobs.good."+strconv.Itoa(1+i%5), `{}`)
		}
		h.do(http.MethodPut, "/workers", `{"max_workers":3}`)
		h.await(h.submit(`{"type":"report"}`).ID, "completed")
		h.awaitStats(func(s *api.Stats) bool { return s.CompletedJobs == 51 && s.FailedJobs == 10 })
	}()
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, before)
}

// TestContractMany restarts a server with work in it again and again: each job
// ends once.
func TestContractMany(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := setup{
		handlers: map[string]jobs.Handler{"act": jobs.HandlerFunc(act)},
		change: func(c *config.Config) {
			c.Jobs["act"] = config.JobType{Run: "act", RetryCount: 2, Timeout: time.Minute, Backoff: jobs.Backoff{Kind: jobs.Constant, Base: 100 * time.Millisecond}}
			c.Worker.MaxWorkers, c.Worker.ShutdownGrace = 3, 0
		},
	}
	ended := map[string]int{}
	n := 0
	for round := range 4 {
		h := open(t, dir, s)
		for i := range 100 {
			h.submit(`{"type":"act","priority":%d,"payload":{"fail":%d}}`, 1+i%5, i%2)
			n++
		}
		if round == 3 {
			h.awaitStats(func(s *api.Stats) bool { return s.CompletedJobs == int64(n) })
			for _, id := range h.pages("", "", 500) {
				j := h.job(id)
				ended[fmt.Sprintf("%s after %d of %s", j.Status, j.Attempt, j.Payload)]++
			}
		}
		h.close()
	}
	if want := map[string]int{`completed after 1 of {"fail":0}`: n / 2, `completed after 2 of {"fail":1}`: n / 2}; !maps.Equal(ended, want) {
		t.Errorf("they ended as %v, want %v", ended, want)
	}
}

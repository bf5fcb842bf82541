package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/jobs"
	"jobstream/jobs/handlers"
)

// The crash tests run the server in a process of its own (this test binary, started
// again). They kill it with SIGKILL while clients submit by all three doors. Every
// acknowledged job must be there at any time afterwards, and end exactly once.

const (
	childEnv     = "TEST_CHILD_DIR"      // says that this process is the server, and where its data is
	childMaxLost = "TEST_CHILD_MAX_LOST" // its worker.max_lost
	childQueue   = "TEST_CHILD_QUEUE"    // its worker.queue_size
	// childCallbacks lets callbacks go to this machine.
	childCallbacks = "TEST_CHILD_CALLBACKS"
	childCall      = "TEST_CHILD_CALL" // the url of its type call, if it has one
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(runChild(dir))
	}
	if file := os.Getenv(workerEnv); file != "" {
		os.Exit(runWorker(file))
	}
	code := m.Run()
	if builtIn != "" {
		_ = os.RemoveAll(builtIn)
	}
	os.Exit(code)
}

// runChild is the server under test. Its handlers write down every start in a
// file, so that the parent sees what ran.
func runChild(dir string) int {
	tuneGC() // as main does
	cfg := config.Default(handlers.Kinds())
	knowAdmin(cfg)
	knowRoles(cfg)
	cfg.Data.Dir = filepath.Join(dir, "data")
	cfg.Server.Port, cfg.Broker.Port = 0, -1
	cfg.Worker.MaxWorkers, cfg.Worker.MaxLost = 20, 1000 // whoever is killed at random is no poison
	if s := os.Getenv(childMaxLost); s != "" {
		cfg.Worker.MaxLost, _ = strconv.Atoi(s)
	}
	cfg.Worker.ShutdownGrace = 5 * time.Second
	faultSettings(cfg)
	bedSettings(cfg)
	if os.Getenv("JOBSTREAM_SOAK") != "" {
		cfg.Worker.QueueSize, cfg.Worker.ShutdownGrace = 2_000_000, 0
	}
	if n, err := strconv.Atoi(os.Getenv(childQueue)); err == nil {
		cfg.Worker.QueueSize = n
	}
	if os.Getenv(childCallbacks) != "" {
		cfg.Callbacks.Allow = []string{"127.0.0.1"}
	}
	backoff := jobs.Backoff{Kind: jobs.Constant, Base: 50 * time.Millisecond}
	cfg.Jobs = map[string]config.JobType{
		"quick":  {Run: "quick", RetryCount: 3, Timeout: time.Minute, Backoff: backoff},
		"flaky":  {Run: "flaky", RetryCount: 3, Timeout: time.Minute, Backoff: backoff},
		"doomed": {Run: "doomed", RetryCount: 2, Timeout: time.Minute, Backoff: backoff},
		"slow":   {Run: "slow", RetryCount: 3, Timeout: time.Minute, Backoff: backoff},
		"poison": {Run: "poison", RetryCount: 3, Timeout: time.Minute, Backoff: backoff},
		"held":   {Run: "held", RetryCount: 3, Timeout: time.Hour},
		"clean":  {Run: "cleanup", Timeout: 10 * time.Minute},
		"export": {Run: "export", Timeout: time.Minute},
		"asleep": {Run: "doomed", RetryCount: 3, Timeout: time.Minute, Backoff: jobs.Backoff{Kind: jobs.Constant, Base: time.Hour}},
	}
	starts, err := os.OpenFile(filepath.Join(dir, "starts"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var lives atomic.Int64 // how often jobs have begun to run in this process
	signals, reloads, _ := watchSignals()
	log, level := newLogger(cfg.Log, os.Stderr)
	s := &server{cfg: cfg, log: log, level: level, signals: signals, reloads: reloads, change: func(o *node.Options) {
		sweep := o.Handlers.Sweep
		o.Handlers.Sweep = func() error {
			lives.Add(1)
			return sweep()
		}
		o.Recovery.BootFile = os.Getenv(childBootFile)
	}}
	note := func(t *jobs.Task) {
		_, _ = fmt.Fprintf(starts, "%s %d %d %d.%d\n", t.Job.ID, t.Job.Run, t.Attempt, os.Getpid(), lives.Load())
	}
	terms, err := termsChild(cfg, dir, note)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	addKinds(cfg, inputsChild(cfg))
	all, err := watchedRuns(dir, map[string]jobs.Handler{
		"quick": jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
			note(t)
			return jobs.Result{Value: map[string]int{"attempt": t.Attempt}}, nil
		}),
		"flaky": jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
			note(t)
			if t.Attempt < 3 {
				return jobs.Result{}, errors.New("not yet")
			}
			return jobs.Result{}, nil
		}),
		"doomed": jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
			note(t)
			return jobs.Result{}, errors.New("never")
		}),
		"slow": jobs.HandlerFunc(func(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
			note(t)
			for i := range 10 {
				t.Progress(i*10, "step")
				select {
				case <-time.After(30 * time.Millisecond): // its work is to take time
				case <-ctx.Done():
					return jobs.Result{}, ctx.Err()
				}
			}
			return jobs.Result{}, nil
		}),
		"held": jobs.HandlerFunc(func(ctx context.Context, _ *jobs.Task) (jobs.Result, error) {
			<-ctx.Done()
			return jobs.Result{}, ctx.Err()
		}),
		"poison": jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
			note(t)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}),
	}, terms)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	addKinds(cfg, all)
	cfg.Jobs["program"] = programType()
	if url := os.Getenv(childCall); url != "" {
		cfg.Jobs["call"] = callType(url)
	}
	remotely(jobs.MinLease, "far")(cfg)
	if err := s.serve(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child is one life of the server.
type child struct {
	cmd        *exec.Cmd
	rest, nats string
	ready      chan string // the line of its log that says so
	done       chan error
	log        *bytes.Buffer
	logMu      *sync.Mutex
}

// startChild starts a server; env are further variables.
func startChild(t *testing.T, dir string, env ...string) *child {
	t.Helper()
	return startAs(t, exec.Command(os.Args[0]), dir, env...) //nolint:noctx // it is killed by hand
}

// startAs is startChild by a command that ends up as this program.
func startAs(t *testing.T, cmd *exec.Cmd, dir string, env ...string) *child {
	t.Helper()
	c := launch(t, cmd, dir, env...)
	c.awaitReady(t)
	return c
}

// launch starts a server, and does not wait for it.
func launch(t *testing.T, cmd *exec.Cmd, dir string, env ...string) *child {
	t.Helper()
	cmd.Env = append(append(os.Environ(), childEnv+"="+dir), env...)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd, done: make(chan error, 1), ready: make(chan string, 1), log: &bytes.Buffer{}, logMu: &sync.Mutex{}}
	go func() {
		sc := bufio.NewScanner(out)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			c.logMu.Lock()
			c.log.WriteString(sc.Text() + "\n")
			c.logMu.Unlock()
			if strings.Contains(sc.Text(), "msg=ready") {
				c.ready <- sc.Text()
			}
		}
		c.done <- cmd.Wait()
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return c
}

func (c *child) awaitReady(t *testing.T) {
	t.Helper()
	select {
	case line := <-c.ready:
		c.rest, c.nats = attribute(line, "rest="), attribute(line, "nats=")
	case err := <-c.done:
		t.Fatalf("the server ended before it was ready: %v\n%s", err, c.logged())
	case <-time.After(patience):
		t.Fatalf("the server is not ready\n%s", c.logged())
	}
}

func (c *child) logged() string {
	c.logMu.Lock()
	defer c.logMu.Unlock()
	return c.log.String()
}

func attribute(line, name string) string {
	_, rest, _ := strings.Cut(line, name)
	value, _, _ := strings.Cut(rest, " ")
	return value
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// acked is what the clients were promised.
type acked struct {
	mu    sync.Mutex
	jobs  []promise
	count atomic.Int64
	terms termsTally
}

type promise struct {
	id, kind string
	bare     bool // acknowledged by the stream only
	more     *terms
}

func (a *acked) add(p promise) {
	a.mu.Lock()
	a.jobs = append(a.jobs, p)
	a.mu.Unlock()
	a.count.Add(1)
}

// load submits by all doors until ctx ends.
func load(ctx context.Context, c *child, seed uint64, promised *acked) {
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	nc, err := nats.Connect(c.nats, nats.NoReconnect())
	if err != nil {
		return
	}
	defer nc.Close()
	for w := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			for ctx.Err() == nil {
				kind := [...]string{"quick", "quick", "quick", "flaky", "doomed", "slow"}[rng.IntN(6)]
				prio := 1 + rng.IntN(5)
				if ref, bare, ok := submitSomehow(ctx, client, nc, c.rest, kind, prio, rng); ok {
					promised.add(promise{id: ref, kind: kind, bare: bare})
				}
			}
		})
	}
	wg.Wait()
}

func submitSomehow(ctx context.Context, client *http.Client, nc *nats.Conn, rest, kind string, prio int, rng *rand.Rand) (id string, bare, ok bool) {
	body := fmt.Sprintf(`{"type":%q,"priority":%d,"payload":{"n":%d},"tags":["crash"]}`, kind, prio, rng.IntN(1000))
	switch rng.IntN(3) {
	case 0:
		short, cancel := context.WithTimeout(ctx, time.Duration(1+rng.IntN(2000))*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(short, http.MethodPost, rest+"/jobs", strings.NewReader(body))
		if err != nil {
			return "", false, false
		}
		resp, err := client.Do(req)
		if err != nil {
			return "", false, false
		}
		defer func() { _ = resp.Body.Close() }()
		answer, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusAccepted {
			return "", false, false
		}
		id, ok = idIn(answer)
		return id, false, ok
	case 1:
		msg, err := nc.RequestWithContext(ctx, "jobstream.submit", []byte(body))
		if err != nil || msg.Header.Get("Nats-Service-Error-Code") != "" {
			return "", false, false
		}
		id, ok = idIn(msg.Data)
		return id, false, ok
	}
	msg := nats.NewMsg(fmt.Sprintf("jobs.%s.%d", kind, prio))
	msg.Data = []byte(`{"bare":true}`)
	id = uuid.NewString()
	msg.Header.Set("Job-Id", id)
	answer, err := nc.RequestMsgWithContext(ctx, msg)
	if err != nil || bytes.Contains(answer.Data, []byte(`"error"`)) {
		return "", false, false
	}
	return id, true, true
}

func idIn(body []byte) (string, bool) {
	var j struct{ ID string }
	err := json.Unmarshal(body, &j)
	return j.ID, err == nil && j.ID != ""
}

// damage is what happens to the data folder while the server is down.
type damage struct {
	name string
	do   func(t *testing.T, data, earlier string)
}

var damages = []damage{
	{"none", func(*testing.T, string, string) {}},
	{"broker rolled back", func(t *testing.T, data, earlier string) {
		if _, err := os.Stat(earlier); err != nil {
			return // there is no earlier copy yet
		}
		mustDo(t, os.RemoveAll(filepath.Join(data, "broker")))
		mustDo(t, os.CopyFS(filepath.Join(data, "broker"), os.DirFS(earlier)))
	}},
	{"broker wiped", func(t *testing.T, data, _ string) { mustDo(t, os.RemoveAll(filepath.Join(data, "broker"))) }},
	{"last blocks truncated", func(t *testing.T, data, _ string) {
		for _, stream := range []string{"JOBS", "STATUS", "NOTIFICATIONS"} {
			blocks, err := filepath.Glob(filepath.Join(data, "broker", "jetstream", "*", "streams", stream, "msgs", "*.blk"))
			mustDo(t, err)
			if len(blocks) == 0 {
				continue
			}
			last := blocks[0]
			for _, b := range blocks {
				if len(b) > len(last) || len(b) == len(last) && b > last {
					last = b
				}
			}
			info, err := os.Stat(last)
			mustDo(t, err)
			mustDo(t, os.Truncate(last, info.Size()*2/3))
		}
	}},
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rounds is how many kills a crash test makes.
func rounds(t *testing.T, short int) int {
	t.Helper()
	if s := os.Getenv("JOBSTREAM_CRASH_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		mustDo(t, err)
		return n
	}
	if testing.Short() {
		return 1
	}
	return short
}

// inCI skips a test unless the crash tests are asked for. It is for tests that take
// long, or more of the machine than usual (mounts, full disks).
func inCI(t *testing.T) {
	t.Helper()
	if os.Getenv("JOBSTREAM_CRASH_ROUNDS") == "" {
		t.Skip("SKIPPED: set JOBSTREAM_CRASH_ROUNDS=1 or more to run this one; .ci/run does")
	}
}

// TestCrashKilled kills the server at random moments under load; between the
// lives the JetStream folder is left alone, rolled back, wiped or cut.
func TestCrashKilled(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("JOBSTREAM_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		mustDo(t, err)
	}
	t.Logf("seed %d (JOBSTREAM_SEED)", seed)
	rng := rand.New(rand.NewPCG(seed, 99))
	dir := t.TempDir()
	data, earlier := filepath.Join(dir, "data"), filepath.Join(dir, "earlier")
	promised := &acked{}
	damaged, fresh, queue := false, 0, ""
	for round := range rounds(t, 3) {
		// In a small queue more is refused, and JOBS is trimmed lane by lane all the time.
		queue = childQueue + "=" + [...]string{"", "150"}[rng.IntN(2)]
		c := startChild(t, dir, queue)
		missing(t, c, promised, damaged, fresh)
		checkParked(t, c, promised)
		fresh = len(promised.jobs)
		ctx, cancel := context.WithCancel(t.Context())
		loaded := make(chan struct{})
		seed := rng.Uint64()
		go func() { loadAll(ctx, c, seed, promised); close(loaded) }()
		after := promised.count.Load() + int64(50+rng.IntN(600))
		waitUntil(t, func() bool { return promised.count.Load() >= after })
		if rng.IntN(2) == 0 {
			_ = os.RemoveAll(earlier)
			_ = copyLive(earlier, filepath.Join(data, "broker")) // as good as a live folder can be copied
			after = promised.count.Load() + int64(rng.IntN(300))
			waitUntil(t, func() bool { return promised.count.Load() >= after })
		}
		c.kill()
		cancel()
		<-loaded
		d := damages[rng.IntN(len(damages))]
		d.do(t, data, earlier)
		damaged = d.name != "none"
		t.Logf("round %d: %d promised so far; %s", round, promised.count.Load(), d.name)
	}
	c := startChild(t, dir, queue)
	missing(t, c, promised, damaged, fresh)
	verifyAll(t, c, dir, promised)
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-c.done; err != nil {
		t.Errorf("the last stop was not clean: %v\n%s", err, c.logged())
	}
}

// copyLive copies a folder whose files come and go.
func copyLive(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // gone meanwhile
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o750)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // gone meanwhile
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
}

// waitUntil polls a condition that another process makes true.
func waitUntil(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.After(patience + 10*time.Second) // cond may say more after its patience
	for !cond() {
		select {
		case <-deadline:
			t.Fatal("waited in vain")
		case <-time.After(5 * time.Millisecond): // what is awaited is in another process
		}
	}
}

func get(t *testing.T, url string, into any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	mustDo(t, err)
	resp, err := http.DefaultClient.Do(req)
	mustDo(t, err)
	defer func() { _ = resp.Body.Close() }()
	mustDo(t, json.NewDecoder(resp.Body).Decode(into))
	return resp.StatusCode
}

// missing checks that every promised job is there right after a start. An ack of a
// stream just before its folder was damaged is no promise. Such jobs are forgotten
// here, too, if the tracker had not seen them.
func missing(t *testing.T, c *child, promised *acked, damaged bool, fresh int) {
	t.Helper()
	promised.mu.Lock()
	defer promised.mu.Unlock()
	kept := promised.jobs[:0]
	for i, p := range promised.jobs {
		var j map[string]any
		code := get(t, c.rest+"/jobs/"+p.id, &j)
		if code == http.StatusNotFound && p.bare && damaged && i >= fresh {
			continue
		}
		if code != http.StatusOK {
			t.Fatalf("promised %s job %s answers %d: %v\n%s", p.kind, p.id, code, j, c.logged())
		}
		kept = append(kept, p)
	}
	promised.jobs = kept
}

// missingAccepted is missing for a server that has run under load. A bare message that
// its stream has acknowledged may not be found yet.
func missingAccepted(t *testing.T, c *child, promised *acked) {
	t.Helper()
	accepted := &acked{}
	promised.mu.Lock()
	for _, p := range promised.jobs {
		if !p.bare {
			accepted.add(p)
		}
	}
	promised.mu.Unlock()
	missing(t, c, accepted, false, 0)
}

// verifyAll waits until nothing is unfinished and compares every promise.
func verifyAll(t *testing.T, c *child, dir string, promised *acked) {
	t.Helper()
	resumeParked(t, c, promised)
	waitFinished(t, c)
	var told map[string]map[string]bool
	waitUntil(t, func() bool {
		told = notifications(t, c) // the last ones follow the commit that ended their job
		for _, p := range promised.jobs {
			if len(told[p.id]) == 0 {
				return false
			}
		}
		return true
	})
	wants := map[string]string{"quick": "completed", "slow": "completed", "flaky": "completed", "doomed": "failed", "poison": "failed"}
	attempts := map[string]int{"quick": 1, "slow": 1, "flaky": 3, "doomed": 3}
	for _, p := range promised.jobs {
		var j jobs.Job
		if code := get(t, c.rest+"/jobs/"+p.id, &j); code != http.StatusOK {
			t.Fatalf("%s job %s answers %d at the end", p.kind, p.id, code)
		}
		if p.more != nil {
			p.more.verify(t, &j, told[p.id])
			continue
		}
		if j.Status.String() != wants[p.kind] {
			t.Errorf("%s job %s is %s: %s", p.kind, p.id, j.Status, j.Error)
		}
		if want := attempts[p.kind]; want != 0 && j.Attempt != want {
			t.Errorf("%s job %s ended with attempt %d, want %d: a kill must not use one up", p.kind, p.id, j.Attempt, want)
		}
		ids := told[p.id]
		if len(ids) != 1 {
			t.Errorf("%s job %s was notified under %d ids: %v", p.kind, p.id, len(ids), ids)
		}
	}
	checkStarts(t, filepath.Join(dir, "starts"))
	verifyTerms(t, c, dir, promised)
}

// waitFinished waits until nothing is unfinished, and says what is if that takes
// too long.
func waitFinished(t *testing.T, c *child) {
	t.Helper()
	defer func() {
		if t.Failed() {
			var list struct{ Jobs []json.RawMessage }
			get(t, c.rest+"/jobs?status=scheduled&status=pending&status=processing&status=retrying&limit=10", &list)
			for _, j := range list.Jobs {
				t.Logf("unfinished: %s", j)
			}
		}
	}()
	waitUntil(t, func() bool { return unfinished(t, c) == 0 })
}

// unfinished is how many jobs the child shows that have not ended, up to a few.
func unfinished(t *testing.T, c *child) int {
	t.Helper()
	var list struct{ Jobs []json.RawMessage }
	get(t, c.rest+"/jobs?status=scheduled&status=pending&status=processing&status=retrying&limit=10", &list)
	return len(list.Jobs)
}

// notifications reads all that NOTIFICATIONS holds: job → ce-ids.
func notifications(t *testing.T, c *child) map[string]map[string]bool {
	t.Helper()
	nc, err := nats.Connect(c.nats)
	mustDo(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	mustDo(t, err)
	var cons jetstream.Consumer
	var info *jetstream.StreamInfo
	for tries := 1; cons == nil; tries++ { // a cluster may be electing
		stream, err := js.Stream(t.Context(), "NOTIFICATIONS")
		if err == nil {
			info = stream.CachedInfo()
			cons, err = stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy})
		}
		if err != nil && tries == 10 {
			t.Fatal(err)
		}
	}
	told := make(map[string]map[string]bool)
	refused := 0
	for left := int(info.State.Msgs); left > 0; {
		batch, err := cons.Fetch(min(left, 1000), jetstream.FetchMaxWait(5*time.Second))
		mustDo(t, err)
		got := 0
		for m := range batch.Messages() {
			got++
			id := m.Headers().Get("ce-id")
			job, _, _ := strings.Cut(id, ".")
			if told[job] == nil {
				told[job] = make(map[string]bool)
			}
			told[job][id] = true
		}
		if errors.Is(batch.Error(), nats.ErrNoResponders) && refused < 20 {
			refused++
			continue // in a cluster, the consumer's subscription may not be known at this node yet
		}
		if got == 0 {
			t.Fatalf("%d notifications could not be read: %v", left, batch.Error())
		}
		left -= got
	}
	return told
}

// checkStarts checks that no attempt of a job began twice within one life of a node.
// Only a kill or a broken broker lets an attempt run again.
func checkStarts(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	mustDo(t, err)
	defer func() { _ = f.Close() }()
	seen := make(map[string]bool)
	sc := bufio.NewScanner(f)
	n := 0
	for sc.Scan() {
		n++
		if seen[sc.Text()] {
			t.Errorf("this attempt was started twice in one life: %s", sc.Text())
		}
		seen[sc.Text()] = true
	}
	mustDo(t, sc.Err())
	t.Logf("%d attempts were started", n)
}

// TestCrashPoison has one job that kills the process whenever it runs: it must
// end as failed after max_lost deaths, and all others must complete.
func TestCrashPoison(t *testing.T) {
	t.Parallel()
	const maxLost = 3
	limit := childMaxLost + "=" + strconv.Itoa(maxLost)
	dir := t.TempDir()
	c := startChild(t, dir, limit)
	var ids []string
	for _, kind := range []string{"slow", "poison", "slow", "quick", "quick"} {
		// all are in before the poison can be reached: it dies of the first start
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.rest+"/jobs", strings.NewReader(`{"type":"`+kind+`"}`))
		mustDo(t, err)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			break // the poison was quick
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		mustDo(t, err)
		if id, ok := idIn(body); ok {
			ids = append(ids, id)
		}
	}
	deaths := 1
	for <-c.done; ; <-c.done {
		if deaths > maxLost+1 {
			t.Fatalf("the poison killed %d processes", deaths)
		}
		c = startChild(t, dir, limit)
		if settled := waitSettled(t, c); settled {
			break
		}
		deaths++
	}
	for i, id := range ids {
		var j jobs.Job
		if code := get(t, c.rest+"/jobs/"+id, &j); code != http.StatusOK {
			t.Fatalf("job %s answers %d", id, code)
		}
		want := jobs.Completed
		if i == 1 {
			want = jobs.Failed
		}
		if j.Status != want {
			t.Errorf("%s job %s is %s: %s", j.Type, id, j.Status, j.Error)
		}
		if i == 1 && (j.Lost != maxLost || !strings.Contains(j.Error, "max_lost")) {
			t.Errorf("the poison has lost %d workers: %s", j.Lost, j.Error)
		}
	}
	c.kill()
}

// waitSettled waits until the child has nothing unfinished; false if it died.
func waitSettled(t *testing.T, c *child) bool {
	t.Helper()
	for {
		select {
		case err := <-c.done:
			c.done <- err
			return false
		case <-time.After(10 * time.Millisecond): // what is awaited is in another process
		}
		resp, err := http.Get(c.rest + "/jobs?status=pending&status=processing&status=retrying&limit=1") //nolint:noctx // the child may be dead
		if err != nil {
			continue
		}
		var list struct{ Jobs []json.RawMessage }
		err = json.NewDecoder(resp.Body).Decode(&list)
		_ = resp.Body.Close()
		if err == nil && len(list.Jobs) == 0 {
			return true
		}
	}
}

// TestCrashTrackerDeleted deletes the tracker while the server is down: the
// next start finds in the streams what they still hold.
func TestCrashTrackerDeleted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := startChild(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	promised := &acked{}
	loaded := make(chan struct{})
	go func() { load(ctx, c, 1, promised); close(loaded) }()
	waitUntil(t, func() bool { return promised.count.Load() > 300 })
	c.kill()
	cancel()
	<-loaded
	mustDo(t, os.Remove(filepath.Join(dir, "data", "status.db")))
	c = startChild(t, dir)
	missing(t, c, promised, false, 0)
	verifyAll(t, c, dir, promised)
	for _, p := range promised.jobs {
		var j jobs.Job
		get(t, c.rest+"/jobs/"+p.id, &j)
		if len(j.Payload) == 0 {
			t.Errorf("%s job %s has lost its payload", p.kind, p.id)
		}
	}
	mustDo(t, c.cmd.Process.Signal(syscall.SIGTERM))
	if err := <-c.done; err != nil {
		t.Errorf("the stop was not clean: %v\n%s", err, c.logged())
	}
}

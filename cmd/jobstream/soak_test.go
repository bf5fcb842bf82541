package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/jobs/api"
)

// TestSoakMillion fills a server with a million waiting jobs, and then with 100,000
// sleeping retries. It prints the cost of that, and how long a start takes. It is run
// by hand: JOBSTREAM_SOAK=1 go test -run Soak -v.
func TestSoakMillion(t *testing.T) {
	soak(t)
	for _, c := range []struct {
		kind   string
		header string
		n      int
		done   func(api.Stats) int
	}{
		{"held", "", 1_000_000, func(s api.Stats) int { return s.QueuedJobs + s.ActiveWorkers }},
		{"quick", "Job-Delay", 1_000_000, func(s api.Stats) int { return s.ScheduledJobs }},
		{"asleep", "", 100_000, func(s api.Stats) int { return s.RetryingJobs }},
	} {
		t.Run(c.kind+c.header, func(t *testing.T) {
			dir := t.TempDir()
			begun := time.Now()
			child := startChild(t, dir)
			report := func(what string) {
				var s api.Stats
				waitLong(t, func() bool { get(t, child.rest+"/workers/stats", &s); return c.done(s) >= c.n })
				t.Logf("%-28s %8s  memory %4d MiB  tracker %4d MiB  JOBS %4d MiB", what, time.Since(begun).Round(10*time.Millisecond),
					rss(t, child)>>20, folderSize(filepath.Join(dir, "data", "status.db"))>>20,
					folderSize(filepath.Join(dir, "data", "broker", "jetstream", "$G", "streams", "JOBS"))>>20)
			}
			publishMany(t, child, c.kind, c.n, c.header)
			report(fmt.Sprintf("%d %s jobs are in", c.n, c.kind))
			child.kill()
			begun = time.Now()
			child = startChild(t, dir)
			t.Logf("ready after kill -9 in %s\n%s", time.Since(begun), child.logged())
			report("after kill -9")
			begun = time.Now()
			mustDo(t, child.cmd.Process.Signal(syscall.SIGTERM))
			if err := <-child.done; err != nil {
				t.Errorf("stop: %v\n%s", err, child.logged())
			}
			t.Logf("stopped in %s", time.Since(begun))
			begun = time.Now()
			child = startChild(t, dir)
			t.Logf("ready after a clean stop in %s", time.Since(begun))
			report("after a clean stop")
			child.kill()
		})
	}
}

func soak(t *testing.T) {
	t.Helper()
	if os.Getenv("JOBSTREAM_SOAK") == "" {
		t.Skip("set JOBSTREAM_SOAK=1 to run it: it takes minutes and gigabytes")
	}
}

// TestSoakSlowSubscribers runs jobs while a thousand NATS clients subscribe to every
// notification and read none. It prints the memory that this takes. That is less than a
// gigabyte, because all clients together are bounded.
func TestSoakSlowSubscribers(t *testing.T) {
	soak(t)
	const clients, n = 1000, 100_000
	// Most of it is garbage, and jobs that wait for their notification; it was 4 GiB without a bound.
	const mostMemory = 640 << 20
	child := startChild(t, t.TempDir())
	var s api.Stats
	publishMany(t, child, "quick", n, "")
	waitLong(t, func() bool { get(t, child.rest+"/workers/stats", &s); return s.CompletedJobs >= n })
	t.Logf("without them: memory %d MiB", rss(t, child)>>20)
	var silent []net.Conn
	for range clients {
		conn, err := net.Dial("tcp", strings.TrimPrefix(child.nats, "nats://")) //nolint:noctx // a plain socket is what is wanted
		mustDo(t, err)
		defer func() { _ = conn.Close() }()
		silent = append(silent, conn)
		_, err = conn.Write([]byte("CONNECT {\"verbose\":false}\r\nSUB job.> 1\r\n"))
		mustDo(t, err)
	}
	nc, err := nats.Connect(child.nats)
	mustDo(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(time.Minute)) // the server has much to do
	mustDo(t, err)
	stream, err := js.Stream(t.Context(), "NOTIFICATIONS")
	mustDo(t, err)
	most := int64(0)
	publishMany(t, child, "quick", n, "")
	waitLong(t, func() bool { // the notifications come later than the jobs end
		most = max(most, rss(t, child))
		info, err := stream.Info(t.Context())
		return err == nil && info.State.LastSeq >= 2*n
	})
	get(t, child.rest+"/workers/stats", &s)
	if s.CompletedJobs < 2*n {
		t.Errorf("%d jobs are completed", s.CompletedJobs)
	}
	dropped := 0
	for _, conn := range silent {
		mustDo(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
		if _, err := io.Copy(io.Discard, conn); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			dropped++
			continue
		}
		break // each would take a minute
	}
	t.Logf("with %d that do not read: memory %d MiB at most, at least %d of them were dropped", clients, most>>20, dropped)
	if most > mostMemory {
		t.Errorf("memory grew to %d MiB, want at most %d", most>>20, mostMemory>>20)
	}
}

// TestSoakFlood has clients submit as fast as they can while no job gets done: first by
// REST, then by bare messages that nobody waits for. It prints memory and files. The
// queue's bound limits both.
func TestSoakFlood(t *testing.T) {
	soak(t)
	const queue, clients, length = 100_000, 256, 30 * time.Second
	dir := t.TempDir()
	child := startChild(t, dir, childQueue+"="+strconv.Itoa(queue))
	before := rss(t, child)
	flood := func(what string, client func(ctx context.Context)) {
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		var group sync.WaitGroup
		for range clients {
			group.Go(func() { client(ctx) })
		}
		most := int64(0)
		for tick := time.NewTicker(100 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			most = max(most, rss(t, child))
		}
		group.Wait()
		var s api.Stats
		get(t, child.rest+"/workers/stats", &s)
		unfinished := s.QueuedJobs + s.ActiveWorkers
		t.Logf("%s: memory %d MiB before, %d MiB at most; %d jobs are in; tracker %d MiB, JOBS %d MiB", what, before>>20, most>>20, unfinished,
			folderSize(filepath.Join(dir, "data", "status.db"))>>20, folderSize(filepath.Join(dir, "data", "broker", "jetstream", "$G", "streams", "JOBS"))>>20)
		if unfinished < queue || unfinished > 2*queue+queue/10 {
			t.Errorf("%d jobs are in, the queue's size is %d", unfinished, queue)
		}
		if most > 2<<30 {
			t.Errorf("memory grew to %d MiB", most>>20)
		}
	}
	body := `{"type":"held","payload":{"data":"` + strings.Repeat("x", 180) + `"}}`
	var answers [600]atomic.Int64
	flood("REST", func(ctx context.Context) {
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		for ctx.Err() == nil {
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, child.rest+"/jobs", strings.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(req)
			if err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			answers[resp.StatusCode].Add(1)
		}
	})
	for code := range answers {
		if n := answers[code].Load(); n > 0 {
			t.Logf("%d was answered %d times", code, n)
			if code != http.StatusAccepted && code != http.StatusTooManyRequests {
				t.Errorf("nobody expects a %d", code)
			}
		}
	}
	nc, err := nats.Connect(child.nats)
	mustDo(t, err)
	defer nc.Close()
	payload := []byte(`{"data":"` + strings.Repeat("x", 180) + `"}`)
	flood("bare NATS", func(ctx context.Context) {
		for ctx.Err() == nil {
			if err := nc.Publish("jobs.held", payload); err != nil {
				return
			}
		}
	})
}

// TestSoakRetention runs jobs and deletes them again, round after round, and prints
// the sizes of the files: they level off.
func TestSoakRetention(t *testing.T) {
	soak(t)
	const rounds, each, settled = 26, 100_000, 4
	dir := t.TempDir()
	child := startChild(t, dir)
	var sizes []int64
	for round := range rounds {
		publishMany(t, child, "quick", each, "")
		var s api.Stats
		waitLong(t, func() bool { get(t, child.rest+"/workers/stats", &s); return s.CompletedJobs >= int64(round+1)*each })
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, child.rest+"/jobs", strings.NewReader(`{"type":"clean","payload":{"older_than":"0s"}}`))
		mustDo(t, err)
		req.Header.Set("Prefer", "wait=60")
		resp, err := http.DefaultClient.Do(req)
		mustDo(t, err)
		text, err := io.ReadAll(resp.Body)
		mustDo(t, errors.Join(err, resp.Body.Close()))
		if !strings.Contains(string(text), `"completed"`) {
			t.Fatalf("cleanup: %s", text)
		}
		size := folderSize(filepath.Join(dir, "data", "status.db"))
		sizes = append(sizes, size)
		t.Logf("round %2d: memory %4d MiB  tracker %4d MiB  broker %4d MiB", round+1, rss(t, child)>>20, size>>20,
			folderSize(filepath.Join(dir, "data", "broker"))>>20)
	}
	if sizes[rounds-1] > sizes[settled]*11/10 {
		t.Errorf("the tracker's file has %d MiB after %d rounds, and %d MiB after %d", sizes[settled]>>20, settled+1, sizes[rounds-1]>>20, rounds)
	}
}

// publishMany publishes n jobs as bare messages; header, if there is one, is given
// with an hour.
func publishMany(t *testing.T, c *child, kind string, n int, header string) {
	t.Helper()
	nc, err := nats.Connect(c.nats)
	mustDo(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4000))
	mustDo(t, err)
	payload := []byte(`{"data":"` + strings.Repeat("x", 180) + `"}`)
	for range n {
		m := &nats.Msg{Subject: "jobs." + kind, Data: payload, Header: nats.Header{}}
		if header != "" {
			m.Header.Set(header, "1h")
		}
		_, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute))
		mustDo(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		t.Fatal("not all were acknowledged")
	}
}

func waitLong(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("waited ten minutes in vain")
		}
		time.Sleep(50 * time.Millisecond) // what is awaited is in another process
	}
}

func rss(t *testing.T, c *child) (bytes int64) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	mustDo(t, err)
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(sc.Text(), "RssAnon: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

func folderSize(root string) (bytes int64) {
	_ = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // files come and go
		}
		if info, err := d.Info(); err == nil {
			bytes += info.Size()
		}
		return nil
	})
	return bytes
}

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"jobstream/jobs"
)

// TestSoakAttack loads a server by all doors for a minute, while others do all
// that was ever found to cost it more than it should. Its memory, its descriptors
// and its log stay bounded, and every job that it took comes to its end.
// JOBSTREAM_ATTACK=sockets has only those attacks whose names contain that.
func TestSoakAttack(t *testing.T) {
	soak(t)
	const (
		length     = time.Minute
		mostMemory = 400 << 20 // bytes, without the pages of files
		mostLines  = 2000      // of its log
		pause      = 250 * time.Millisecond
	)
	rng := seeded(t)
	dir := t.TempDir()
	child := startChild(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	promised := &acked{}
	var group sync.WaitGroup
	seed := rng.Uint64()
	for w := range 8 {
		group.Go(func() { loadQuick(ctx, child, rand.New(rand.NewPCG(seed, uint64(w))), promised) })
	}
	for name, attack := range attacks {
		if !strings.Contains(name, os.Getenv("JOBSTREAM_ATTACK")) {
			continue
		}
		group.Go(func() {
			n := 0
			for ctx.Err() == nil {
				if attack(ctx, child) == nil {
					n++
				}
				select { // done or turned away, it comes again
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
			t.Logf("%s: %d times", name, n)
		})
	}
	memory, files := int64(0), 0
	for tick := time.NewTicker(100 * time.Millisecond); ctx.Err() == nil; <-tick.C {
		memory, files = max(memory, rss(t, child)), max(files, descriptors(t, child))
	}
	group.Wait()
	lines := strings.Count(child.logged(), "\n")
	t.Logf("memory %d MiB, %d descriptors at most; %d lines of log; %d jobs were taken", memory>>20, files, lines, promised.count.Load())
	if memory > mostMemory {
		t.Errorf("memory grew to %d MiB, want at most %d", memory>>20, mostMemory>>20)
	}
	var limit syscall.Rlimit
	mustDo(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if uint64(files) > limit.Cur*9/10 {
		t.Errorf("%d descriptors were open, of %d that there may be", files, limit.Cur)
	}
	if lines > mostLines {
		t.Errorf("%d lines were logged, want at most %d: %.3000s", lines, mostLines, child.logged())
	}
	if promised.count.Load() == 0 {
		t.Error("no job was taken meanwhile")
	}
	waitLong(t, func() bool { return unfinished(t, child) == 0 })
	for _, p := range promised.jobs {
		var j jobs.Job
		if code := get(t, child.rest+"/jobs/"+p.id, &j); code != http.StatusOK || j.Status != jobs.Completed {
			t.Fatalf("job %s answers %d: %s %s", p.id, code, j.Status, j.Error)
		}
	}
	mustDo(t, child.cmd.Process.Signal(syscall.SIGTERM))
	if err := <-child.done; err != nil {
		t.Errorf("the stop was not clean: %v\n%s", err, child.logged())
	}
}

// loadQuick submits quick jobs by all doors until ctx ends.
func loadQuick(ctx context.Context, c *child, rng *rand.Rand, promised *acked) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	nc, err := nats.Connect(c.nats)
	if err != nil {
		return
	}
	defer nc.Close()
	for ctx.Err() == nil {
		if ref, bare, ok := submitSomehow(ctx, client, nc, c.rest, "quick", 1+rng.IntN(5), rng); ok {
			promised.add(promise{id: ref, kind: "quick", bare: bare})
		}
	}
}

// descriptors are how many files and sockets a process has open.
func descriptors(t *testing.T, c *child) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.cmd.Process.Pid))
	mustDo(t, err)
	return len(open)
}

// attacks are what strangers do, once; an error means that they were turned away.
var attacks = map[string]func(ctx context.Context, c *child) error{
	"large payloads, listed whole": func(ctx context.Context, c *child) error {
		body := `{"type":"quick","tags":["large"],"payload":"` + strings.Repeat("x", 1_000_000) + `"}`
		for range 10 {
			if err := request(ctx, http.MethodPost, c.rest+"/jobs", body); err != nil {
				return err
			}
		}
		return together(7, func() error {
			return errors.Join(
				request(ctx, http.MethodGet, c.rest+"/jobs?limit=500&tag=large", ""),
				request(ctx, http.MethodHead, c.rest+"/jobs?limit=500&tag=large", ""))
		})
	},
	"large bare messages that are not JSON": func(ctx context.Context, c *child) error {
		return published(ctx, c, func(nc *nats.Conn) error {
			return nc.Publish("jobs.quick", []byte(strings.Repeat("\x01", 1_000_000)))
		})
	},
	"deep payloads": func(ctx context.Context, c *child) error {
		deep := strings.Repeat("[", 1000) + strings.Repeat("]", 1000)
		return errors.Join(
			request(ctx, http.MethodPost, c.rest+"/jobs", `{"type":"quick","payload":`+deep+`}`),
			published(ctx, c, func(nc *nats.Conn) error { return nc.Publish("jobs.quick", []byte(deep)) }))
	},
	"long cron texts, many schedules": func(ctx context.Context, c *child) error {
		for range 20 {
			if err := request(ctx, http.MethodPost, c.rest+"/schedules", `{"name":"`+uuid.NewString()+`","cron":"0 0 1 1 *","type":"quick"}`); err != nil {
				return err
			}
		}
		return request(ctx, http.MethodPost, c.rest+"/schedules", `{"name":"x","cron":"`+strings.Repeat("0,", 480_000)+`0 * * * *","type":"quick"}`)
	},
	"unknown types": func(ctx context.Context, c *child) error {
		return errors.Join(published(ctx, c, func(nc *nats.Conn) error {
			for range 500 {
				if err := nc.Publish("jobs.t"+uuid.NewString(), []byte(`{}`)); err != nil {
					return err
				}
			}
			return nil
		}), request(ctx, http.MethodGet, c.rest+"/jobs/counts", ""))
	},
	"events that are none": func(ctx context.Context, c *child) error {
		return published(ctx, c, func(nc *nats.Conn) error {
			for range 2000 {
				if err := nc.Publish("status.x", []byte("x")); err != nil {
					return err
				}
			}
			return nil
		})
	},
	"packed events that are many by their header only": func(ctx context.Context, c *child) error {
		packed := binary.BigEndian.AppendUint32([]byte{1, 0xdd}, 2_000_000) // version, MessagePack's array32
		packed = append(packed, make([]byte, 1_000_000)...)
		return published(ctx, c, func(nc *nats.Conn) error { return nc.Publish("status.packed.x", packed) })
	},
	"starts of jobs that never were": func(ctx context.Context, c *child) error {
		return published(ctx, c, func(nc *nats.Conn) error {
			for range 500 {
				id, now := uuid.NewString(), time.Now().UTC().Format(time.RFC3339Nano)
				body := fmt.Sprintf(`{"kind":"started","id":%q,"seq":4000000000,"type":"held","priority":3,"max_attempts":4,"run":1,"attempt":1,"at":%q,"started_at":%q,"created_at":%q}`, id, now, now, now)
				if err := nc.Publish("status.started.held."+id, []byte(body)); err != nil {
					return err
				}
			}
			return nil
		})
	},
	"a thousand idle sockets": func(ctx context.Context, c *child) error {
		u, err := url.Parse(c.rest)
		if err != nil {
			return err
		}
		return holdSockets(ctx, u.Host, "")
	},
	"a thousand subscribers that do not read": func(ctx context.Context, c *child) error {
		return holdSockets(ctx, strings.TrimPrefix(c.nats, "nats://"), "CONNECT {\"verbose\":false}\r\nSUB job.> 1\r\n")
	},
}

// holdSockets opens a thousand sockets, says something on each, and holds them for
// a while; some may be refused.
func holdSockets(ctx context.Context, address, hello string) error {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for range 1000 {
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			break
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, hello)
	}
	<-ctx.Done()
	return nil
}

// request makes a request and reads its answer; only a failed connection is an error.
func request(ctx context.Context, method, address, body string) error {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

// published connects, lets publish do so, and waits until the server has read it.
func published(ctx context.Context, c *child, publish func(nc *nats.Conn) error) error {
	nc, err := nats.Connect(c.nats, nats.NoReconnect())
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := publish(nc); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return nc.FlushWithContext(ctx)
}

// together calls f n times at once.
func together(n int, f func() error) error {
	errs := make([]error, n)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() { errs[i] = f() })
	}
	group.Wait()
	return errors.Join(errs...)
}

//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"jobstream/jobs"
)

// TestCrowd has more clients than the process may have files open crowd a door without
// a word. Those that were in before go on submitting, and JetStream, which begins new
// files meanwhile, never misses one. When the crowd has gone new clients come in.
func TestCrowd(t *testing.T) {
	t.Parallel()
	const files, crowd, each = 400, 420, 20
	few := exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0"`, files), os.Args[0]) //nolint:noctx // it is killed by hand
	c := startAs(t, few, t.TempDir())
	promised := &acked{}
	for name, addr := range map[string]string{
		"REST": strings.TrimPrefix(c.rest, "http://"), "NATS": strings.TrimPrefix(c.nats, "nats://"),
	} {
		t.Run(name, func(t *testing.T) {
			client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}, Timeout: patience}
			defer client.CloseIdleConnections()
			nc, err := nats.Connect(c.nats, nats.NoReconnect())
			mustDo(t, err)
			defer nc.Close()
			submitBoth(t, client, nc, c, promised, 1)
			for range crowd {
				if conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", addr); err == nil {
					defer func() { _ = conn.Close() }()
				}
			}
			submitBoth(t, client, nc, c, promised, each)
		})
		wait(t, "a new client gets in", func() answer {
			fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
			resp, err := fresh.Get(c.rest + "/readyz") //nolint:noctx // it has a time limit
			if err != nil {
				return answer{body: err.Error()}
			}
			defer func() { _ = resp.Body.Close() }()
			nc, err := nats.Connect(c.nats, nats.NoReconnect())
			if err != nil {
				return answer{body: err.Error()}
			}
			nc.Close()
			return answer{code: resp.StatusCode, body: resp.Status}
		}, func(a answer) bool { return a.code == http.StatusOK })
	}
	for line := range strings.Lines(c.logged()) {
		if strings.Contains(line, "level=ERROR") && !strings.Contains(line, "maximum connections") {
			t.Errorf("the log says %s", line)
		}
	}
	waitFinished(t, c)
	for _, p := range promised.jobs {
		var j jobs.Job
		if code := get(t, c.rest+"/jobs/"+p.id, &j); code != http.StatusOK || j.Status != jobs.Completed {
			t.Errorf("job %s answers %d and is %s", p.id, code, j.Status)
		}
	}
}

// submitBoth submits large jobs by the connections that are there.
func submitBoth(t *testing.T, client *http.Client, nc *nats.Conn, c *child, promised *acked, n int) {
	t.Helper()
	payload := fmt.Sprintf(`{"x":%q}`, bytes.Repeat([]byte("x"), 500<<10))
	for range n {
		resp, err := client.Post(c.rest+"/jobs", "application/json", strings.NewReader(`{"type":"quick","payload":`+payload+`}`)) //nolint:noctx // it has a time limit
		mustDo(t, err)
		body, err := io.ReadAll(resp.Body)
		mustDo(t, err)
		mustDo(t, resp.Body.Close())
		id, ok := idIn(body)
		if resp.StatusCode != http.StatusAccepted || !ok {
			t.Fatalf("a client that was in before got %s: %s", resp.Status, body)
		}
		promised.add(promise{id: id, kind: "quick"})
		m := nats.NewMsg("jobs.quick")
		id, m.Data = uuid.NewString(), []byte(payload)
		m.Header.Set("Job-Id", id)
		ack, err := nc.RequestMsg(m, patience)
		mustDo(t, err)
		if bytes.Contains(ack.Data, []byte(`"error"`)) {
			t.Fatalf("a client that was in before got %s", ack.Data)
		}
		promised.add(promise{id: id, kind: "quick", bare: true})
	}
}

// TestCrashNoFiles takes the right to open files away from the server under load, until
// a stream fails to open one. The server says so, and goes on by itself when it may
// again.
func TestCrashNoFiles(t *testing.T) {
	t.Parallel()
	inCI(t)
	rng := seeded(t)
	dir := t.TempDir()
	c := startChild(t, dir)
	allow := func(files string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "prlimit", "--pid", strconv.Itoa(c.cmd.Process.Pid), "--nofile="+files).CombinedOutput()
		if err != nil {
			t.Skipf("NOT TESTED, %s: prlimit: %v: %s", t.Name(), err, out)
		}
	}
	promised := &acked{}
	for range 2 {
		if a := ask(t, http.MethodGet, c.rest+"/readyz", ""); a.code != http.StatusOK { // by the connection that is used below
			t.Fatalf("readyz: %d %s", a.code, a.body)
		}
		under(t, c, rng.Uint64(), promised, func() {
			allow("1:")
			defer allow("1024:")
			unready(t, c, "too many open files")
		})
		healed(t, c, promised)
	}
	finish(t, c, dir, promised)
	terminate(t, c)
}

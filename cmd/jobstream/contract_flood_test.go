//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs/access"
)

// mostGrowth is how many bytes a server may grow by while it is attacked. The garbage that
// any load makes comes on top, so these tests let little of it lie.
const (
	mostGrowth = 64 << 20
	tightGC    = "GOGC=25"
)

// peer is a NATS client that writes as it likes.
type peer struct {
	conn net.Conn
	pong chan struct{} // one for each answer to a PING; closed with the connection
}

func connectPeer(t *testing.T, c *child, who string) *peer {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(c.nats, "nats://"))
	mustDo(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	login := ""
	if who != access.Anonymous {
		login = fmt.Sprintf(`,"user":%q,"pass":%q`, who, secretOf(who))
	}
	_, err = fmt.Fprintf(conn, "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true%s}\r\nSUB _INBOX.me.* 1\r\n", login)
	mustDo(t, err)
	p := &peer{conn, make(chan struct{}, 1)}
	go func() {
		defer close(p.pong)
		for r := bufio.NewReaderSize(conn, 1<<16); ; {
			line, err := r.ReadSlice('\n')
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return
			}
			if string(line) == "PONG\r\n" {
				p.pong <- struct{}{}
			}
		}
	}()
	return p
}

// settled waits until the server has read everything. It returns false if that has closed
// the connection.
func (p *peer) settled(t *testing.T) bool {
	t.Helper()
	_, _ = io.WriteString(p.conn, "PING\r\n") // the answer shows
	select {
	case _, open := <-p.pong:
		return open
	case <-time.After(patience):
		t.Fatal("the server does not answer")
		return false
	}
}

// send writes so many commands, as fast as they are taken. It ends early if the server
// closes the connection. Then it returns false.
func (p *peer) send(ctx context.Context, t *testing.T, n int, command func(i int) string) bool {
	t.Helper()
	stop := context.AfterFunc(ctx, func() { _ = p.conn.Close() })
	defer stop()
	var b bytes.Buffer
	for i := range n {
		b.WriteString(command(i))
		if b.Len() > 1<<16 || i == n-1 {
			if _, err := p.conn.Write(b.Bytes()); err != nil {
				return false
			}
			b.Reset()
		}
	}
	return true
}

func pub(subject string, i int, body string) string {
	return fmt.Sprintf("PUB %s _INBOX.me.%d %d\r\n%s\r\n", subject, i, len(body), body)
}

// growth calls f, and returns how many bytes the server grew by meanwhile, at most.
func growth(t *testing.T, c *child, f func()) int64 {
	t.Helper()
	before := rss(t, c)
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	most := before
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-done:
			return most - before
		case <-tick.C:
			most = max(most, rss(t, c))
		}
	}
}

// TestContractAttacks replays what anybody could once do over NATS. As each role it
// changes nothing: the jobs, the counts, the streams and the bound of the queue are as before.
func TestContractAttacks(t *testing.T) {
	t.Parallel()
	c := startChild(t, t.TempDir(), tightGC)
	defer c.kill()
	ask := func(method, path, body string) []byte {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, c.rest+path, strings.NewReader(body))
		mustDo(t, err)
		r.Header.Set("Authorization", "Bearer "+adminToken)
		answer, err := http.DefaultClient.Do(r)
		mustDo(t, err)
		text, err := io.ReadAll(answer.Body)
		mustDo(t, errors.Join(err, answer.Body.Close()))
		if answer.StatusCode >= 300 {
			t.Fatalf("%s %s: %d %s", method, path, answer.StatusCode, text)
		}
		return text
	}
	var finished, waiting struct{ ID string }
	mustDo(t, json.Unmarshal(ask("POST", "/jobs", `{"type":"quick"}`), &finished))
	ask("GET", "/jobs/"+finished.ID+"?wait=1m", "")
	mustDo(t, json.Unmarshal(ask("POST", "/jobs", `{"type":"quick","delay":"1h"}`), &waiting))
	nc, err := nats.Connect(c.nats, nats.Token(adminToken), nats.NoReconnect())
	mustDo(t, err)
	defer nc.Close()
	streams := func() string {
		m, err := nc.Request("$JS.API.STREAM.LIST", nil, patience)
		mustDo(t, err)
		var list struct {
			Streams []struct {
				Config struct{ Name string }
				State  struct {
					Last      uint64 `json:"last_seq"`
					Consumers int    `json:"consumer_count"`
				}
			}
		}
		mustDo(t, json.Unmarshal(m.Data, &list))
		return fmt.Sprint(list)
	}
	look := func() string {
		return string(ask("GET", "/jobs", "")) + string(ask("GET", "/jobs/counts", "")) + string(ask("GET", "/jobs/"+finished.ID+"/events", "")) +
			string(ask("GET", "/jobs/"+waiting.ID, "")) + streams()
	}
	now := time.Now().UTC().Format(time.RFC3339Nano)
	forged := func(kind, id string, seq int) string {
		return fmt.Sprintf(`{"kind":%q,"id":%q,"seq":%d,"type":"quick","priority":3,"max_attempts":4,"run":1,"attempt":1,"at":%q,"started_at":%q,"created_at":%q}`, kind, id, seq, now, now, now)
	}
	unknown := func(i int) string { return fmt.Sprintf("01990000-0000-7000-8000-%012d", i) }
	before := look()
	for _, who := range []string{access.Anonymous, "submit", "read", "work"} {
		grew := growth(t, c, func() {
			p := connectPeer(t, c, who)
			for what, command := range map[string]func(i int) string{
				"completion of a job": func(i int) string {
					return pub("status.completed.quick."+waiting.ID, i, forged("completed", waiting.ID, 2))
				},
				"starts of jobs": func(i int) string {
					return pub("status.started.quick."+unknown(i), i, forged("started", unknown(i), i+10))
				},
				"packed events":      func(i int) string { return pub("status.packed.x", i, "\x01\xdd\xff\xff\xff\xff") },
				"notifications":      func(i int) string { return pub(fmt.Sprintf("job.a.b.%d", i), i, "{}") },
				"deliveries":         func(i int) string { return pub("$JS.API.CONSUMER.MSG.NEXT.JOBS.quick-3", i, "") },
				"ends of deliveries": func(i int) string { return pub(fmt.Sprintf("$JS.ACK.JOBS.quick-3.1.%d.1.1.0", i), i, "+TERM") },
				"streams": func(i int) string {
					return pub(fmt.Sprintf("$JS.API.STREAM.CREATE.s%d", i), i, fmt.Sprintf(`{"name":"s%d","subjects":["s%d"]}`, i, i))
				},
				"purges": func(i int) string { return pub("$JS.API.STREAM.PURGE.JOBS", i, "") },
				"consumers of jobs": func(i int) string {
					return pub("$JS.API.CONSUMER.CREATE.JOBS.c", i, `{"stream_name":"JOBS","config":{"name":"c"}}`)
				},
				"messages of a stream":     func(i int) string { return pub("$JS.API.STREAM.MSG.GET.JOBS", i, `{"seq":1}`) },
				"requests of others":       func(i int) string { return pub("svc.admin.delete", i, `{"id":"`+finished.ID+`"}`) },
				"requests past the gate":   func(i int) string { return pub("gate.admin.$JS.API.CONSUMER.DELETE.JOBS.quick-3", i, "") },
				"answers of the server":    func(i int) string { return pub(fmt.Sprintf("_JOBSTREAM.%d", i), i, `{"stream":"JOBS","seq":1}`) },
				"subscriptions to all":     func(i int) string { return fmt.Sprintf("SUB > %d\r\nUNSUB %d\r\n", i+9, i+9) },
				"the server's own subject": func(i int) string { return fmt.Sprintf("SUB jobstream.submit api %d\r\nUNSUB %d\r\n", i+9, i+9) },
				"inboxes of others":        func(i int) string { return fmt.Sprintf("SUB _JOBSTREAM.> %d\r\nUNSUB %d\r\n", i+9, i+9) },
				"the system":               func(i int) string { return pub("$SYS.REQ.SERVER.PING", i, "") },
			} {
				if !p.send(t.Context(), t, 500, command) || !p.settled(t) {
					t.Errorf("%s: %s ended the connection", who, what)
				}
			}
		})
		if after := look(); after != before {
			t.Errorf("as %s something changed:\n%s\nwas\n%s", who, after, before)
		}
		if grew > mostGrowth {
			t.Errorf("as %s the server grew by %d MiB", who, grew>>20)
		}
	}
}

// TestContractFloods sends what is allowed without end. The server does not grow by more
// than it keeps for it. A client that leaves too many requests unanswered is cut off.
func TestContractFloods(t *testing.T) {
	t.Parallel()
	const many = 20_000
	for what, f := range map[string]struct {
		who     string
		command func(i int) string
		cut     bool
		most    int64
	}{
		"requests":              {"read", func(i int) string { return pub("jobstream.stats", i, "{}") }, false, 0},
		"requests to one inbox": {"anonymous", func(int) string { return pub("jobstream.stats", 0, "{}") }, false, 0},
		"refused requests":      {"submit", func(i int) string { return pub("jobstream.stats", i, "{}") }, false, 0},
		"pings":                 {"read", func(i int) string { return pub("$SRV.PING", i, "") }, false, 0},
		"states of streams":     {"read", func(i int) string { return pub("$JS.API.STREAM.INFO.JOBS", i, "") }, false, 0},
		"the gate":              {"read", func(i int) string { return pub(fmt.Sprintf("$JS.API.CONSUMER.DELETE.NOTIFICATIONS.c%d", i%500), i, "") }, false, 0},
		"messages":              {"read", func(i int) string { return pub("$JS.API.CONSUMER.MSG.NEXT.NOTIFICATIONS.mine", i, "") }, true, 0},
		"answers":               {"work", func(i int) string { return pub(fmt.Sprintf("_JOBSTREAM_ASKED.%d", i), i, "") }, false, 0},
		"subscriptions":         {"read", func(i int) string { return fmt.Sprintf("SUB job.x.%d %d\r\nUNSUB %d\r\n", i, i+9, i+9) }, false, 0},
		"waits":                 {"work", func(i int) string { return pub("jobstream.worker.next", i, `{"types":["far"],"worker":"w"}`) }, false, 192 << 20}, // ten thousand may wait
	} {
		t.Run(what, func(t *testing.T) {
			c := startChild(t, t.TempDir(), tightGC)
			defer c.kill()
			grew := growth(t, c, func() {
				p := connectPeer(t, c, f.who)
				if !f.cut {
					if !p.send(t.Context(), t, many, f.command) || !p.settled(t) {
						t.Error("the client is cut off")
					}
					return
				}
				create := `{"stream_name":"NOTIFICATIONS","config":{"name":"mine","ack_policy":"explicit"}}`
				p.send(t.Context(), t, 1, func(int) string { return pub("$JS.API.CONSUMER.CREATE.NOTIFICATIONS.mine", 0, create) })
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				for p.send(ctx, t, many, f.command) {
				}
				if ctx.Err() != nil {
					t.Error("the client is not cut off")
				}
			})
			most := max(f.most, mostGrowth)
			t.Logf("the server grew by %d MiB", grew>>20)
			if grew > most && !raced {
				t.Errorf("the server grew by %d MiB, want at most %d", grew>>20, most>>20)
			}
			if code := get(t, c.rest+"/readyz", new(any)); code != http.StatusOK {
				t.Errorf("the server is not ready: %d", code)
			}
		})
	}
}

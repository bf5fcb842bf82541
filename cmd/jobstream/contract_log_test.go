package main

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
)

// times is how often something was logged, as the log says, and in how many lines.
func (l *logged) times(t *testing.T, text string) (times, lines int) {
	t.Helper()
	for line := range strings.Lines(l.String()) {
		if !strings.Contains(line, text) {
			continue
		}
		lines++
		_, more, found := strings.Cut(strings.TrimSpace(line), " times=")
		if !found {
			times++
			continue
		}
		n, err := strconv.Atoi(more)
		mustDo(t, err)
		times += n
	}
	return times, lines
}

// wantFew fails unless something was logged so often, in few lines: the first at once,
// and one in ten seconds.
func (h *house) wantFew(text string, want int, since time.Time) {
	h.t.Helper()
	times, lines := h.log.times(h.t, text)
	if most := 5 + int(time.Since(since)/(10*time.Second)); times != want || lines > most {
		h.t.Errorf("%q was logged %d times in %d lines, want %d times and at most %d lines", text, times, lines, want, most)
	}
}

// TestContractLogOfStrangers: lines that anybody at the NATS port can cause again and
// again are a handful in the log, with a count.
func TestContractLogOfStrangers(t *testing.T) {
	t.Parallel()
	const messages, clients = 20_000, 100
	h := open(t, t.TempDir(), setup{})
	begun := time.Now()
	nc, _ := adminStreams(t, h.nats)
	for range messages - 1 {
		mustDo(t, nc.Publish("status.x", []byte("x")))
	}
	_, err := nc.Request("status.x", []byte("x"), patience) // the stream answers in order
	mustDo(t, err)
	for i := range clients {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(h.nats, "nats://"))
		mustDo(t, err)
		name := strings.Repeat(string(rune('a'+i%26)), 1+i) // nobody is to have lines of their own
		_, err = conn.Write([]byte(`CONNECT {"verbose":false,"name":"` + name + `\"%s"}` + "\r\n" + name + "\r\n"))
		mustDo(t, err)
		mustDo(t, conn.SetReadDeadline(time.Now().Add(patience)))
		_, _ = io.Copy(io.Discard, conn) // until it has been dropped
		_ = conn.Close()
	}
	h.close() // which waits until all messages have been read
	h.wantFew("a message in the event log makes no sense", messages, begun)
	h.wantFew("trouble with a NATS client", clients, begun)
	if n := strings.Count(h.log.String(), "\n"); n > 30+2*int(time.Since(begun)/(10*time.Second)) {
		t.Errorf("the log has %d lines:\n%s", n, h.log)
	}
}

// TestContractLogOfFailures: a job that has failed for good is a line in the log, but
// not each of thousands.
func TestContractLogOfFailures(t *testing.T) {
	t.Parallel()
	const n = 500
	broken := jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) {
		return jobs.Result{}, errors.New("no such account\nand more about it")
	})
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"broken": broken, "fine": jobs.HandlerFunc(nothing)}})
	begun := time.Now()
	id := h.submit(`{"type":"broken","retry_count":1}`).ID
	h.await(id, "failed")
	h.await(h.submit(`{"type":"fine"}`).ID, "completed")
	select {
	case <-h.log.has(`level=WARN msg="a job failed" type=broken job=` + id + ` attempts=2 error="no such account …"` + "\n"):
	case <-time.After(patience):
		t.Errorf("the failure is not logged:\n%s", h.log)
	}
	var all []string
	for range n - 1 {
		all = append(all, h.submit(`{"type":"broken","retry_count":0}`).ID)
	}
	for _, id := range all {
		h.await(id, "failed")
	}
	h.close()
	h.wantFew("a job failed", n, begun)
}

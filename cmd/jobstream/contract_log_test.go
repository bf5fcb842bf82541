package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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
	case <-h.log.has(`level=WARN msg="a job failed" job=` + id + ` type=broken attempt=2 error="no such account …"` + "\n"):
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

// attributesOf are those of a line of the log in either format. A name comes once.
func attributesOf(t *testing.T, line string) map[string]string {
	t.Helper()
	all := map[string]string{}
	set := func(name, value string) {
		if _, twice := all[name]; twice {
			t.Errorf("%s comes twice in %s", name, line)
		}
		all[name] = value
	}
	if strings.HasPrefix(line, "{") {
		d := json.NewDecoder(strings.NewReader(line))
		_, err := d.Token()
		for err == nil && d.More() {
			var name json.Token
			var value any
			if name, err = d.Token(); err == nil {
				err = d.Decode(&value)
			}
			set(fmt.Sprint(name), fmt.Sprint(value))
		}
		mustDo(t, err)
		return all
	}
	for rest := line; rest != ""; {
		name, value, _ := strings.Cut(rest, "=")
		quoted, err := strconv.QuotedPrefix(value)
		if err == nil {
			rest = strings.TrimPrefix(value[len(quoted):], " ")
			value, err = strconv.Unquote(quoted)
			mustDo(t, err)
		} else {
			value, rest, _ = strings.Cut(value, " ")
		}
		set(name, value)
	}
	return all
}

// TestContractLogNamesJobs: lines of the log about a job name it, with its type, its
// attempt and its trace, in either format.
func TestContractLogNamesJobs(t *testing.T) {
	t.Parallel()
	const trace = "0af7651916cd43dd8448eb211c80319c"
	const config = `jobs:
  broken:
    run: exec
    command: [sh, -c, "echo no such account >&2; exit 1"]
    retry_count: 1
    backoff: {kind: constant, base: 1ms}
`
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			mustDo(t, os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(config), 0o600))
			h := startProgram(t, dir, "JOBSTREAM_LOG_LEVEL=debug", "JOBSTREAM_LOG_FORMAT="+format)
			j := readJob(t, h.do(http.MethodPost, "/jobs", `{"type":"broken"}`, "traceparent", "00-"+trace+"-b7ad6b7169203331-01").body)
			h.await(j.ID, "failed")
			h.close()
			var about []string
			for line := range strings.Lines(h.log.String()) {
				of := attributesOf(t, strings.TrimSpace(line))
				if of["job"] == "" {
					continue
				}
				if of["job"] != j.ID || of["type"] != "broken" || of["trace"] != trace {
					t.Errorf("it names another job: %s", line)
				}
				about = append(about, of["level"]+" "+of["msg"]+" "+of["attempt"])
			}
			want := []string{"DEBUG no such account 1", "DEBUG no such account 2", "WARN a job failed 2"}
			if !slices.Equal(about, want) {
				t.Errorf("the log says %q of the job, want %q", about, want)
			}
		})
	}
}

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
)

// TestClusterFiles has every node asked for the file of a job, and a job given a file that
// was uploaded: first as they are, and again when the node that wrote them is dead and has
// lost its disk.
func TestClusterFiles(t *testing.T) {
	b := newCluster(t)
	b.start(b.nodes...)
	leader, others := b.leader()
	text := make([]byte, 600_000)
	for i := range text {
		text[i] = byte(b.rng.Uint32())
	}
	sum := sha256.Sum256(text)
	up := answered[made](t, others[0], http.MethodPost, "/artifacts", string(text))
	answered[made](t, others[0], http.MethodPost, "/jobs", `{"type":"quick"}`) // for the export
	wrote := completes(t, others[1], `{"type":"export","payload":{"format":"csv"}}`)
	want := others[1].file(t, wrote)
	if len(want) == 0 {
		t.Fatal("the file is empty")
	}
	reads := `{"type":"reads","inputs":{"file":"` + up.ID + `"}}`
	if got := completes(t, leader, reads).Result; got != hex.EncodeToString(sum[:]) {
		t.Fatalf("the job has read another file: %s", got)
	}
	leader.kill()
	leader.wipe()
	for _, m := range others {
		if got := m.file(t, wrote); !bytes.Equal(got, want) {
			t.Fatalf("%s has another file after the loss of %s:\n%s\n%s", m.name, leader.name, got, want)
		}
	}
	if got := completes(t, others[0], reads).Result; got != hex.EncodeToString(sum[:]) {
		t.Fatalf("the job has read another file after the loss of %s: %s", leader.name, got)
	}
	b.start(leader)
	if got := leader.file(t, wrote); !bytes.Equal(got, want) {
		t.Fatalf("%s has come back and has another file:\n%s\n%s", leader.name, got, want)
	}
}

// made is a job, or an upload.
type made struct{ ID, Status, Result string }

// completes submits a job and waits until it is completed.
func completes(t *testing.T, m *member, body string) made {
	t.Helper()
	j := answered[made](t, m, http.MethodPost, "/jobs", body)
	waitUntil(t, func() bool {
		now := answered[struct {
			Status string
			Result any
		}](t, m, http.MethodGet, "/jobs/"+j.ID, "")
		j.Status = now.Status
		j.Result, _ = now.Result.(string)
		if j.Status == "failed" {
			_, text := m.ask(t, http.MethodGet, "/jobs/"+j.ID, "")
			t.Fatalf("a job has failed: %s", text)
		}
		return j.Status == "completed"
	})
	return j
}

// file is the file that a job has left, from this node.
func (m *member) file(t *testing.T, j made) []byte {
	t.Helper()
	status, answer := m.ask(t, http.MethodGet, "/jobs/"+j.ID+"/result", "")
	if status != http.StatusOK {
		t.Fatalf("%s answers %d: %s", m.name, status, answer)
	}
	return answer
}

// ask sends a request until it is answered otherwise than by 503.
func (m *member) ask(t *testing.T, method, path, body string) (status int, answer []byte) {
	t.Helper()
	client, key := http.Client{Timeout: time.Minute}, jobs.NewID().String()
	waitUntil(t, func() bool {
		q, err := http.NewRequestWithContext(t.Context(), method, m.rest+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if path == "/jobs" {
			q.Header.Set("Content-Type", "application/json")
			q.Header.Set("Idempotency-Key", key)
		}
		resp, err := client.Do(q)
		if err != nil {
			return false
		}
		var failed error
		answer, failed = io.ReadAll(resp.Body)
		status = resp.StatusCode
		return errors.Join(failed, resp.Body.Close()) == nil && status != http.StatusServiceUnavailable
	})
	return status, answer
}

func answered[T any](t *testing.T, m *member, method, path, body string) (v T) {
	t.Helper()
	status, answer := m.ask(t, method, path, body)
	if status >= http.StatusBadRequest {
		t.Fatalf("%s answers %d: %s", m.name, status, answer)
	}
	if err := json.Unmarshal(answer, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

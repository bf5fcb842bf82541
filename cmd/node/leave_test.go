package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"

	"jobstream/jobs"
)

// TestLeave makes a server that is alone of a member: it has all jobs of the cluster, and
// what waited there goes on. A file that another node got is there, too; without the streams
// that have it, it does not leave unless it is told to.
func TestLeave(t *testing.T) {
	t.Parallel()
	m := &members{t: t, types: func(int) []*jobs.Type {
		reads := typesOf(jobs.HandlerFunc(echo), "reads")
		reads[0].Inputs = []jobs.InputRule{{Name: "file"}}
		return append(typesOf(jobs.HandlerFunc(echo), "echo"), reads...)
	}}
	m.begin(3, func([]Options) {})
	leader := m.leader()
	ended := m.submit(leader)
	if w := m.do(leader, http.MethodPost, "/types/echo/pause", ""); w.Code != http.StatusOK {
		t.Fatalf("pause: %d %s", w.Code, w.Body)
	}
	j, err := m.nodes[leader].Submit(t.Context(), &jobs.Submission{Type: "echo", Priority: 1, RetryCount: -1, Payload: []byte(`"hello"`)})
	mustDo(t, err)
	content := strings.Repeat("all of it ", 50_000)
	w := m.do(leader, http.MethodPost, "/artifacts", content)
	var up struct{ ID jobs.ID }
	mustDo(t, json.Unmarshal(w.Body.Bytes(), &up))
	w = m.do(leader, http.MethodPost, "/jobs", `{"type":"reads","delay":"1h","inputs":{"file":"`+up.ID.String()+`"}}`)
	if w.Code != http.StatusAccepted {
		t.Fatalf("submit: %d %s", w.Code, w.Body)
	}
	var later struct{ ID jobs.ID }
	mustDo(t, json.Unmarshal(w.Body.Bytes(), &later))
	last := (leader + 1) % 3
	f := FoldersIn(m.options[last].Dir)
	m.wait("the other node has the jobs", func() bool {
		for _, id := range []jobs.ID{j.ID, later.ID} {
			if have, err := m.nodes[last].member.store.Job(t.Context(), id); err != nil || have == nil {
				return false
			}
		}
		return true
	})
	if _, err := Leave(t.Context(), m.options[last].Dir, false, quiet); err == nil {
		t.Fatal("a member leaves while it runs")
	}
	for i := range m.nodes {
		if i != last {
			m.stop(i)
		}
	}
	m.stop(last)

	streams := f.Broker + ".away"
	mustDo(t, os.Rename(f.Broker, streams))
	if _, err := Leave(t.Context(), f.Root, false, quiet); !errors.Is(err, ErrFilesMissing) {
		t.Fatalf("it leaves without a file: %v", err)
	}
	mustDo(t, os.Rename(streams, f.Broker))
	aside, err := Leave(t.Context(), m.options[last].Dir, false, quiet)
	mustDo(t, err)
	if _, err := os.Stat(aside); err != nil {
		t.Errorf("the streams of the cluster were set aside: %v", err)
	}
	if _, err := Leave(t.Context(), m.options[last].Dir, false, quiet); err == nil || !strings.Contains(err.Error(), "belongs to no cluster") {
		t.Errorf("it leaves twice: %v", err)
	}
	sum := sha256.Sum256([]byte(content))
	file, err := jobs.NewArtifactDir(f.Artifacts, 0).Inputs().Open(up.ID, &jobs.Artifact{Name: "x", SHA256: hex.EncodeToString(sum[:])})
	mustDo(t, err)
	got, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil || string(got) != content {
		t.Errorf("alone it has another file, of %d bytes: %v", len(got), err)
	}
	m.options[last].Broker.Cluster = nil
	m.start(last)
	if have, err := m.nodes[last].Wait(t.Context(), ended); err != nil || have == nil || have.Status != jobs.Completed {
		t.Errorf("alone it has %v, %v", have, err)
	}
	if w := m.do(last, http.MethodPost, "/types/echo/resume", ""); w.Code != http.StatusOK {
		t.Fatalf("resume: %d %s", w.Code, w.Body)
	}
	if have, err := m.nodes[last].Wait(t.Context(), j.ID); err != nil || have == nil || have.Status != jobs.Completed {
		t.Errorf("what waited is %v, %v", have, err)
	}
	m.submit(last)
}

// TestBackupOfMember backs up a member that does not run. A server that is alone starts on
// that: the streams of the cluster, which it could not use, are not in it.
func TestBackupOfMember(t *testing.T) {
	t.Parallel()
	m := startMembers(t, 3)
	id := m.submit(m.leader())
	m.has(2, id)
	if err := Backup(t.Context(), m.options[2].Dir, "", &bytes.Buffer{}, quiet); err == nil {
		t.Error("the folder of a member that runs was backed up")
	}
	for i := range m.nodes {
		m.stop(i)
	}

	var backup, said bytes.Buffer
	mustDo(t, Backup(t.Context(), m.options[2].Dir, "", &backup, slog.New(slog.NewTextHandler(&said, nil))))
	if !strings.Contains(said.String(), "node=n3 cluster=test") {
		t.Errorf("it says %s", &said)
	}
	m.options[2].Dir, m.options[2].Broker.Cluster = restored(t, backup.Bytes()), nil
	if _, err := os.Stat(FoldersIn(m.options[2].Dir).Broker); err == nil {
		t.Error("the backup of a member has streams")
	}
	m.start(2)
	if have, err := m.nodes[2].Wait(t.Context(), id); err != nil || have == nil || have.Status != jobs.Completed {
		t.Errorf("the restored server has %v, %v", have, err)
	}
	m.submit(2)
}

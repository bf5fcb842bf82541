package node

import (
	"bytes"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"

	"jobstream/jobs"
)

// TestLeave makes a server that is alone of a member: it has all jobs of the cluster, and
// what waited there goes on.
func TestLeave(t *testing.T) {
	t.Parallel()
	m := startMembers(t, 3)
	leader := m.leader()
	ended := m.submit(leader)
	if w := m.do(leader, http.MethodPost, "/types/echo/pause", ""); w.Code != http.StatusOK {
		t.Fatalf("pause: %d %s", w.Code, w.Body)
	}
	j, err := m.nodes[leader].Submit(t.Context(), &jobs.Submission{Type: "echo", Priority: 1, RetryCount: -1, Payload: []byte(`"hello"`)})
	mustDo(t, err)
	last := (leader + 1) % 3
	m.wait("the other node has the job", func() bool {
		have, err := m.nodes[last].member.store.Job(t.Context(), j.ID)
		return err == nil && have != nil
	})
	if _, err := Leave(m.options[last].Dir, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("a member leaves while it runs")
	}
	for i := range m.nodes {
		m.stop(i)
	}

	aside, err := Leave(m.options[last].Dir, slog.New(slog.DiscardHandler))
	mustDo(t, err)
	if _, err := os.Stat(aside); err != nil {
		t.Errorf("the streams of the cluster were set aside: %v", err)
	}
	if _, err := Leave(m.options[last].Dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "belongs to no cluster") {
		t.Errorf("it leaves twice: %v", err)
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

//go:build unix

package status

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/record"
)

// lockedBuffer takes a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (tr *tracker) asideFile() string {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(tr.o.Path), asideName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tr.t.Fatalf("%v", err)
	}
	return string(b)
}

// A message that breaks the fold becomes a job that has failed and says why, and costs
// nobody else anything.
func TestPoisonMessage(t *testing.T) {
	t.Parallel()
	for name, breaks := range map[string]func(*jobs.Message) bool{
		"by its tags":    func(m *jobs.Message) bool { return len(m.Tags) > 0 },
		"by its payload": func(m *jobs.Message) bool { return bytes.Contains(m.Payload, []byte("poison")) },
		"by its id":      func(m *jobs.Message) bool { return m.ID == jobs.ID{1} },
	} {
		t.Run(name, func(t *testing.T) {
			var log lockedBuffer
			tr := openTemp(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			tr.onFold = func(v any) {
				if m, ok := v.(*jobs.Message); ok && breaks(m) {
					var none []int
					_ = none[len(m.Payload)]
				}
			}
			const all = 100
			poison := []uint64{1, 37, 38, all}
			for seq := uint64(1); seq <= all; seq++ {
				m := message(seq)
				if slices.Contains(poison, seq) {
					m.ID, m.Tags, m.Payload = jobs.ID{1}, []string{"red"}, []byte(`"poison"`)
					if name != "by its id" {
						m.ID = jobs.ID{2, byte(seq)}
					}
				}
				tr.submit(m)
			}
			tr.Happened(1, []jobs.Event{event(jobs.KindCompleted, message(2), 1)})
			tr.run(idle{})
			tr.wait(all, 1)
			if err := tr.Health(); err != nil {
				t.Errorf("health: %v", err)
			}
			for seq := uint64(1); seq <= all; seq++ {
				j := tr.find(seq)
				switch {
				case slices.Contains(poison, seq):
					if j.Status != jobs.Failed || !strings.Contains(j.Error, asideReason) || j.Type != "email" {
						t.Errorf("the poisoned job %d is %s: %s", seq, j.Status, j.Error)
					}
				case seq == 2 && j.Status != jobs.Completed, seq != 2 && j.Status != jobs.Pending:
					t.Errorf("job %d is %s", seq, j.Status)
				}
			}
			if n := strings.Count(tr.asideFile(), "\n"); n != len(poison) {
				t.Errorf("%d lines in the file for %d messages", n, len(poison))
			}
			if said := log.String(); strings.Contains(said, "damaged") || strings.Count(said, "set aside") != len(poison) {
				t.Errorf("the log: %s", said)
			}
			tr.verify()
			tr.reopen()
			tr.run(idle{})
			tr.verify()
		})
	}
}

// The end of an attempt that breaks the fold fails its job and is settled: its worker
// would publish it again for ever. Other events are passed over.
func TestPoisonEvents(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	tr.onFold = func(v any) {
		if e, ok := v.(*jobs.Event); ok && (e.Kind == jobs.KindCompleted && e.Seq == 2 || e.Kind == jobs.KindProgress) {
			panic("no such thing")
		}
	}
	a, b, c := message(1), message(2), message(3)
	tr.submit(a, b, c)
	tr.Happened(1, []jobs.Event{event(jobs.KindCompleted, a, 1), event(jobs.KindStarted, b, 1), event(jobs.KindProgress, b, 1)})
	tr.Happened(2, []jobs.Event{event(jobs.KindCompleted, b, 1), event(jobs.KindStarted, c, 1)})
	tr.run(idle{})
	tr.wait(3, 2)
	for seq, want := range map[uint64]jobs.Status{1: jobs.Completed, 2: jobs.Failed, 3: jobs.Processing} {
		if j := tr.find(seq); j.Status != want || want == jobs.Failed && !strings.Contains(j.Error, asideReason) {
			t.Errorf("job %d is %s, want %s: %s", seq, j.Status, want, j.Error)
		}
	}
	tr.until("the end is settled", func(cs []jobs.Commit) bool {
		return slices.ContainsFunc(cs, func(c jobs.Commit) bool {
			return slices.ContainsFunc(c.Outcomes, func(e jobs.Event) bool { return e.Seq == 2 && e.Kind == jobs.KindCompleted })
		})
	})
	if n := strings.Count(tr.asideFile(), "\n"); n != 2 {
		t.Errorf("%d lines in the file", n)
	}
	tr.verify()
}

// A record that cannot be read holds nobody up but its own job.
func TestPoisonRecord(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	tr.submit(message(1), message(2), message(3))
	tr.wait(3, 0)
	tr.reopen()
	tr.damaged = true
	if err := tr.db.Update(func(tx *boltfile.Tx) error { return tx.Bucket(bucketJobs).Put(key8(2), []byte("nonsense")) }); err != nil {
		t.Fatal(err)
	}
	tr.run(idle{})
	tr.Happened(1, []jobs.Event{
		event(jobs.KindCompleted, message(1), 1), event(jobs.KindCompleted, message(2), 1), event(jobs.KindCompleted, message(3), 1),
	})
	tr.submit(message(4))
	tr.wait(4, 1)
	for seq, want := range map[uint64]jobs.Status{1: jobs.Completed, 3: jobs.Completed, 4: jobs.Pending} {
		if j := tr.find(seq); j.Status != want {
			t.Errorf("job %d is %s", seq, j.Status)
		}
	}
	if !strings.Contains(tr.asideFile(), record.ErrDamaged.Error()) {
		t.Errorf("the file: %s", tr.asideFile())
	}
	if err := tr.Health(); err != nil {
		t.Errorf("health: %v", err)
	}
}

// The file of messages set aside does not fill the disk.
func TestAsideIsBounded(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	line := aside{Payload: strings.Repeat("x", asideClip)}
	for range 4 * maxAside / asideClip {
		if _, err := tr.appendAside(&line); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(tr.o.Path), asideName+"*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > maxAside+2*asideClip {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
}

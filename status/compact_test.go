package status

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
)

var quiet = slog.New(slog.DiscardHandler)

func TestCompact(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status.db")
	tr := open(t, Options{Path: path})
	tr.run(idle{})
	for seq := uint64(1); seq <= 2000; seq++ {
		m := message(seq)
		m.Payload = []byte(`{"text":"` + strings.Repeat("x", 2000) + `"}`)
		tr.Submitted(m)
		tr.Happened(seq, []jobs.Event{event(jobs.KindCompleted, m, 1)})
	}
	if err := tr.WaitFor(context.Background(), jobs.Positions{Jobs: 2000, Status: 2000}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Compact(path, time.Millisecond, quiet); !errors.Is(err, ErrLocked) {
		t.Errorf("compacting an open tracker: %v, want ErrLocked", err)
	}
	tr.Notified(tr.Number()) // else the deleted ones leave copies
	var keys []uint64
	for key := uint64(1); key <= 1990; key++ {
		keys = append(keys, key)
	}
	if n, _, err := tr.Delete(context.Background(), keys); n != len(keys) || err != nil {
		t.Fatalf("Delete = %d, %v", n, err)
	}
	tr.stop()
	before, after, err := Compact(path, time.Second, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != after || after*5 > before {
		t.Errorf("%d bytes became %d, the file: %v, %v", before, after, info, err)
	}
	again := open(t, Options{Path: path})
	defer again.stop()
	found, _, err := again.List(context.Background(), jobs.Page{Limit: 500})
	if err != nil || len(found) != 10 || len(found[0].Payload) < 2000 {
		t.Errorf("after it there are %d jobs, %v", len(found), err)
	}
}

func TestCompactWithoutFile(t *testing.T) {
	if _, _, err := Compact(filepath.Join(t.TempDir(), "none.db"), time.Second, quiet); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

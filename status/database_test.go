package status

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// A tracker knows whether its file is still the one that others would open.
func TestPresent(t *testing.T) {
	tr := startTemp(t, Options{})
	if err := tr.Present(); err != nil {
		t.Errorf("a file that is there: %v", err)
	}
	away := tr.o.Path + ".away"
	if err := os.Rename(tr.o.Path, away); err != nil {
		t.Fatal(err)
	}
	if err := tr.Present(); err == nil {
		t.Error("a file that is gone")
	}
	if err := os.WriteFile(tr.o.Path, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tr.Present(); err == nil {
		t.Error("a file that is another")
	}
	if err := os.Rename(away, tr.o.Path); err != nil {
		t.Fatal(err)
	}
	if err := tr.Present(); err != nil {
		t.Errorf("a file that is back: %v", err)
	}
}

// It knows that of its journal, too, and a clean stop makes up for one that is gone.
func TestJournalRemoved(t *testing.T) {
	tr := startTemp(t, Options{})
	if tr.db.journal == nil {
		t.Skip("NOT TESTED: there are no journals on this system")
	}
	tr.submit(message(1))
	tr.wait(1, 0)
	if err := os.Remove(journalOf(tr.o.Path)); err != nil {
		t.Fatal(err)
	}
	if err := tr.Present(); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("a journal that is gone: %v", err)
	}
	tr.submit(message(2))
	tr.wait(2, 0)
	tr.reopen()
	if err := tr.Present(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	tr.find(1)
	tr.find(2)
}

// Where bbolt has what the journal needs, there is one: the version that is pinned
// has it.
func TestThereIsAJournal(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: journals on this system")
	}
	tr := startTemp(t, Options{})
	if _, err := os.Stat(journalOf(tr.o.Path)); err != nil {
		t.Errorf("an open tracker has no journal: %v", err)
	}
	path := tr.o.Path
	tr.stop()
	if _, err := os.Stat(journalOf(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a clean stop leaves its journal: %v", err)
	}
}

// A compaction takes in what a crash has left in the journal first.
func TestCompactAfterACrash(t *testing.T) {
	tr := startTemp(t, Options{})
	tr.submit(message(1), message(2))
	tr.wait(2, 0)
	crashed := filepath.Join(t.TempDir(), "status.db")
	for from, to := range map[string]string{tr.o.Path: crashed, journalOf(tr.o.Path): journalOf(crashed)} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if from == tr.o.Path { // what the power cut left of the last commit
			clear(content[2*os.Getpagesize():])
		}
		if err := os.WriteFile(to, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := Compact(crashed, time.Second, quiet); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(journalOf(crashed)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the journal of the old file is there: %v", err)
	}
	again := open(t, Options{Path: crashed})
	defer again.stop()
	again.find(1)
	again.find(2)
}

// A file that has lost its end is refused, also if there are only free pages in it.
func TestShortFile(t *testing.T) {
	tr := startTemp(t, Options{})
	big := message(1)
	big.Payload = []byte(`"` + strings.Repeat("x", 1<<20) + `"`)
	tr.submit(big)
	tr.wait(1, 0)
	tr.reopen()
	path := tr.o.Path
	var size int64
	if err := tr.db.View(func(tx *bbolt.Tx) error { size = tx.Size(); return nil }); err != nil {
		t.Fatal(err)
	}
	tr.stop()
	if err := os.Truncate(path, size-1); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(Options{Path: path, Registry: testTypes}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("opened: %v, %v", s != nil, err)
	}
}

// A page that points to itself, as flipped bits can make it, is found before a
// cursor of bbolt follows it for ever.
func TestCheckFindsPagesInCircles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status.db")
	plain, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	size := plain.Info().PageSize
	err = plain.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("many"))
		for i := uint64(0); err == nil && i < 5000; i++ {
			err = b.Put(key8(i), make([]byte, i%3*uint64(size)/2)) // some overflow their page
		}
		return err
	})
	if err := errors.Join(err, plain.Close()); err != nil {
		t.Fatal(err)
	}
	db := &database{path: path, log: slog.New(slog.DiscardHandler)}
	if err := db.check(time.Second); err != nil {
		t.Fatalf("an undamaged file: %v", err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for at := 2 * size; at < len(good); at += size {
		if id := binary.NativeEndian.Uint64(good[at:]); id != uint64(at/size) || binary.NativeEndian.Uint16(good[at+8:]) != branchPage {
			continue
		}
		bad := bytes.Clone(good)
		binary.NativeEndian.PutUint64(bad[at+pageHead+8:], uint64(at/size)) // its first child
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := db.check(time.Second); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "used twice") {
			t.Errorf("page %d points to itself: %v", at/size, err)
		}
		checked++
	}
	if checked == 0 {
		t.Fatal("the file has no branch page")
	}
}

package boltfile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A copy that a transaction makes while commits go on is a file that opens, with what the
// transaction sees. That holds for commits of even and odd numbers.
func TestCopy(t *testing.T) {
	t.Parallel()
	db := made(t)
	// With room in the file no commit has to wait for the copy, as growing would.
	db.put(t, make([]byte, 8<<20), "b")
	db.put(t, nil, "b")
	for n := range 6 {
		db.put(t, fmt.Append(nil, n), "a")
		var out bytes.Buffer
		mustDo(t, db.View(func(tx *Tx) error {
			done := make(chan error)
			go func() {
				done <- db.Update(func(tx *Tx) error { return putIn(tx, make([]byte, 100_000), "a", "b") })
			}()
			mustDo(t, <-done)
			_, err := tx.WriteTo(&out)
			return err
		}))
		path := filepath.Join(t.TempDir(), "status.db")
		mustDo(t, os.WriteFile(path, out.Bytes(), 0o600))
		copied := opened(t, path)
		if got := copied.get(t, "a"); string(got) != fmt.Sprint(n) {
			t.Errorf("copy %d has %d bytes", n, len(got))
		}
		copied.put(t, []byte("more"), "c")
		mustDo(t, copied.Close())
		opened(t, path).get(t, "c")
	}
}

// Whoever opens a file and only reads it leaves it as the clean stop before has.
func TestReadersLeaveTheNote(t *testing.T) {
	t.Parallel()
	needsNotes(t)
	path := stopped(t)
	for range 2 {
		db := opened(t, path)
		db.get(t, "a")
		mustDo(t, db.Close())
		if !isThere(t, intactOf(path)) {
			t.Fatal("the note of the clean stop is gone")
		}
	}
	db := opened(t, path)
	db.put(t, []byte("1"), "a")
	mustDo(t, db.Close())
	if isThere(t, intactOf(path)) {
		t.Error("there is a note after a commit")
	}
}

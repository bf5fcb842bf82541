package status

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"jobstream/status/boltfile"
)

// TestLaterFormat opens the file of a later version. It is refused by name, and nothing in
// it changes. That of an earlier one is opened.
func TestLaterFormat(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "status.db")
	o := Options{Path: path, Registry: testTypes, Version: "v2.3.4"}
	made := open(t, o)
	must(t, made.Close())
	change := func(f func(meta boltfile.Bucket) error) (rows []string) {
		t.Helper()
		s, err := OpenStopped(path, slog.New(slog.DiscardHandler))
		must(t, err)
		must(t, s.db.Update(func(tx *boltfile.Tx) error { return f(tx.Bucket(bucketMeta)) }))
		rows = allRows(t, s)
		must(t, s.Close())
		return rows
	}
	same := func(boltfile.Bucket) error { return nil }
	for _, later := range []struct {
		name string
		f    func(meta boltfile.Bucket) error
	}{
		{"one more attribute", func(meta boltfile.Bucket) error { return meta.Put(keyLayout, key8(layout()+1)) }},
		{"another format", func(meta boltfile.Bucket) error { return meta.Put(keyFormat, []byte{formatVersion + 1}) }},
	} {
		before := change(later.f)
		older := o
		older.Version = "v2.3.3"
		_, err := Open(older)
		if err == nil {
			t.Fatalf("%s: it was opened", later.name)
		}
		for _, word := range []string{path, "written by jobstream v2.3.4", "this is jobstream v2.3.3", "use v2.3.4 or newer"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q is missing in: %v", later.name, word, err)
			}
		}
		s, err := OpenStopped(path, slog.New(slog.DiscardHandler))
		must(t, err)
		if _, err := s.Inspect(context.Background(), true, nil); err == nil || !strings.Contains(err.Error(), "v2.3.4") {
			t.Errorf("%s: an inspection says %v", later.name, err)
		}
		must(t, s.Close())
		if after := change(same); len(after) != len(before) || strings.Join(after, "") != strings.Join(before, "") {
			t.Errorf("%s: the refused file has changed", later.name)
		}
		change(func(meta boltfile.Bucket) error { return writeFormat(meta, "v2.3.4") })
	}
	change(func(meta boltfile.Bucket) error { // as the first versions had it
		must(t, meta.Delete(keyLayout))
		must(t, meta.Delete(keyWriter))
		return meta.Put(keyFormat, []byte{1})
	})
	made = open(t, o)
	must(t, made.Close())
	change(func(meta boltfile.Bucket) error {
		if v := string(meta.Get(keyWriter)); v != "v2.3.4" {
			t.Errorf("it was last written by %q", v)
		}
		return nil
	})
	s, err := OpenStopped(path, slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, s.db.View(func(tx *boltfile.Tx) error { return checkFormat(tx, "") }))
	must(t, s.Close())
}

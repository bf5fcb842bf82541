package fsync_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"jobstream/jobs/fsync"
)

// TestTree syncs all kinds of things that can be in a folder, and says if one is missing.
func TestTree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700),
		os.WriteFile(filepath.Join(dir, "a", "file"), []byte("text"), 0o400),
		os.Symlink("nowhere", filepath.Join(dir, "a", "link")),
		fsync.Dir(dir),
		fsync.Tree(dir),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, sync := range []func(string) error{fsync.Dir, fsync.Tree} {
		if err := sync(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without a folder: %v", err)
		}
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"old", "new"} {
		if err := fsync.Write(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); string(got) != text || err != nil {
			t.Errorf("the file has %q, %v; want %q", got, err, text)
		}
	}
	if err := fsync.Write(filepath.Join(path, "below"), nil); err == nil {
		t.Error("a file below a file was written")
	}
	if left, err := os.ReadDir(filepath.Dir(path)); len(left) != 1 || err != nil {
		t.Errorf("the folder has %v, %v; want the file alone", left, err)
	}
}

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

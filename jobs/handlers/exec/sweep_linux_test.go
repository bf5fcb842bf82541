package exec

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSweepGoesOn finds a folder that cannot be removed. A start must not fail because
// somebody has put that there.
func TestSweepGoesOn(t *testing.T) {
	h, data := shell(t, ":", nil)
	mark, err := Mark(data)
	if err != nil {
		t.Fatal(err)
	}
	stuck := filepath.Join(os.TempDir(), foreign(mark)+"0")
	after := filepath.Join(h.h.Work, "attempt-1")
	for _, dir := range []string{stuck, after} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_ = immutable(stuck, false)
		_ = os.RemoveAll(stuck)
	})
	if err := immutable(stuck, true); err != nil {
		t.Skipf("no folder here can be made so that it cannot be removed (%v): going on is NOT tested", err)
	}
	if _, err := Sweep(h.h); err == nil || !strings.Contains(err.Error(), stuck) {
		t.Errorf("the error is %v, without %s", err, stuck)
	}
	if _, err := os.Stat(after); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the next folder: %v", err)
	}
}

// immutable says whether nobody may change or remove a folder.
func immutable(dir string, yes bool) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if yes {
		flags = unix.STATX_ATTR_IMMUTABLE // the same bit
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

package linger_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"jobstream/jobs/linger"
)

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	mustDo(t, os.MkdirAll(filepath.Dir(path), 0o750))
	mustDo(t, os.WriteFile(path, []byte(content), 0o600))
}

// walked are all files of a walk with their content. Each comes once.
func walked(t *testing.T, h *linger.Held) map[string]string {
	t.Helper()
	all := make(map[string]string)
	mustDo(t, h.Walk(func(name string, f *os.File, info fs.FileInfo) error {
		b, err := io.ReadAll(f)
		if _, twice := all[name]; twice || int64(len(b)) != info.Size() {
			t.Errorf("%s: %d bytes of %d, twice: %v", name, len(b), info.Size(), twice)
		}
		all[name] = string(b)
		return err
	}))
	return all
}

func left(t *testing.T, folder string) (n int) {
	t.Helper()
	mustDo(t, filepath.WalkDir(folder, func(string, fs.DirEntry, error) error { n++; return nil }))
	return n - 1 // without the folder itself
}

func TestHold(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "folder")
	write(t, filepath.Join(folder, "gone before"), "x")
	mustDo(t, linger.Remove(filepath.Join(folder, "gone before")))
	for _, name := range []string{"a", "d/b", "d/c", "e/f/g"} {
		write(t, filepath.Join(folder, name), "content of "+name)
	}
	write(t, filepath.Join(folder, ".half.tmp"), "half")
	mustDo(t, os.Symlink("a", filepath.Join(folder, "link")))
	h, err := linger.Hold(folder)
	mustDo(t, err)
	if _, err := linger.Hold(folder); !errors.Is(err, linger.ErrHeld) {
		t.Errorf("held twice: %v", err)
	}
	for _, name := range []string{"a", "d/b", "d/c"} {
		mustDo(t, linger.Remove(filepath.Join(folder, name)))
		if _, err := os.Stat(filepath.Join(folder, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	mustDo(t, os.Remove(filepath.Join(folder, "d"))) // it is empty
	if err := linger.Remove(filepath.Join(folder, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	write(t, filepath.Join(folder, "a"), "another a")
	mustDo(t, linger.Sweep(folder)) // somebody needs it
	all := walked(t, h)
	if len(all) != 4 || all["a"] != "another a" || all["d/b"] != "content of d/b" || all["d/c"] != "content of d/c" || all["e/f/g"] != "content of e/f/g" {
		t.Errorf("walked %v", all)
	}
	mustDo(t, h.Release())
	if n := left(t, folder); n != 6 { // a, e, e/f, e/f/g, link, .half.tmp
		t.Errorf("%d names are left", n)
	}
	mustDo(t, linger.Remove(filepath.Join(folder, "a")))
	write(t, filepath.Join(folder, ".lingering", "x"), "left by a crash")
	mustDo(t, linger.Sweep(folder))
	if n := left(t, folder); n != 5 {
		t.Errorf("%d names are left", n)
	}
}

// TestMissing: a folder that is not there yet has no files.
func TestMissing(t *testing.T) {
	t.Parallel()
	h, err := linger.Hold(filepath.Join(t.TempDir(), "none"))
	mustDo(t, err)
	if all := walked(t, h); len(all) != 0 {
		t.Errorf("walked %v", all)
	}
	mustDo(t, h.Release())
}

// TestRaces removes and makes files while others are walked. Every file that was there
// when the folder was held is walked, once, with its content.
func TestRaces(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	folder := t.TempDir()
	for round := range uint64(5) {
		want := make(map[string]string)
		rng := rand.New(rand.NewPCG(seed, round))
		for i := range 100 {
			name := fmt.Sprintf("%d.d/%d-%d", rng.IntN(20), round, i)
			want[name] = fmt.Sprint(rng.Uint64())
			write(t, filepath.Join(folder, name), want[name])
		}
		h, err := linger.Hold(folder)
		mustDo(t, err)
		var removers sync.WaitGroup
		for i := range uint64(3) {
			removers.Go(func() {
				rng := rand.New(rand.NewPCG(seed+i+1, round))
				for name := range want {
					path := filepath.Join(folder, name)
					if rng.IntN(2) == 0 {
						if err := linger.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
							t.Errorf("remove: %v", err)
						}
						_ = os.Remove(filepath.Dir(path)) // if it is empty, as the last of a job's files does
					}
					if rng.IntN(4) == 0 {
						more := filepath.Join(folder, fmt.Sprint(rng.IntN(20))+".d")
						if os.MkdirAll(more, 0o750) == nil {
							_ = os.WriteFile(filepath.Join(more, fmt.Sprintf("new-%d", rng.IntN(100))), nil, 0o600) // its folder may go in between
						}
					}
				}
			})
		}
		got := walked(t, h)
		removers.Wait()
		for name, content := range want {
			if found, ok := got[name]; !ok || found != content {
				t.Errorf("round %d: %s is %q, there: %v", round, name, found, ok)
			}
		}
		mustDo(t, h.Release())
	}
}

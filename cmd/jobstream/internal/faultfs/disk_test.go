package faultfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// mounted is a disk in a folder, and the operations of a test on it.
type mounted struct {
	t       *testing.T
	d       *Disk
	dir     string
	unmount func() error
}

func mount(t *testing.T, d *Disk) *mounted {
	t.Helper()
	m := &mounted{t: t, dir: t.TempDir()}
	t.Cleanup(func() { _ = m.unmount() })
	m.unmount = func() error { return nil }
	m.on(d)
	return m
}

func (m *mounted) on(d *Disk) {
	m.t.Helper()
	unmount, err := Mount(d, m.dir)
	if err != nil {
		m.t.Skipf("NOT TESTED, a power cut: %v", err)
	}
	m.d, m.unmount = d, unmount
}

func (m *mounted) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *mounted) path(name string) string { return filepath.Join(m.dir, name) }

// write writes to a file at an offset, and makes the file if need be.
func (m *mounted) write(name, data string, off int64, sync bool) {
	m.t.Helper()
	f, err := os.OpenFile(m.path(name), os.O_CREATE|os.O_RDWR, 0o600)
	m.must(err)
	_, err = f.WriteAt([]byte(data), off)
	m.must(err)
	if sync {
		m.must(f.Sync())
	}
	m.must(f.Close())
}

func (m *mounted) syncDir(name string) {
	m.t.Helper()
	f, err := os.Open(m.path(name))
	m.must(err)
	m.must(f.Sync())
	m.must(f.Close())
}

// cut cuts the power and mounts the remains.
func (m *mounted) cut(torn *rand.Rand) {
	m.t.Helper()
	m.d.Cut()
	left := m.d.Restart(m.d.names, torn)
	m.must(m.unmount())
	m.on(left)
}

// is compares the content of a file; "-" = there is none.
func (m *mounted) is(name, want string) {
	m.t.Helper()
	b, err := os.ReadFile(m.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		b = []byte("-")
	} else {
		m.must(err)
	}
	if string(b) != want {
		m.t.Errorf("%s is %q, want %q", name, b, want)
	}
}

func TestStrict(t *testing.T) {
	m := mount(t, New(Strict))
	m.write("synced", "one", 0, true)
	m.write("synced", "TWO!", 0, false)
	m.write("never", "x", 0, false)
	m.must(os.Mkdir(m.path("dir"), 0o700))
	m.write("dir/inner", "deep", 0, true) // brings its folder with it
	m.write("tmp", "renamed", 0, true)
	m.must(os.Rename(m.path("tmp"), m.path("lost-name")))
	m.write("tmp2", "renamed", 0, true)
	m.must(os.Mkdir(m.path("other"), 0o700))
	m.must(os.Rename(m.path("tmp2"), m.path("other/kept-name")))
	m.syncDir("other")
	m.write("gone", "back", 0, true)
	m.must(os.Remove(m.path("gone")))
	m.is("synced", "TWO!")
	m.is("gone", "-")
	m.cut(nil)
	m.is("synced", "one")
	m.is("never", "-")
	m.is("dir/inner", "deep")
	m.is("tmp", "renamed")
	m.is("lost-name", "-")
	m.is("tmp2", "-")
	m.is("other/kept-name", "renamed")
	m.is("gone", "back")
}

func TestJournal(t *testing.T) {
	m := mount(t, New(Journal))
	m.write("empty", "never synced", 0, false)
	m.write("a", "1", 0, false)
	m.must(os.Rename(m.path("a"), m.path("b")))
	m.write("c", "2", 0, true) // brings all names with it
	m.must(os.Remove(m.path("c")))
	m.cut(nil)
	m.is("empty", "")
	m.is("a", "-")
	m.is("b", "")
	m.is("c", "2")
}

// Truncating and rewriting is as durable as the next fsync, not more.
func TestTruncate(t *testing.T) {
	m := mount(t, New(Strict))
	long := string(bytes.Repeat([]byte("abcdefgh"), 2000))
	m.write("f", long, 0, true)
	m.must(os.Truncate(m.path("f"), 10))
	m.is("f", long[:10])
	m.write("f", "z", 5000, false)
	m.is("f", long[:10]+string(make([]byte, 4990))+"z")
	m.cut(nil)
	m.is("f", long)
	m.must(os.Truncate(m.path("f"), 10))
	m.write("f", "z", 5000, true)
	m.cut(nil)
	m.is("f", long[:10]+string(make([]byte, 4990))+"z")
}

// A torn disk has all data that were fsynced and not overwritten later.
func TestTorn(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := mount(t, New(Journal))
	for round := range 20 {
		name := fmt.Sprint("f", round)
		first := bytes.Repeat([]byte{'a' + byte(round)}, 3*pageSize+rng.IntN(pageSize))
		m.write(name, string(first), 0, true)
		m.write(name, string(bytes.Repeat([]byte{'#'}, 2*pageSize)), 2*pageSize, false)
		m.write(name+"new", "x", 0, false)
		m.cut(rng)
		b, err := os.ReadFile(m.path(name))
		m.must(err)
		if len(b) < len(first) || !bytes.Equal(b[:2*pageSize], first[:2*pageSize]) {
			t.Errorf("%d bytes of %d are left, or what was synced has changed", len(b), len(first))
		}
	}
}

// The fsync that cuts the power never succeeds, and no later one does.
func TestCutAtSync(t *testing.T) {
	m := mount(t, New(Strict))
	m.write("f", "one", 0, true)
	m.d.CutAtSync(2)
	m.write("f", "two", 0, true)
	ended := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(m.path("f"), os.O_RDWR, 0)
		if err == nil {
			_, err = io.WriteString(f, "three")
		}
		if err == nil {
			err = f.Sync()
		}
		ended <- err
		_ = f.Close()
	}()
	<-m.d.Off()
	left := m.d.Restart(Strict, nil)
	if err := <-ended; err == nil {
		t.Error("an fsync without power went well")
	}
	m.must(m.unmount())
	m.on(left)
	m.is("f", "two")
}

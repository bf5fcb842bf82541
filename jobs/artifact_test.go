package jobs_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jobstream/jobs"
)

// leave makes an artifact with this content.
func leave(t *testing.T, dir *jobs.ArtifactDir, id jobs.ID, content string) *jobs.Artifact {
	t.Helper()
	w, err := dir.Create(id)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for _, part := range strings.SplitAfter(content, " ") {
		if _, err := io.WriteString(w, part); err != nil {
			t.Fatal(err)
		}
	}
	a, err := w.Commit("x.txt", "text/plain")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func read(t *testing.T, dir *jobs.ArtifactDir, id jobs.ID, a *jobs.Artifact) string {
	t.Helper()
	f, err := dir.Open(id, a)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, ok := f.(*os.File); !ok {
		t.Errorf("%T cannot be sent by the kernel", f)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// files lists the files below a folder, without their folders.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, e.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestArtifactCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "folder")
	dir := jobs.NewArtifactDir(path, 0)
	id := jobs.NewID()
	const text = "some text in parts"
	a := leave(t, dir, id, text)
	sum := sha256.Sum256([]byte(text))
	if want := (jobs.Artifact{Name: "x.txt", ContentType: "text/plain", Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}); *a != want {
		t.Errorf("got %+v, want %+v", *a, want)
	}
	other := leave(t, dir, id, "other")
	leave(t, dir, id, text)
	if got := read(t, dir, id, a) + ", " + read(t, dir, id, other); got != text+", other" {
		t.Errorf("read back %q", got)
	}
	if got := files(t, path); len(got) != 2 {
		t.Errorf("the folder has %v", got)
	}
	if n, err := dir.Size(id); n != a.Size+other.Size || err != nil {
		t.Errorf("they have %d bytes, %v", n, err)
	}
}

func TestEmptyArtifact(t *testing.T) {
	dir := jobs.NewArtifactDir(t.TempDir(), 0)
	if a := leave(t, dir, jobs.NewID(), ""); a.Size != 0 || len(a.SHA256) != 64 {
		t.Errorf("got %+v", a)
	}
}

func TestArtifactAbort(t *testing.T) {
	path := t.TempDir()
	dir := jobs.NewArtifactDir(path, 0)
	id := jobs.NewID()
	w, err := dir.Create(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if n, err := dir.Size(id); n != 0 || err != nil {
		t.Errorf("before the commit it has %d bytes, %v", n, err)
	}
	w.Abort()
	w.Abort()
	if _, err := w.Commit("x", "y"); err == nil {
		t.Error("it is committed after the abort")
	}
	if got := files(t, path); len(got) != 0 {
		t.Errorf("the folder has %v", got)
	}
}

func TestArtifactCommitThatFails(t *testing.T) {
	path := t.TempDir()
	dir := jobs.NewArtifactDir(path, 100)
	id := jobs.NewID()
	// a file stands where the folder should be
	if err := os.WriteFile(filepath.Join(path, id.String()+".d"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 { // its bytes are given back
		w, err := dir.Create(id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, 60)); err != nil {
			t.Fatal(err)
		}
		if a, err := w.Commit("x", "y"); err == nil {
			t.Errorf("committed as %+v", a)
		}
		w.Abort()
	}
	if got := files(t, path); len(got) != 1 {
		t.Errorf("the folder has %v", got)
	}
}

func TestArtifactRemove(t *testing.T) {
	path := t.TempDir()
	dir := jobs.NewArtifactDir(path, 0)
	id, other := jobs.NewID(), jobs.NewID()
	a := leave(t, dir, id, "12345")
	leave(t, dir, id, "123")
	kept := leave(t, dir, other, "1")
	for _, want := range []int64{8, 0} {
		if n, err := dir.Remove(id); n != want || err != nil {
			t.Errorf("removed %d bytes, %v; want %d", n, err, want)
		}
	}
	if f, err := dir.Open(id, a); f != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened after removal: %v, %v", f, err)
	}
	if got := read(t, dir, other, kept); got != "1" {
		t.Errorf("the other is %q", got)
	}
	if left, err := os.ReadDir(path); len(left) != 1 || err != nil {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestArtifactKeep(t *testing.T) {
	path := t.TempDir()
	dir := jobs.NewArtifactDir(path, 0)
	id := jobs.NewID()
	leave(t, dir, id, "stale")
	a, b := leave(t, dir, id, "a"), leave(t, dir, id, "b")
	if err := dir.Keep(id, []jobs.Artifact{*a, *b}); err != nil {
		t.Fatal(err)
	}
	if n, err := dir.Size(id); n != 2 || err != nil || read(t, dir, id, a) != "a" {
		t.Errorf("kept are %d bytes, %v", n, err)
	}
	if err := dir.Keep(id, nil); err != nil || len(files(t, path)) != 0 {
		t.Errorf("left are %v, %v", files(t, path), err)
	}
}

// TestOldArtifact: a job of an earlier version has one file, under its id.
func TestOldArtifact(t *testing.T) {
	path := t.TempDir()
	dir := jobs.NewArtifactDir(path, 0)
	id := jobs.NewID()
	if err := os.WriteFile(filepath.Join(path, id.String()), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, id, &jobs.Artifact{Name: "x", Size: 3, SHA256: "ab"}); got != "old" {
		t.Errorf("read back %q", got)
	}
	if n, err := dir.Size(id); n != 3 || err != nil {
		t.Errorf("it has %d bytes, %v", n, err)
	}
	if n, err := dir.Remove(id); n != 3 || err != nil || len(files(t, path)) != 0 {
		t.Errorf("removed %d bytes, %v; left are %v", n, err, files(t, path))
	}
}

// TestArtifactBound counts the files that are there at the start, and every change.
func TestArtifactBound(t *testing.T) {
	path := t.TempDir()
	old, id, other := jobs.NewID(), jobs.NewID(), jobs.NewID()
	leave(t, jobs.NewArtifactDir(path, 0), id, "1234")
	if err := os.WriteFile(filepath.Join(path, old.String()), []byte("12345678"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := jobs.NewArtifactDir(path, 20)
	fits := func(n int) bool { // besides those that are there
		t.Helper()
		w, err := dir.Create(other)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		_, err = w.Write(make([]byte, n))
		if err != nil && !strings.Contains(err.Error(), "artifacts.max_bytes") {
			t.Errorf("the error is %v", err)
		}
		return err == nil
	}
	left := func(want int) {
		t.Helper()
		if !fits(want) || fits(want+1) {
			t.Errorf("there is not room for exactly %d bytes", want)
		}
	}
	left(8)
	leave(t, dir, other, "12")
	left(6)
	leave(t, dir, other, "12") // the same again
	left(6)
	if _, err := dir.Remove(old); err != nil {
		t.Fatal(err)
	}
	left(14)
	if err := dir.Keep(other, nil); err != nil {
		t.Fatal(err)
	}
	left(16)
}

func TestArtifactName(t *testing.T) {
	for name, want := range map[string]string{
		"a.csv": "a.csv", "../../etc/passwd": "passwd", `c:\temp\a.csv`: "a.csv", "a\r\nb": "a__b", "": "file", "..": "file", "/": "file",
		"münchen \xff.csv": "münchen _.csv", ".htaccess": ".htaccess",
	} {
		if got := jobs.ArtifactName(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
	if got := jobs.ArtifactName(strings.Repeat("x", 1000)); len(got) > jobs.MaxArtifactName+len("…") {
		t.Errorf("a long name has %d bytes", len(got))
	}
}

func TestArtifactSweep(t *testing.T) {
	for _, name := range []string{"plain", "with [brackets] and *"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			dir := jobs.NewArtifactDir(path, 0)
			if err := dir.Sweep(); err != nil {
				t.Fatalf("no folder yet: %v", err)
			}
			id := jobs.NewID()
			whole := leave(t, dir, id, "whole")
			w, err := dir.Create(id) // a crash leaves it like that
			if err != nil {
				t.Fatal(err)
			}
			if len(files(t, path)) != 2 {
				t.Fatalf("the folder has %v", files(t, path))
			}
			if err := dir.Sweep(); err != nil {
				t.Fatal(err)
			}
			if got := files(t, path); len(got) != 1 || read(t, dir, id, whole) != "whole" {
				t.Errorf("the folder has %v", got)
			}
			w.Abort() // closes its file
		})
	}
}

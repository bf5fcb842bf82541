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
func leave(t *testing.T, dir jobs.ArtifactDir, id jobs.ID, content string) *jobs.Artifact {
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
	if _, err := dir.Open(id); content == "" && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("visible before it is whole: %v", err)
	}
	a, err := w.Commit("x.txt", "text/plain")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func read(t *testing.T, dir jobs.ArtifactDir, id jobs.ID) string {
	t.Helper()
	f, err := dir.Open(id)
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

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestArtifactCommit(t *testing.T) {
	dir := jobs.ArtifactDir(filepath.Join(t.TempDir(), "new", "folder"))
	id := jobs.NewID()
	const text = "some text in parts"
	a := leave(t, dir, id, text)
	sum := sha256.Sum256([]byte(text))
	if want := (jobs.Artifact{Name: "x.txt", ContentType: "text/plain", Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}); *a != want {
		t.Errorf("got %+v, want %+v", *a, want)
	}
	if got := read(t, dir, id); got != text {
		t.Errorf("read back %q", got)
	}
	leave(t, dir, id, "replaced")
	if got := read(t, dir, id); got != "replaced" {
		t.Errorf("after a second run it is %q", got)
	}
	if got := files(t, string(dir)); len(got) != 1 || got[0] != id.String() {
		t.Errorf("the folder has %v", got)
	}
}

func TestEmptyArtifact(t *testing.T) {
	dir := jobs.ArtifactDir(t.TempDir())
	if a := leave(t, dir, jobs.NewID(), ""); a.Size != 0 || len(a.SHA256) != 64 {
		t.Errorf("got %+v", a)
	}
}

func TestArtifactAbort(t *testing.T) {
	dir := jobs.ArtifactDir(t.TempDir())
	id := jobs.NewID()
	leave(t, dir, id, "first")
	w, err := dir.Create(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, id); got != "first" {
		t.Errorf("before the commit it is %q", got)
	}
	w.Abort()
	w.Abort()
	if got := read(t, dir, id); got != "first" {
		t.Errorf("after the abort it is %q", got)
	}
	if got := files(t, string(dir)); len(got) != 1 {
		t.Errorf("the folder has %v", got)
	}
}

func TestArtifactCommitThatFails(t *testing.T) {
	dir := jobs.ArtifactDir(t.TempDir())
	id := jobs.NewID()
	// a folder stands where the file should go
	if err := os.MkdirAll(filepath.Join(string(dir), id.String(), "x"), 0o750); err != nil {
		t.Fatal(err)
	}
	w, err := dir.Create(id)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := w.Commit("x", "y"); err == nil {
		t.Errorf("committed as %+v", a)
	}
	w.Abort()
	if got := files(t, string(dir)); len(got) != 1 {
		t.Errorf("the folder has %v", got)
	}
}

func TestArtifactRemove(t *testing.T) {
	dir := jobs.ArtifactDir(t.TempDir())
	id, other := jobs.NewID(), jobs.NewID()
	leave(t, dir, id, "12345")
	leave(t, dir, other, "1")
	if n, err := dir.Size(id); n != 5 || err != nil {
		t.Errorf("it has %d bytes, %v", n, err)
	}
	for _, want := range []int64{5, 0} {
		if n, err := dir.Remove(id); n != want || err != nil {
			t.Errorf("removed %d bytes, %v; want %d", n, err, want)
		}
	}
	if f, err := dir.Open(id); f != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened after removal: %v, %v", f, err)
	}
	if got := read(t, dir, other); got != "1" {
		t.Errorf("the other is %q", got)
	}
}

func TestArtifactSweep(t *testing.T) {
	for _, name := range []string{"plain", "with [brackets] and *"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			dir := jobs.ArtifactDir(path)
			if err := dir.Sweep(); err != nil {
				t.Fatalf("no folder yet: %v", err)
			}
			id := jobs.NewID()
			leave(t, dir, id, "whole")
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
			if got := files(t, path); len(got) != 1 || read(t, dir, id) != "whole" {
				t.Errorf("the folder has %v", got)
			}
			w.Abort() // closes its file
		})
	}
}

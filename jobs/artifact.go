package jobs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"jobstream/jobs/fsync"
)

// Artifacts is the place of jobs' files, one per job. A file appears there whole or not
// at all.
type Artifacts interface {
	// Create begins the artifact of a job. Nothing is visible before
	// [ArtifactWriter.Commit]; a job that runs again replaces its artifact.
	Create(id ID) (ArtifactWriter, error)
	// Open opens a job's artifact for reading. The error is fs.ErrNotExist if it has
	// none.
	Open(id ID) (ArtifactFile, error)
	// Size is the size of a job's artifact in bytes; 0 if there is none.
	Size(id ID) (int64, error)
	// Remove deletes a job's artifact, if there is one, and returns its size in
	// bytes.
	Remove(id ID) (int64, error)
}

// ArtifactWriter takes the content of an artifact.
type ArtifactWriter interface {
	io.Writer
	// Commit makes the artifact durable and visible.
	Commit(name, contentType string) (*Artifact, error)
	// Abort discards the artifact; after Commit it does nothing. Defer it.
	Abort()
}

// ArtifactFile is an artifact that is being read.
type ArtifactFile interface {
	fs.File
	io.Seeker
}

// ArtifactDir is a folder as [Artifacts]. The name of a file is its job's id.
type ArtifactDir string

var _ Artifacts = ArtifactDir("")

func (d ArtifactDir) path(id ID) string { return filepath.Join(string(d), id.String()) }

// Create begins an artifact in a file under another name.
func (d ArtifactDir) Create(id ID) (ArtifactWriter, error) {
	if err := os.MkdirAll(string(d), 0o750); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(string(d), "."+id.String()+"-*.tmp")
	if err != nil {
		return nil, err
	}
	return &dirWriter{f: f, final: d.path(id), sum: sha256.New()}, nil
}

// Open opens the file of a job.
func (d ArtifactDir) Open(id ID) (ArtifactFile, error) {
	f, err := os.Open(d.path(id))
	if err != nil {
		return nil, err // not a typed nil *os.File
	}
	return f, nil
}

// Size is that of a job's file.
func (d ArtifactDir) Size(id ID) (int64, error) {
	info, err := os.Lstat(d.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Remove deletes the file of a job.
func (d ArtifactDir) Remove(id ID) (int64, error) {
	size, err := d.Size(id)
	if err != nil {
		return 0, err
	}
	if err := os.Remove(d.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return size, nil
}

// Sweep removes half-written artifacts that a crash left. Call it before any job runs.
func (d ArtifactDir) Sweep() error {
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp") {
			err = errors.Join(err, os.Remove(filepath.Join(string(d), name)))
		}
	}
	return err
}

// dirWriter writes a file of an ArtifactDir.
type dirWriter struct {
	f     *os.File
	final string
	sum   hash.Hash
	size  int64
	done  bool
}

// Write appends p.
func (w *dirWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.sum.Write(p[:n])
	w.size += int64(n)
	return n, err
}

// Commit syncs the file and gives it its name.
func (w *dirWriter) Commit(name, contentType string) (*Artifact, error) {
	err := w.f.Sync()
	if e := w.f.Close(); err == nil {
		err = e
	}
	w.done = true
	if err == nil {
		err = os.Rename(w.f.Name(), w.final)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(w.f.Name()))
	}
	if err := fsync.Dir(filepath.Dir(w.final)); err != nil {
		return nil, err
	}
	return &Artifact{Name: name, ContentType: contentType, Size: w.size, SHA256: hex.EncodeToString(w.sum.Sum(nil))}, nil
}

// Abort removes the file.
func (w *dirWriter) Abort() {
	if w.done {
		return
	}
	w.done = true
	_ = w.f.Close()           // its content is unwanted
	_ = os.Remove(w.f.Name()) // a file that remains is swept at the next start
}

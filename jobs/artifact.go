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
)

// ArtifactDir is the folder where jobs leave files, one per job, named by the
// job's id. A file appears there whole or not at all.
type ArtifactDir string

func (d ArtifactDir) path(id ID) string { return filepath.Join(string(d), id.String()) }

// Create begins the artifact of a job. Nothing is visible before
// [ArtifactWriter.Commit]; a job that runs again replaces its artifact.
func (d ArtifactDir) Create(id ID) (*ArtifactWriter, error) {
	if err := os.MkdirAll(string(d), 0o750); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(string(d), "."+id.String()+"-*.tmp")
	if err != nil {
		return nil, err
	}
	return &ArtifactWriter{f: f, final: d.path(id), sum: sha256.New()}, nil
}

// Open opens a job's artifact for reading. The error is fs.ErrNotExist if it
// has none.
func (d ArtifactDir) Open(id ID) (*os.File, error) { return os.Open(d.path(id)) }

// Remove deletes a job's artifact, if there is one, and returns its size in
// bytes.
func (d ArtifactDir) Remove(id ID) (int64, error) { return removeFile(d.path(id)) }

// removeFile deletes a file that may not be there and returns its size.
func removeFile(path string) (int64, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return info.Size(), nil
}

// Sweep removes what half-written artifacts a crash has left. Call it before
// any job runs.
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

// ArtifactWriter takes the content of an artifact.
type ArtifactWriter struct {
	f     *os.File
	final string
	sum   hash.Hash
	size  int64
	done  bool
}

var _ io.Writer = (*ArtifactWriter)(nil)

// Write appends p.
func (w *ArtifactWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.sum.Write(p[:n])
	w.size += int64(n)
	return n, err
}

// Commit makes the artifact durable and visible under its final name.
func (w *ArtifactWriter) Commit(name, contentType string) (*Artifact, error) {
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
	if err := SyncDir(filepath.Dir(w.final)); err != nil {
		return nil, err
	}
	return &Artifact{Name: name, ContentType: contentType, Size: w.size, SHA256: hex.EncodeToString(w.sum.Sum(nil))}, nil
}

// Abort throws the artifact away; after Commit it does nothing. Its place is a
// defer.
func (w *ArtifactWriter) Abort() {
	if w.done {
		return
	}
	w.done = true
	_ = w.f.Close()           // nothing of it is wanted
	_ = os.Remove(w.f.Name()) // what stays is swept at the next start
}

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

package jobs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"jobstream/jobs/fsync"
)

// Copies has the files of all nodes of a cluster. What it has survives the loss of a node
// and of its disk. A file appears there whole or not at all.
type Copies interface {
	// Put stores a file. It is there to stay when Put returns.
	Put(f FileKey, content io.Reader) error
	// Get writes a file to w. The error is fs.ErrNotExist if there is none.
	Get(f FileKey, w io.Writer) error
	// Sizes are the sizes of an owner's files in bytes, by sum.
	Sizes(folder string, owner ID) (map[string]int64, error)
	// Remove deletes a file, or what there is of it.
	Remove(f FileKey) error
	// Bytes is how much all files take.
	Bytes() (int64, error)
}

// FileKey names a file of [Copies].
type FileKey struct {
	Folder string // [JobFiles] or [InputFiles]
	Owner  ID     // a job, or an input
	Sum    string // begins the SHA-256 of the content, in hex
}

// The folders of [Copies].
const (
	JobFiles   = "jobs"
	InputFiles = "in"
)

// Share has all files of d in c, too, and finds there those that other nodes have put in.
// d is then a cache. A bound of d is one for all files in c. Call it before d is used.
func (d *ArtifactDir) Share(c Copies) { d.used.copies = c }

func (d *ArtifactDir) key(id ID, sum string) FileKey { return FileKey{d.name, id, fileOf(sum)} }

// put stores a file with the other nodes, if there are any.
func (d *ArtifactDir) put(id ID, sum string, content io.ReadSeeker) error {
	if d.used.copies == nil {
		return nil
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return d.used.copies.Put(d.key(id, sum), content)
}

// fetch gets a file from the other nodes into the folder.
func (d *ArtifactDir) fetch(id ID, a *Artifact) (err error) {
	if d.used.copies == nil {
		return fs.ErrNotExist
	}
	if err := os.MkdirAll(d.path, 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(d.path, "."+id.String()+"-*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	sum := sha256.New()
	if err := d.used.copies.Get(d.key(id, a.SHA256), io.MultiWriter(f, sum)); err != nil {
		return err
	}
	if !strings.HasPrefix(hex.EncodeToString(sum.Sum(nil)), a.SHA256) {
		return fmt.Errorf("the file %s is damaged in the cluster: its content is not the one that its record describes", Quote(a.Name))
	}
	if err = errors.Join(f.Sync(), f.Chmod(0o444), os.MkdirAll(d.folder(id), 0o750)); err == nil {
		err = os.Rename(f.Name(), d.Path(id, a))
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), fsync.Dir(d.folder(id)))
}

// Publish puts a file that only this node has where the other nodes find it, too.
func (d *ArtifactDir) Publish(id ID, a *Artifact) error {
	f, err := os.Open(d.Path(id, a))
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(d.old(id))
	}
	if errors.Is(err, fs.ErrNotExist) || d.used.copies == nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // opened for reading only
	sizes, err := d.used.copies.Sizes(d.name, id)
	if _, there := sizes[fileOf(a.SHA256)]; err != nil || there {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != a.SHA256 {
		return fmt.Errorf("the file %s is damaged: its content is not the one that its record describes", Quote(a.Name))
	}
	return d.put(id, a.SHA256, f)
}

// Bring gets a file that only other nodes have into the folder. sum begins its SHA-256.
func (d *ArtifactDir) Bring(id ID, sum string) error {
	if d.used.copies == nil {
		return nil
	}
	f, err := d.open(id, &Artifact{Name: sum, SHA256: sum})
	if err != nil {
		return err
	}
	return f.Close()
}

// Evict removes what the folder has of an owner, and nothing from other nodes. What is
// younger than age stays: its owner may be about to be known.
func (d *ArtifactDir) Evict(id ID, age time.Duration) error {
	info, err := os.Stat(d.folder(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || time.Since(info.ModTime()) < age {
		return err
	}
	_, err = d.removeHere(id, nil)
	return err
}

// sizes are the sizes of a job's files, by sum.
func (d *ArtifactDir) sizes(id ID) (map[string]int64, error) {
	if d.used.copies != nil {
		return d.used.copies.Sizes(d.name, id)
	}
	sizes := make(map[string]int64)
	err := d.each(id, func(path string, n int64) error {
		sizes[filepath.Base(path)] = n
		return nil
	})
	return sizes, err
}

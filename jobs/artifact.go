package jobs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"jobstream/jobs/fsync"
	"jobstream/jobs/linger"
)

// Artifacts is the place of jobs' files. A file appears there whole or not at all. It is
// never replaced: the record of its job says which files count.
type Artifacts interface {
	// Create begins a file of a job. Nothing is visible before [ArtifactWriter.Commit].
	Create(id ID) (ArtifactWriter, error)
	// Open opens a file of a job for reading. The error is fs.ErrNotExist if there is
	// none.
	Open(id ID, a *Artifact) (ArtifactFile, error)
	// Size is the size of a job's files in bytes; 0 if there are none.
	Size(id ID) (int64, error)
	// Remove deletes all files of a job and returns their size in bytes.
	Remove(id ID) (int64, error)
	// Keep deletes all files of a job but these.
	Keep(id ID, files []Artifact) error
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

// Bounds of artifacts.
const (
	MaxArtifacts    = 100 // of one job
	MaxArtifactName = 200 // bytes of a name or a content type
)

// ArtifactName makes a name that can stand in a path and in a folder of downloads.
func ArtifactName(name string) string {
	name = path.Base(strings.ReplaceAll(strings.ToValidUTF8(name, "_"), `\`, "/"))
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, name)
	if strings.Trim(name, "./") == "" {
		return "file"
	}
	return Shorten(name, MaxArtifactName)
}

// ArtifactDir is a folder as [Artifacts]. The files of a job are in a folder of their
// own there, under names that follow from their content. So no attempt can replace the
// file of another one.
//
// In a cluster the files are with the other nodes as well; see [ArtifactDir.Share].
type ArtifactDir struct {
	path string
	name string // [JobFiles] or [InputFiles]
	used *usage // of the whole folder, which Inputs shares
}

// usage counts the bytes of all files below a folder.
type usage struct {
	path    string
	most    int64 // 0 = no bound
	count   sync.Once
	counted error // why the bytes could not be counted
	bytes   atomic.Int64
	copies  Copies       // nil: the files are here only
	shared  atomic.Int64 // bytes in copies, when they were last counted; bytes are then those under way
}

var _ Artifacts = (*ArtifactDir)(nil)

// NewArtifactDir makes Artifacts of a folder that need not exist yet. All files together
// have at most most bytes; 0 = no bound.
func NewArtifactDir(path string, most int64) *ArtifactDir {
	return &ArtifactDir{path: path, name: JobFiles, used: &usage{path: path, most: most}}
}

// Inputs is the folder of inputs in d: each has an id of its own there, and one file. The
// bound of d holds for all files together.
func (d *ArtifactDir) Inputs() *ArtifactDir {
	return &ArtifactDir{path: filepath.Join(d.path, "in"), name: InputFiles, used: d.used}
}

// folder is the folder of a job's files.
func (d *ArtifactDir) folder(id ID) string { return filepath.Join(d.path, id.String()+".d") }

// old is the place of the only file of a job from the time when jobs had one.
func (d *ArtifactDir) old(id ID) string { return filepath.Join(d.path, id.String()) }

// fileOf is the name of a file with this sum.
func fileOf(sum string) string { return sum[:min(len(sum), 32)] }

// Create begins an artifact in a file under another name.
func (d *ArtifactDir) Create(id ID) (ArtifactWriter, error) {
	if err := d.used.measure(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.path, 0o750); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(d.path, "."+id.String()+"-*.tmp")
	if err != nil {
		return nil, err
	}
	return &dirWriter{d: d, id: id, f: f, folder: d.folder(id), sum: sha256.New()}, nil
}

// Open opens a file of a job.
func (d *ArtifactDir) Open(id ID, a *Artifact) (ArtifactFile, error) {
	f, err := d.open(id, a)
	if err != nil {
		return nil, err // not a typed nil *os.File
	}
	return f, nil
}

func (d *ArtifactDir) open(id ID, a *Artifact) (*os.File, error) {
	f, err := os.Open(d.Path(id, a))
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(d.old(id))
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err = d.fetch(id, a); err == nil {
			f, err = os.Open(d.Path(id, a))
		}
	}
	return f, err
}

// Size is that of all files of a job.
func (d *ArtifactDir) Size(id ID) (size int64, err error) {
	sizes, err := d.sizes(id)
	for _, n := range sizes {
		size += n
	}
	return size, err
}

// each calls f with the path and the size of each file of a job.
func (d *ArtifactDir) each(id ID, f func(path string, size int64) error) error {
	info, err := os.Lstat(d.old(id))
	if err == nil {
		err = f(d.old(id), info.Size())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(d.folder(id))
	for _, e := range entries {
		info, err := e.Info()
		if err == nil {
			err = f(filepath.Join(d.folder(id), e.Name()), info.Size())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remove deletes all files of a job, and its folder.
func (d *ArtifactDir) Remove(id ID) (int64, error) { return d.remove(id, nil) }

// Keep deletes all files of a job but these.
func (d *ArtifactDir) Keep(id ID, files []Artifact) error {
	keep := make(map[string]bool, len(files))
	for i := range files {
		keep[fileOf(files[i].SHA256)] = true
	}
	_, err := d.remove(id, keep)
	return err
}

func (d *ArtifactDir) remove(id ID, keep map[string]bool) (freed int64, err error) {
	if d.used.copies == nil {
		if err := d.used.measure(); err != nil {
			return 0, err
		}
		return d.removeHere(id, keep)
	}
	sizes, err := d.used.copies.Sizes(d.name, id)
	if err != nil {
		return 0, err
	}
	for sum, size := range sizes {
		if keep[sum] {
			continue
		}
		if err := d.used.copies.Remove(FileKey{d.name, id, sum}); err != nil {
			return freed, err
		}
		freed += size
	}
	_, err = d.removeHere(id, keep)
	return freed, err
}

// removeHere is remove for the folder alone.
func (d *ArtifactDir) removeHere(id ID, keep map[string]bool) (freed int64, err error) {
	err = d.each(id, func(path string, size int64) error {
		if keep[filepath.Base(path)] {
			return nil
		}
		if err := linger.Remove(path); err != nil {
			return err
		}
		freed += size
		if d.used.copies == nil {
			d.used.bytes.Add(-size)
		}
		return nil
	})
	if err == nil && len(keep) == 0 {
		err = os.Remove(d.folder(id))
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return freed, err
}

// measure counts the bytes of all files, once. Without a bound nobody needs them.
func (u *usage) measure() error {
	if u.most <= 0 {
		return nil
	}
	if u.copies != nil {
		n, err := u.copies.Bytes()
		u.shared.Store(n)
		return err
	}
	u.count.Do(func() {
		u.counted = filepath.WalkDir(u.path, func(_ string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				var info fs.FileInfo
				if info, err = e.Info(); err == nil {
					u.bytes.Add(info.Size())
				}
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
	})
	return u.counted
}

// reserve counts n more bytes, unless that goes beyond the bound.
func (u *usage) reserve(n int64) error {
	if sum := u.bytes.Add(n) + u.shared.Load(); u.most > 0 && sum > u.most {
		u.bytes.Add(-n)
		return &Error{Kind: StorageFull, Detail: fmt.Sprintf("the files of all jobs would have more than %d bytes (artifacts.max_bytes); delete jobs, or raise it", u.most)}
	}
	return nil
}

// stored ends the count of n bytes as being under way, if others have them now.
func (u *usage) stored(n int64) {
	if u.copies != nil {
		u.shared.Add(n)
		u.bytes.Add(-n)
	}
}

// Sweep removes half-written artifacts that a crash left. Call it before any job runs.
func (d *ArtifactDir) Sweep() error {
	return errors.Join(sweep(d.path), sweep(d.Inputs().path), d.used.measure())
}

func sweep(folder string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp") {
			err = errors.Join(err, os.Remove(filepath.Join(folder, name)))
		}
	}
	return err
}

// IDs lists the jobs, or the inputs, that have a folder here.
func (d *ArtifactDir) IDs() (all []ID, err error) {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		name, isFolder := strings.CutSuffix(e.Name(), ".d")
		if id, err := ParseID(name); isFolder && err == nil {
			all = append(all, id)
		}
	}
	return all, err
}

// Path is the place of a file.
func (d *ArtifactDir) Path(id ID, a *Artifact) string {
	return filepath.Join(d.folder(id), fileOf(a.SHA256))
}

// Link makes a file of owner in from a file of id in d as well. It stays when the other
// one is removed. Under both names it is read-only from now on.
func (d *ArtifactDir) Link(id ID, from *ArtifactDir, owner ID, a *Artifact) error {
	if err := d.used.measure(); err != nil {
		return err
	}
	source, err := from.open(owner, a)
	if err != nil {
		return err
	}
	defer source.Close() //nolint:errcheck // opened for reading only
	info, err := source.Stat()
	if err == nil && info.Size() != a.Size {
		err = fmt.Errorf("the file %s has %d bytes, its record says %d", Quote(a.Name), info.Size(), a.Size)
	}
	if err == nil {
		err = os.MkdirAll(d.folder(id), 0o750)
	}
	if err == nil {
		err = d.used.reserve(a.Size)
	}
	if err != nil {
		return err
	}
	if err := d.put(id, a.SHA256, source); err != nil {
		d.used.bytes.Add(-a.Size)
		return err
	}
	if err = os.Link(source.Name(), d.Path(id, a)); err == nil {
		d.used.stored(a.Size)
		return errors.Join(d.Protect(id, a), fsync.Dir(d.folder(id)), fsync.Dir(d.path))
	}
	d.used.bytes.Add(-a.Size)
	if _, err := source.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return d.copy(id, source, a)
}

// copy is for file systems without links.
func (d *ArtifactDir) copy(id ID, source io.Reader, a *Artifact) error {
	w, err := d.Create(id)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.Copy(w, source); err != nil {
		return err
	}
	made, err := w.Commit(a.Name, a.ContentType)
	if err == nil && made.SHA256 != a.SHA256 {
		err = fmt.Errorf("the file %s is damaged: its content is not the one that its record describes", Quote(a.Name))
	}
	return errors.Join(err, d.Protect(id, a))
}

// Protect makes a file read-only. Whoever reaches the data folder may read it.
func (d *ArtifactDir) Protect(id ID, a *Artifact) error { return os.Chmod(d.Path(id, a), 0o444) }

// dirWriter writes a file of an ArtifactDir.
type dirWriter struct {
	d      *ArtifactDir
	id     ID
	f      *os.File
	folder string
	sum    hash.Hash
	size   int64
	done   bool
}

// Write appends p.
func (w *dirWriter) Write(p []byte) (int, error) {
	if err := w.d.used.reserve(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := w.f.Write(p)
	w.d.used.bytes.Add(int64(n - len(p)))
	w.sum.Write(p[:n])
	w.size += int64(n)
	return n, err
}

// Commit syncs the file and gives it its name.
func (w *dirWriter) Commit(name, contentType string) (*Artifact, error) {
	if w.done {
		return nil, fs.ErrClosed
	}
	a := &Artifact{Name: name, ContentType: contentType, Size: w.size, SHA256: hex.EncodeToString(w.sum.Sum(nil))}
	if err := w.commit(filepath.Join(w.folder, fileOf(a.SHA256)), a.SHA256); err != nil {
		w.Abort()
		return nil, err
	}
	return a, nil
}

func (w *dirWriter) commit(final, sum string) error {
	err := w.f.Sync()
	if err == nil {
		err = w.d.put(w.id, sum, w.f)
	}
	if err == nil {
		err = os.MkdirAll(w.folder, 0o750)
	}
	if err != nil {
		return err
	}
	same, missing := os.Lstat(final)
	if err := os.Rename(w.f.Name(), final); err != nil {
		return err
	}
	w.done = true
	w.d.used.stored(w.size)
	if missing == nil && w.d.used.copies == nil {
		w.d.used.bytes.Add(-same.Size()) // the job had a file with the same content
	}
	return errors.Join(w.f.Close(), fsync.Dir(w.folder), fsync.Dir(w.d.path))
}

// Abort removes the file.
func (w *dirWriter) Abort() {
	if w.done {
		return
	}
	w.done = true
	w.d.used.bytes.Add(-w.size)
	_ = w.f.Close()           // its content is unwanted
	_ = os.Remove(w.f.Name()) // a file that remains is swept at the next start
}

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"

	"jobstream/cmd/node/archive"
	"jobstream/jobs/fsync"
	"jobstream/status"
)

// A restore first puts everything into a folder in the data folder, named restoring. When
// all of it is verified and on disk, it is moved up, the tracker last. Then that folder
// goes. While it is there no server starts. So a restore that was interrupted, at any
// point, has left a folder that cannot be used and says so.
const restoring = "restoring"

// ErrNotEmpty says that there is something in the folder to restore into.
var ErrNotEmpty = errors.New("the folder is not empty")

// Restore puts the backup that it reads into an empty folder, which is made if need be. It
// returns what the backup has, when that is verified and on disk. After an error the
// folder is as it was before. begin gets the description of the backup as soon as it is
// known; it may be nil.
func Restore(ctx context.Context, from io.Reader, dir string, begin func(*archive.Info) error, log *slog.Logger) (_ *archive.Summary, err error) {
	r := &restore{ctx: ctx, root: dir, in: filepath.Join(dir, restoring)}
	_, missing := os.Stat(dir)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && errors.Is(missing, fs.ErrNotExist) {
			_ = os.Remove(dir) // nothing is in it; or it stays, with the reason
		}
	}()
	if err := r.begin(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.undo())
		}
	}()
	got, err := r.unpack(from, begin)
	if err != nil {
		return nil, err
	}
	if err := r.check(log); err != nil {
		return nil, err
	}
	return got, r.place()
}

// restore is one under way.
type restore struct {
	ctx    context.Context
	root   string   // the data folder
	in     string   // the folder in it
	dir    *os.Root // of in
	placed []string // what has been moved up
}

// begin makes the folder for everything. Of two restores one can. What is in the data
// folder is looked at after that: a server that starts looks the other way round.
func (r *restore) begin() error {
	err := os.Mkdir(r.in, 0o750)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: a restore into %s has not come to its end; wait for it if it still runs, else empty the folder and restore again", ErrNotEmpty, r.root)
	}
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(r.root)
	if err == nil {
		for _, e := range entries {
			if e.Name() != restoring && e.Name() != "lost+found" { // that one is of the file system
				err = fmt.Errorf("%w: there is %s in %s; choose another one, or move everything away", ErrNotEmpty, e.Name(), r.root)
				break
			}
		}
	}
	if err == nil {
		err = errors.Join(fsync.Dir(r.root), fsync.Dir(filepath.Dir(filepath.Clean(r.root))))
	}
	if err == nil {
		r.dir, err = os.OpenRoot(r.in)
	}
	if err != nil {
		return errors.Join(err, os.Remove(r.in))
	}
	return nil
}

// unpack reads the whole archive, and brings all files to disk.
func (r *restore) unpack(from io.Reader, begin func(*archive.Info) error) (*archive.Summary, error) {
	got, err := archive.Read(from, begin, r.file)
	if err == nil {
		err = errors.Join(r.dir.Close(), fsync.Tree(r.in))
	}
	return got, err
}

// file writes a file of the archive. Links cannot lead it out of the folder.
func (r *restore) file(e *archive.Entry, content io.Reader) error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if folder := path.Dir(e.Name); folder != "." {
		if err := r.dir.MkdirAll(folder, 0o750); err != nil {
			return err
		}
	}
	f, err := r.dir.OpenFile(e.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s is in it twice", archive.ErrBroken, e.Name)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		// Read-only files stay so. The owner can read everything.
		err = f.Chmod(fs.FileMode(e.Mode)&0o777 | 0o400)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return r.dir.Chtimes(e.Name, e.Modified, e.Modified)
}

// check opens the tracker, which walks over all of it.
func (r *restore) check(log *slog.Logger) error {
	tracker := filepath.Join(r.in, archive.TrackerName)
	if _, err := os.Stat(tracker); err != nil {
		return fmt.Errorf("%w: there is no %s in it", archive.ErrBroken, archive.TrackerName)
	}
	opened, err := status.OpenStopped(tracker, log)
	if err == nil {
		err = opened.Close()
	}
	if err != nil {
		return fmt.Errorf("%w: its tracker cannot be opened: %w", archive.ErrBroken, err)
	}
	return fsync.Dir(r.in)
}

// place moves everything up.
func (r *restore) place() error {
	entries, err := os.ReadDir(r.in)
	if err != nil {
		return err
	}
	slices.SortStableFunc(entries, func(a, b fs.DirEntry) int { return last(a) - last(b) })
	for _, e := range entries {
		to := filepath.Join(r.root, e.Name())
		if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s has appeared in it", ErrNotEmpty, to)
		}
		r.placed = append(r.placed, e.Name())
		if err := os.Rename(filepath.Join(r.in, e.Name()), to); err != nil {
			return err
		}
	}
	if err := fsync.Dir(r.root); err != nil {
		return err
	}
	if err := os.Remove(r.in); err != nil {
		return err
	}
	r.placed = nil // from here on the folder is whole
	return fsync.Dir(r.root)
}

// last sorts the tracker behind everything else.
func last(e fs.DirEntry) int {
	if e.Name() == archive.TrackerName {
		return 1
	}
	return 0
}

// undo removes what the restore has made, and at last the sign that it was unfinished.
func (r *restore) undo() (err error) {
	for _, name := range r.placed {
		err = errors.Join(err, os.RemoveAll(filepath.Join(r.root, name)))
	}
	if err == nil {
		err = os.RemoveAll(r.in)
	}
	return err
}

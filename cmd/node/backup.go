package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"time"

	"jobstream/cmd/node/archive"
	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/linger"
	"jobstream/status"
)

// A backup is made in this order:
//
//  1. From now on files that are removed linger (package linger). So every file that a
//     record of the tracker names stays until it has been copied.
//  2. The tracker catches up with the streams. They may have acknowledged what it lacks.
//  3. The tracker is copied to a file in the data folder, as fast as the disk can. Only
//     that long a transaction keeps its old pages alive, however slow the client is.
//  4. That copy, and the files, are sent at the client's pace.
//
// Files that come after step 3 may be copied, too. No record names them, so they are like
// those that a crash leaves.

// backups makes backups of a running core. One at a time holds the folders.
type backups struct{ c *core }

// spare is how much room on the disk a backup leaves at least, in bytes.
const spare = 64 << 20

// Backup begins a backup of everything that was acknowledged before; see [api.Backups].
func (b backups) Backup(ctx context.Context) (*api.Stream, error) {
	s := newSaving(b.c.o.dirs, b.c.o.Version, b.c.log)
	begun := time.Now()
	if err := s.prepare(ctx, b.c); err != nil {
		s.close()
		return nil, err
	}
	b.c.log.Info("a backup has begun", "tracker", s.size, "about", s.info.Bytes, "prepared in", time.Since(begun).Round(time.Millisecond))
	return &api.Stream{
		Name: "jobstream-" + s.info.At.Format("20060102T150405Z") + ".tar", ContentType: "application/x-tar",
		Write: s.write, Close: s.close,
	}, nil
}

// Backup writes a backup of the running node to w; see the command jobstream backup. It
// has everything that was acknowledged before the call.
func (n *Node) Backup(ctx context.Context, w io.Writer) error {
	c := n.core.Load()
	if c == nil {
		return errHealing()
	}
	s, err := backups{c}.Backup(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Write(ctx, w)
}

// saving is one backup under way.
type saving struct {
	dirs    Folders
	info    archive.Info
	held    map[string]*linger.Held // by folder in the archive
	tracker *os.File                // the copy; it has no name
	size    int64                   // of it
	log     *slog.Logger
}

func newSaving(dirs Folders, version string, log *slog.Logger) *saving {
	return &saving{
		dirs: dirs, info: archive.Info{Version: version, At: time.Now().UTC()},
		held: make(map[string]*linger.Held), log: log,
	}
}

// prepare does the steps up to the copy of the tracker.
func (s *saving) prepare(ctx context.Context, c *core) (err error) {
	// The tracker cannot be closed while it is being copied.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.loops.ctx, func() { cancel(errHealing()) })()

	if err := s.hold(); err != nil {
		return err
	}
	if err := c.o.member.bring(ctx); err != nil {
		return err
	}
	pos, err := ends(ctx, c.Store, c.Broker)
	if err != nil {
		return err
	}
	if err := c.Store.WaitFor(ctx, pos); err != nil {
		return err
	}
	if s.tracker, err = nameless(s.dirs.Root); err != nil {
		return err
	}
	err = c.Store.Snapshot(func(t *status.Snapshot) error {
		s.note(t)
		if err := s.room(); err != nil {
			return err
		}
		_, err := t.WriteTo(until{ctx, s.tracker})
		return err
	})
	if err != nil {
		return fmt.Errorf("copy the tracker: %w", err)
	}
	if err := c.o.member.bring(ctx); err != nil { // what has come meanwhile
		return err
	}
	return s.measure()
}

// hold has removed files linger.
func (s *saving) hold() error {
	for _, name := range archive.Folders {
		if name == filepath.Base(s.dirs.Broker) && !s.info.Streams {
			continue
		}
		h, err := linger.Hold(filepath.Join(s.dirs.Root, name))
		if errors.Is(err, linger.ErrHeld) {
			return &jobs.Error{Kind: jobs.Conflict, Detail: "a backup is being made already; wait for its end"}
		}
		if err != nil {
			return err
		}
		s.held[name] = h
	}
	return nil
}

// note notes what a snapshot of the tracker has.
func (s *saving) note(t *status.Snapshot) {
	s.size, s.info.Node = t.Size, t.Node
	s.info.Jobs, s.info.Status = t.Positions.Jobs, t.Positions.Status
}

// room refuses to fill the disk with a copy of the tracker.
func (s *saving) room() error {
	free, err := Free(s.dirs.Root)
	if need := uint64(s.size) + spare; err == nil && free < need {
		return &jobs.Error{Kind: jobs.StorageFull, Detail: fmt.Sprintf(
			"a backup needs %s on the disk of the data folder, for a copy of the tracker, and %s are free; free some, or stop the server and use jobstream backup --data", mebibytes(need), mebibytes(free))}
	}
	return nil
}

// sweepBackups removes what a crash in the middle of a backup has left.
func sweepBackups(dirs Folders) error {
	left, err := filepath.Glob(filepath.Join(dirs.Root, namelessPattern))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	for _, name := range archive.Folders {
		err = errors.Join(err, linger.Sweep(filepath.Join(dirs.Root, name)))
	}
	return err
}

// measure finds out about how much is to be copied.
func (s *saving) measure() error {
	s.info.Bytes = s.size
	return s.each(func(_ string, _ *os.File, info fs.FileInfo) error {
		s.info.Bytes += info.Size()
		return nil
	})
}

// namelessPattern is the name of a file without one, in the moment when it has one.
const namelessPattern = ".backup-*.tmp"

// nameless makes a file in a folder that is gone when it is closed.
func nameless(folder string) (*os.File, error) {
	f, err := os.CreateTemp(folder, namelessPattern)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// each calls f with all files but the tracker.
func (s *saving) each(f func(name string, file *os.File, info fs.FileInfo) error) error {
	for _, name := range archive.Files {
		file, err := os.Open(filepath.Join(s.dirs.Root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		info, err := file.Stat()
		if err == nil {
			err = f(name, file, info)
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	for _, folder := range archive.Folders {
		if s.held[folder] == nil {
			continue
		}
		err := s.held[folder].Walk(func(name string, file *os.File, info fs.FileInfo) error {
			name = path.Join(folder, name)
			if err := archive.Valid(name); err != nil {
				s.log.Warn("a file is not in the backup because of its name", "file", filepath.Join(s.dirs.Root, filepath.FromSlash(name)), "which", err)
				return nil //nolint:nilerr // jobs have no such files
			}
			return f(name, file, info)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// write sends the archive.
func (s *saving) write(ctx context.Context, to io.Writer) error {
	if _, err := s.tracker.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return s.archive(ctx, to, s.tracker)
}

// archive writes an archive with this copy of the tracker.
func (s *saving) archive(ctx context.Context, to io.Writer, tracker io.WriterTo) error {
	list, err := nameless(s.dirs.Root)
	if err != nil {
		return err
	}
	defer list.Close() //nolint:errcheck // nobody needs it any more
	a, err := archive.NewWriter(until{ctx, to}, list, s.info)
	if err == nil {
		err = a.Add(archive.TrackerName, 0o640, s.info.At, s.size, tracker)
	}
	if err == nil {
		err = s.each(func(name string, file *os.File, info fs.FileInfo) error { return add(a, name, file, info) })
	}
	if err != nil {
		return err
	}
	return a.Close()
}

// small is the size of files that are read as a whole before they are written.
const small = 1 << 20

// add copies a file into the archive. A log may begin anew meanwhile, but is small. Larger
// files only grow, if they change at all.
func add(a *archive.Writer, name string, file *os.File, info fs.FileInfo) error {
	if info.Size() > small {
		return a.Add(name, info.Mode(), info.ModTime(), info.Size(), beginning{file, info.Size()})
	}
	content, err := io.ReadAll(io.LimitReader(file, small))
	if err != nil {
		return err
	}
	return a.Add(name, info.Mode(), info.ModTime(), int64(len(content)), bytes.NewReader(content))
}

// beginning is the first size bytes of a file.
type beginning struct {
	file *os.File
	size int64
}

func (b beginning) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, io.LimitReader(b.file, b.size))
}

// until is a writer up to the end of its context.
type until struct {
	ctx context.Context
	w   io.Writer
}

func (u until) Write(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.w.Write(p)
}

// close ends the backup, written or not.
func (s *saving) close() {
	var err error
	for _, h := range s.held {
		err = errors.Join(err, h.Release())
	}
	if s.tracker != nil {
		err = errors.Join(err, s.tracker.Close())
	}
	if err != nil {
		s.log.Warn("something of a backup is left in the data folder; the next start removes it", "error", err)
	}
}

// Backup writes a backup of a folder whose server does not run; while it lasts none can
// start there. After a stop that was not clean the streams have what the tracker lacks, so
// they are in it, too. The streams of a member are not: they belong to its cluster, which has
// more of them. The files in them are.
func Backup(ctx context.Context, dir, version string, to io.Writer, log *slog.Logger) (err error) {
	dirs := FoldersIn(dir)
	if _, err := os.Stat(dirs.Tracker); err != nil {
		return err
	}
	tracker, err := status.OpenStopped(dirs.Tracker, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tracker.Close()) }()
	is, err := dirs.identity()
	member := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if member {
		log.Warn("the folder is that of a member, so the backup has what this one had when it ended; one of the running cluster has everything", "node", is.Name, "cluster", is.Cluster)
		if err := bringStopped(ctx, dirs, log); err != nil {
			return err
		}
	}
	s := newSaving(dirs, version, log)
	defer s.close()
	return tracker.Snapshot(func(t *status.Snapshot) error {
		s.note(t)
		s.info.Streams = !t.Clean && !member
		if err := s.hold(); err != nil {
			return err
		}
		if err := s.measure(); err != nil {
			return err
		}
		return s.archive(ctx, to, t)
	})
}

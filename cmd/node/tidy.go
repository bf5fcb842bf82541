package node

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"strings"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
)

// How often a member tidies its files, and how old what it removes must be.
const (
	tidyEvery = 10 * time.Minute
	tidyAge   = 10 * time.Minute
	tidyRetry = time.Second // until the first time has succeeded
)

// tidier looks after the files of a member. The leader removes files of deleted jobs from
// the cluster; each node removes its own copies of them, and its logs of deleted jobs.
type tidier struct {
	m         *member
	files     *jobs.ArtifactDir
	published bool // what only this node had is with the others
	left      map[jobs.FileKey]broker.FilePart
}

// tidy is the tidier's life.
func (m *member) tidy(ctx context.Context) {
	t := &tidier{m: m, files: m.n.o.Handlers.Artifacts}
	for wait := tidyRetry; ; wait = tidyEvery {
		if !sleep(ctx, wait) {
			return
		}
		for err := t.run(ctx); err != nil; err = t.run(ctx) {
			if ctx.Err() == nil {
				m.n.log.Debug("files cannot be tidied at the moment", "error", err)
			}
			if !sleep(ctx, wait) {
				return
			}
		}
	}
}

func (t *tidier) run(ctx context.Context) error {
	if err := t.m.Current(ctx); err != nil {
		return err
	}
	if err := errors.Join(t.own(ctx), t.logs(ctx)); err != nil || !t.m.Leads() {
		t.left = nil
		return err
	}
	return t.shared(ctx)
}

// named are the files of an owner that the tracker knows; known is false if it does not
// know the owner.
func (t *tidier) named(ctx context.Context, folder string, id jobs.ID) (files []jobs.Artifact, known bool, err error) {
	if folder == jobs.InputFiles {
		file, err := t.m.store.Input(id)
		if file != nil {
			files = append(files, *file)
		}
		return files, file != nil, err
	}
	j, err := t.m.store.Job(ctx, id)
	if j != nil {
		files = j.Files()
	}
	return files, j != nil, err
}

// own looks at the files in this node's folders. The first time it gives to the cluster
// what only this node has: it was alone, or a member that kept its files for itself.
func (t *tidier) own(ctx context.Context) error {
	for folder, dir := range map[string]*jobs.ArtifactDir{jobs.JobFiles: t.files, jobs.InputFiles: t.files.Inputs()} {
		all, err := dir.IDs()
		if err != nil {
			return err
		}
		for _, id := range all {
			files, known, err := t.named(ctx, folder, id)
			switch {
			case err != nil:
				return err
			case !known:
				err = dir.Evict(id, tidyAge)
			case !t.published:
				for k := range files {
					err = errors.Join(err, dir.Publish(id, &files[k]))
				}
			}
			if err != nil {
				return err
			}
		}
	}
	t.published = true
	return nil
}

// logs removes this node's logs of deleted jobs.
func (t *tidier) logs(ctx context.Context) error {
	entries, err := os.ReadDir(t.m.n.dirs.Logs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), ".")
		id, bad := jobs.ParseID(name)
		info, gone := e.Info()
		if bad != nil || gone != nil || time.Since(info.ModTime()) < tidyAge {
			continue
		}
		j, failed := t.m.store.Job(ctx, id)
		if failed == nil && j == nil {
			_, failed = t.m.logs.Remove(id)
		}
		err = errors.Join(err, failed)
	}
	return err
}

// shared removes from the cluster what belongs to nobody: what an upload left half done, and
// what is left of a deleted job. It goes when it is found twice unchanged, since uploads may
// be under way.
func (t *tidier) shared(ctx context.Context) error {
	all, err := t.m.broker.Files.All() //nolint:contextcheck // each request has its own deadline
	if err != nil {
		return err
	}
	for f, part := range all {
		known := false
		if part.Whole {
			if _, known, err = t.named(ctx, f.Folder, f.Owner); err != nil {
				return err
			}
		}
		if known {
			delete(all, f)
		}
	}
	maps.DeleteFunc(t.left, func(f jobs.FileKey, part broker.FilePart) bool { return all[f] != part })
	for f := range t.left {
		if err := t.m.broker.Files.Remove(f); err != nil { //nolint:contextcheck // each request has its own deadline
			return err
		}
		delete(all, f)
	}
	t.left = all
	return nil
}

// bring gets all files of the cluster into this node's folders, for a backup. A node that is
// alone has them there.
func (m *member) bring(ctx context.Context) error {
	if m == nil {
		return nil
	}
	return bring(ctx, m.broker.Files, m.n.o.Handlers.Artifacts)
}

// bringStopped is bring for a member that does not run. Its copy of the stream is read.
func bringStopped(ctx context.Context, f Folders, log *slog.Logger) (err error) {
	stopped, err := broker.OpenStoppedFiles(ctx, f.Broker, log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has had none, or its streams are set aside already
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopped.Close()) }()
	dir := jobs.NewArtifactDir(f.Artifacts, 0)
	dir.Share(stopped.Files)
	return bring(ctx, stopped.Files, dir)
}

func bring(ctx context.Context, from *broker.Files, to *jobs.ArtifactDir) error {
	all, err := from.All() //nolint:contextcheck // each request has its own deadline
	if err != nil {
		return err
	}
	for f, part := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !part.Whole {
			continue
		}
		dir := to
		if f.Folder == jobs.InputFiles {
			dir = to.Inputs()
		}
		if err := dir.Bring(f.Owner, f.Sum); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

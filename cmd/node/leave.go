package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"jobstream/jobs/fsync"
	"jobstream/status"
)

// Leave makes the data folder of a member that does not run that of a server that is alone,
// with all that the member's tracker has, and the files of its jobs. The streams of the
// cluster are set aside, in the folder that it returns; "" if there were none. They are made
// anew from the tracker by the next start. It is an error if the folder belongs to no
// cluster, or lacks a file of a job, unless lossy. Then nothing is changed.
func Leave(ctx context.Context, dir string, lossy bool, log *slog.Logger) (to string, err error) {
	f := FoldersIn(dir)
	switch _, err := f.identity(); {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%s belongs to no cluster", dir)
	case err != nil:
		return "", err
	}
	tracker, err := status.OpenStopped(f.Tracker, log) // nobody else works in the folder
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, tracker.Close()) }()
	if err := bringStopped(ctx, f, log); err != nil {
		return "", err
	}
	if !lossy {
		if err := f.complete(ctx, tracker); err != nil {
			return "", err
		}
	}
	if to, err = f.setAside(asideOfMember); err != nil {
		return "", err
	}
	// The last step. Until then it is a member without streams, which leaves again.
	return to, errors.Join(os.Remove(filepath.Join(f.Root, identityFile)), fsync.Dir(f.Root))
}

// ErrFilesMissing says that files of jobs are not in a folder.
var ErrFilesMissing = errors.New("files of jobs are missing")

// complete is an error if the folder lacks a file that a job of the tracker has.
func (f Folders) complete(ctx context.Context, tracker *status.Stopped) error {
	d := &doctor{tracker: tracker, dirs: f}
	if _, err := tracker.Inspect(ctx, false, d.see); err != nil || len(d.lost) == 0 {
		return err
	}
	return fmt.Errorf("%w in %s: %d of them, as that of job %s, which would be %s", ErrFilesMissing, f.Root, len(d.lost), d.lost[0].job, d.lost[0].path)
}

package node

import (
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
// with all that the member's tracker has. The streams of the cluster are set aside, in the
// folder that it returns; "" if there were none. They are made anew from the tracker by the
// next start. A folder that belongs to no cluster is an error.
func Leave(dir string, log *slog.Logger) (to string, err error) {
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
	if to, err = f.setAside(asideOfMember); err != nil {
		return "", err
	}
	// The last step. Until then it is a member without streams, which leaves again.
	return to, errors.Join(os.Remove(filepath.Join(f.Root, identityFile)), fsync.Dir(f.Root))
}

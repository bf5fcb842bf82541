package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"jobstream/jobs/fsync"
	"jobstream/jobs/replica"
)

// The folders of streams that a cluster, a server that is alone, or a member whose copies
// stray has no use for begin their names so. A time stands behind it.
const (
	aside         = "broker-alone-"
	asideOfMember = "broker-cluster-"
	asideStray    = "broker-stray-"
	asideTime     = "20060102T150405.000"
)

// bootstrap makes the data folder of a server that was alone that of the first member. The
// tracker is the truth: it gets a place from which a log can begin, and the member that
// leads publishes what it has. The streams are set aside, as a cluster would delete them.
// The last step gives the folder away. Until then all of it is done again at each start, and
// a server that is alone can use the folder as well. The tracker's lock keeps others out.
func (m *member) bootstrap() error {
	f, is := m.n.dirs, m.n.o.identity()
	path := f.identityPath()
	if _, err := os.Stat(path); !is.Bootstrap || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, _, _, err := m.store.RemoveClean("")
	if err := errors.Join(err, m.store.ForgetNodes()); err != nil {
		return err
	}
	if err := m.tracker.Apply(nil, replica.Base(m.tracker.Position())); err != nil {
		return err
	}
	to, err := f.setAside(aside)
	if err != nil {
		return fmt.Errorf("broker.cluster.bootstrap: %w", err)
	}
	if to != "" {
		m.n.log.Info("the streams of the server that was alone are set aside; remove them when the cluster has all its jobs", "folder", to)
	}
	return is.write(path)
}

// setAside gives the folder of the streams another name, which begins with prefix, and
// returns its path; "" if there is none.
func (f Folders) setAside(prefix string) (to string, err error) {
	to = filepath.Join(f.Root, prefix+time.Now().UTC().Format(asideTime))
	switch err := os.Rename(f.Broker, to); {
	case errors.Is(err, fs.ErrNotExist):
		to = ""
	case err != nil:
		return "", fmt.Errorf("the streams cannot be set aside: %w", err)
	}
	return to, fsync.Dir(f.Root)
}

// sweepStray removes the streams of a member that were set aside before a moment. It fails if
// any were later.
func (f Folders) sweepStray(before time.Time) error {
	all, err := filepath.Glob(filepath.Join(f.Root, asideStray+"*"))
	if err != nil {
		return err
	}
	for _, dir := range all {
		if filepath.Base(dir) >= asideStray+before.UTC().Format(asideTime) {
			return fmt.Errorf("they were set aside in %s only now", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Folders are the places in the data folder.
type Folders struct{ Root, Broker, Tracker, Artifacts, Outbox, Logs, Work, Figures string }

// FoldersIn are the places in a data folder.
func FoldersIn(root string) Folders {
	return Folders{
		Root: root, Broker: filepath.Join(root, "broker"), Tracker: filepath.Join(root, "status.db"),
		Artifacts: filepath.Join(root, "artifacts"), Outbox: filepath.Join(root, "outbox"),
		Logs: filepath.Join(root, "logs"), Work: filepath.Join(root, "work"),
		Figures: filepath.Join(root, "figures.log"),
	}
}

// Whole returns an error if a restore into the folder did not come to its end.
func (f Folders) Whole() error {
	unfinished := filepath.Join(f.Root, restoring)
	if _, err := os.Lstat(unfinished); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("data.dir: a restore into %s has not come to its end, so %s may lack anything; wait for it if it still runs, else empty the folder and restore again", f.Root, f.Root), err)
	}
	return nil
}

// Make makes the data folder if need be. It fails if a file is in the way of one of its
// folders.
func (f Folders) Make() error {
	if info, err := os.Stat(f.Root); err == nil && !info.IsDir() {
		return fmt.Errorf("data.dir: %s is not a folder; move it away, or choose another place", f.Root)
	}
	if err := os.MkdirAll(f.Root, 0o750); err != nil {
		return fmt.Errorf("data.dir: the folder %s cannot be made: %w", f.Root, err)
	}
	probe, err := os.CreateTemp(f.Root, ".probe-*")
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("data.dir: no file can be made in %s: %w", f.Root, err)
	}
	if err == nil { // any other error comes again, where it can be explained
		_, _ = probe.Close(), os.Remove(probe.Name())
	}
	if err := f.Whole(); err != nil {
		return err
	}
	for _, dir := range []string{f.Broker, f.Artifacts, f.Outbox, f.Logs, f.Work} {
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			return fmt.Errorf("data.dir: %s is not a folder, but should be one; move it away", dir)
		}
	}
	return nil
}

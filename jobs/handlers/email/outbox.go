package email

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/fsync"
	"jobstream/jobs/linger"
)

func mailPath(outbox string, id jobs.ID) string {
	return filepath.Join(outbox, id.String()+".eml")
}

// writeMail puts a message into the outbox and returns its path. The write is durable
// and atomic. A job that runs again replaces its mail.
func writeMail(outbox string, id jobs.ID, content []byte) (string, error) {
	if err := makeDir(outbox); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(outbox, "."+id.String()+"-*.tmp")
	if err != nil {
		return "", err
	}
	path := mailPath(outbox, id)
	if err := finish(f, content, path); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return path, fsync.Dir(outbox)
}

// finish writes, syncs and closes f, and gives it its final name.
func finish(f *os.File, content []byte, path string) error {
	_, err := f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// makeDir creates the folder if need be, durably: a power cut would take a new folder
// away with everything in it.
func makeDir(dir string) error {
	switch _, err := os.Stat(dir); {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return fsync.Dir(filepath.Dir(dir))
}

// RemoveMail deletes the mail that a job left in the outbox folder and returns
// its size in bytes, 0 if there is none.
func RemoveMail(outbox string, id jobs.ID) (int64, error) {
	path := mailPath(outbox, id)
	info, err := os.Lstat(path)
	if err == nil {
		err = linger.Remove(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("removing a mail from the outbox: %w", err)
	}
	return info.Size(), nil
}

// SweepOutbox removes half-written mails that a crash left in the folder. The folder
// need not exist. Call it before any job runs.
func SweepOutbox(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp") {
			err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
		}
	}
	if err != nil {
		return fmt.Errorf("sweeping the outbox: %w", err)
	}
	return nil
}

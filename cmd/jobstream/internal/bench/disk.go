package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// diskUsage is the space of the files in a folder on disk. It ignores files that
// disappear meanwhile.
func diskUsage(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = entry.Info(); err == nil {
				sum += allocated(info)
			}
		}
		if errors.Is(err, fs.ErrNotExist) && path != dir {
			return nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("cannot measure the folder: %w", err)
	}
	return sum, nil
}

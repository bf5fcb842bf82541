// Package fsync makes files and their names durable: [Dir] those of one folder, [Tree] all
// below one. Start reading at [Dir].
package fsync

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Dir makes the names in a folder durable.
func Dir(dir string) error { return sync(dir) }

// Tree makes all files and names below a folder durable.
func Tree(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && !d.Type().IsRegular() {
			return nil
		}
		return sync(path)
	})
}

func sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

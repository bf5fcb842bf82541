// Package fsync makes files and their names durable: [Dir] those of one folder, [Tree] all
// below one. [Write] replaces a file. Start reading at [Dir].
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

// Write makes data the content of a file, durably and as a whole: after a crash the file has
// its old content or the new one. Only its owner may read it.
func Write(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-*") // its mode is 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return Dir(filepath.Dir(path))
}

func sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

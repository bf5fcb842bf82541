package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// bootID identifies the present run of the operating system; "" if file does not say, as
// anywhere but on Linux.
func bootID(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// SyncTree brings all files and names below a folder to disk.
func SyncTree(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && !d.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

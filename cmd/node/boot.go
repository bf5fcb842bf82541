package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// BootFile has a new text in it after every start of the operating system. A
// variable, so that tests can act as if there had been one.
var BootFile = "/proc/sys/kernel/random/boot_id"

// bootID identifies the present run of the operating system; "" if it does not
// say (anywhere but on Linux).
func bootID() string {
	b, err := os.ReadFile(BootFile)
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

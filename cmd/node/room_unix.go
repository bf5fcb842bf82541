//go:build linux || darwin || freebsd

package node

import (
	"errors"
	"syscall"
)

// Free is the space that the disk of a folder has left for this process, in bytes.
func Free(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	if s.Blocks == 0 { // some file systems do not say
		return 0, errors.ErrUnsupported
	}
	return uint64(max(s.Bavail, 0)) * uint64(s.Bsize), nil //nolint:unconvert,gosec // the types differ by system
}

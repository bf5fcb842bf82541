package boltfile

import (
	"fmt"
	"os"
	"syscall"
)

// identity distinguishes a file from others and from itself before a change. It also
// returns the moment of its last change. ok is false if the system does not know.
func identity(info os.FileInfo) (text string, changed int64, ok bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", 0, false
	}
	changed = s.Ctim.Nano()
	return fmt.Sprintf("inode %d size %d changed %d", s.Ino, s.Size, changed), changed, true
}

package boltfile

import (
	"fmt"
	"os"
	"syscall"
)

// identity tells a file from others and from itself before a change, and says when it
// was changed last. ok is false where the system does not tell.
func identity(info os.FileInfo) (text string, changed int64, ok bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", 0, false
	}
	changed = s.Ctim.Nano()
	return fmt.Sprintf("inode %d size %d changed %d", s.Ino, s.Size, changed), changed, true
}

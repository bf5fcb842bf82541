package journal

import (
	"os"
	"syscall"
)

// syncData brings a file's content to disk, and of its metadata what is needed to
// read it.
func syncData(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }

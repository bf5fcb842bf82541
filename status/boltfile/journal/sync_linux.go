package journal

import (
	"os"
	"syscall"
)

// syncData brings a file's content to disk, with the metadata that are needed to read
// it.
func syncData(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }

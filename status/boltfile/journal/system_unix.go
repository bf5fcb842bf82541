//go:build unix && !solaris && !illumos && !aix && !android

package journal

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// supported says whether journals can be used on this system.
const supported = true

// lockRetry is the wait between tries of a lock, as in bbolt.
const lockRetry = 50 * time.Millisecond

// lock takes the lock that bbolt holds on an open file. It ends when the file is
// closed.
func lock(f *os.File, timeout time.Duration) error {
	for end := time.Now().Add(timeout); ; time.Sleep(lockRetry) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if time.Now().Add(lockRetry).After(end) {
			return errLocked
		}
	}
}

//go:build !unix || solaris || illumos || aix || android

package journal

import (
	"errors"
	"os"
	"time"
)

// supported says whether journals can be used on this system. bbolt's lock is a
// different one here.
const supported = false

func lock(*os.File, time.Duration) error {
	return errors.New("a journal of another system cannot be read here; start jobstream there once")
}

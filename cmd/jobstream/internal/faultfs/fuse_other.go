//go:build !linux

package faultfs

import "errors"

// Mount needs Linux.
func Mount(*Disk, string) (unmount func() error, err error) {
	return nil, errors.New("mounting a disk for tests is not done on this operating system")
}

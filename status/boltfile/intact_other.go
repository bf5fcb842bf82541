//go:build !linux

package boltfile

import "os"

// identity is unknown here: every start walks over the file.
func identity(os.FileInfo) (text string, changed int64, ok bool) { return "", 0, false }

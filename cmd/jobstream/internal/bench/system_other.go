//go:build !linux

package bench

import (
	"io/fs"
	"runtime"
	"time"
)

// residentBytes is the memory that the Go runtime has from the system and has not
// returned.
func residentBytes() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}

// allocated is the size of a file.
func allocated(info fs.FileInfo) int64 { return info.Size() }

// cpuTime is known on Linux only.
func cpuTime() time.Duration { return 0 }

// inMemory is known on Linux only.
func inMemory(string) bool { return false }

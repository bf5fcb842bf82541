// Package faultfs is a disk for tests that forgets, when its power is cut, what
// was not fsynced.
//
// Where to start: [Disk] (disk.go) is the model, plain Go: what processes see,
// and beside it what would be left after a cut. fuse.go mounts it, where the
// machine can do that. A test mounts a disk, lets a server in another process
// work on it, calls [Disk.Cut], kills the server, unmounts, and mounts what
// [Disk.Restart] says is left.
package faultfs

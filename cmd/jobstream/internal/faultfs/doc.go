// Package faultfs is a disk for tests that forgets unsynced data when its power is cut.
//
// Where to start: [Disk] (disk.go) is the model, in plain Go. It has the content that
// processes see, and the content that a cut would leave. fuse.go mounts it, if the
// machine can do that. A test mounts a disk and lets a server in another process work
// on it. It calls [Disk.Cut], kills the server, unmounts, and mounts the result of
// [Disk.Restart].
package faultfs

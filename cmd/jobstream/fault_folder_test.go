//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// loopDisk is a small ext4 file system in a file.
type loopDisk struct {
	t           *testing.T
	image, data string
}

// onLoop gives a folder whose data folder is on a disk of its own.
func onLoop(t *testing.T) (dir string, l *loopDisk) {
	t.Helper()
	dir = t.TempDir()
	l = &loopDisk{t: t, image: filepath.Join(dir, "image"), data: filepath.Join(dir, "data")}
	mustDo(t, os.Mkdir(l.data, 0o750))
	mustDo(t, os.WriteFile(l.image, nil, 0o600))
	mustDo(t, os.Truncate(l.image, 192<<20))
	l.tool("mkfs.ext4", "-q", "-F", l.image)
	l.mount()
	t.Cleanup(func() { _ = syscall.Unmount(l.data, syscall.MNT_DETACH) })
	return dir, l
}

// tool runs a program that may be missing or not allowed.
func (l *loopDisk) tool(name string, args ...string) {
	l.t.Helper()
	out, err := exec.CommandContext(l.t.Context(), name, args...).CombinedOutput()
	if err != nil {
		l.t.Skipf("NOT TESTED, %s: %s %s: %v: %s", l.t.Name(), name, strings.Join(args, " "), err, out)
	}
}

func (l *loopDisk) mount() {
	l.t.Helper()
	l.tool("mount", "-t", "ext4", "-o", "loop,errors=remount-ro", l.image, l.data)
}

func (l *loopDisk) unmount() {
	l.t.Helper()
	mustDo(l.t, syscall.Unmount(l.data, 0))
}

// fail makes the file system find an error in itself, and so read-only.
func (l *loopDisk) fail() {
	l.t.Helper()
	mounts, err := os.ReadFile("/proc/mounts")
	mustDo(l.t, err)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[1] == l.data {
			if err := os.WriteFile("/sys/fs/ext4/"+filepath.Base(f[0])+"/trigger_fs_error", []byte("test"), 0); err != nil {
				l.t.Skipf("NOT TESTED, %s: %v", l.t.Name(), err)
			}
		}
	}
}

// TestCrashReadOnly has a data folder that cannot be written to, from the start
// and suddenly.
func TestCrashReadOnly(t *testing.T) {
	t.Parallel()
	inCI(t)
	rng := seeded(t)
	dir, disk := onLoop(t)
	disk.tool("mount", "-o", "remount,ro", disk.data)
	refuses(t, dir, disk.data, "read-only")
	disk.tool("mount", "-o", "remount,rw", disk.data)
	promised := &acked{}
	c := startChild(t, dir)
	under(t, c, rng.Uint64(), promised, func() {
		disk.fail()
		unready(t, c, "make the folder writable")
	})
	terminate(t, c)
	refuses(t, dir, disk.data, "read-only")
	disk.unmount()
	_ = exec.CommandContext(t.Context(), "fsck.ext4", "-y", disk.image).Run() // says by its exit code what it found
	disk.mount()
	c = startChild(t, dir)
	missing(t, c, promised, true, 0) // what was not fsynced is gone
	finish(t, c, dir, promised)
	terminate(t, c)
}

// chattr makes files immutable, or ends that.
func (l *loopDisk) chattr(how, pattern string) {
	l.t.Helper()
	files, err := filepath.Glob(filepath.Join(l.data, pattern))
	mustDo(l.t, err)
	if len(files) == 0 {
		l.t.Fatalf("no file is called %s", pattern)
	}
	l.tool("chattr", append([]string{how}, files...)...)
}

// TestCrashStreamUnwritable takes the right to write away from one stream after the
// other. The server says so, and goes on by itself once it has it again.
func TestCrashStreamUnwritable(t *testing.T) {
	t.Parallel()
	inCI(t)
	rng := seeded(t)
	dir, disk := onLoop(t)
	promised := &acked{}
	c := startChild(t, dir)
	for _, stream := range []string{"JOBS", "STATUS", "NOTIFICATIONS"} {
		t.Run(stream, func(t *testing.T) {
			disk.t = t
			blocks := "broker/jetstream/*/streams/" + stream + "/msgs/*.blk"
			under(t, c, rng.Uint64(), promised, func() {
				disk.chattr("+i", blocks)
				defer disk.chattr("-i", blocks)
				unready(t, c, "make the folder writable")
			})
			healed(t, c, promised)
		})
	}
	disk.t = t
	finish(t, c, dir, promised)
	terminate(t, c)
}

// TestCrashTrackerUnwritable takes the right to write away from the tracker: the
// server says so, and goes on by itself once it has it again.
func TestCrashTrackerUnwritable(t *testing.T) {
	t.Parallel()
	inCI(t)
	rng := seeded(t)
	dir, disk := onLoop(t)
	promised := &acked{}
	c := startChild(t, dir)
	for range 2 {
		under(t, c, rng.Uint64(), promised, func() {
			disk.chattr("+i", "status.db")
			unready(t, c, "status.db", "not permitted")
			disk.chattr("-i", "status.db")
			wait(t, "it is ready again", func() answer { return ask(t, "GET", c.rest+"/readyz", "") }, func(a answer) bool { return a.code == 200 })
			after := promised.count.Load() + 100
			waitUntil(t, func() bool { return promised.count.Load() >= after })
		})
		missingAccepted(t, c, promised)
	}
	finish(t, c, dir, promised)
	terminate(t, c)
}

// TestCrashFolderMoved moves the data folder away while the server runs. The server
// accepts nothing, begins nothing anew, and goes on by itself when the folder is back.
func TestCrashFolderMoved(t *testing.T) {
	t.Parallel()
	inCI(t)
	rng := seeded(t)
	dir := t.TempDir()
	data, away := filepath.Join(dir, "data"), filepath.Join(dir, "away")
	promised := &acked{}
	c := startChild(t, dir)
	for range 2 {
		under(t, c, rng.Uint64(), promised, func() {
			mustDo(t, os.Rename(data, away))
			unready(t, c, "put the data folder back")
		})
		mustDo(t, os.Rename(away, data))
		healed(t, c, promised)
	}
	under(t, c, rng.Uint64(), promised, func() {})
	finish(t, c, dir, promised)
	terminate(t, c)
}

// TestCrashFolderRemoved removes the data folder while the server runs. Its content is
// lost, but the server says so and accepts nothing more. The next start begins anew.
func TestCrashFolderRemoved(t *testing.T) {
	t.Parallel()
	inCI(t)
	rng := seeded(t)
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	c := startChild(t, dir)
	under(t, c, rng.Uint64(), &acked{}, func() {
		mustDo(t, os.RemoveAll(data))
		unready(t, c, "restart")
	})
	terminate(t, c)
	mustDo(t, os.RemoveAll(data))
	c = startChild(t, dir)
	promised := &acked{}
	under(t, c, rng.Uint64(), promised, func() {})
	finish(t, c, dir, promised)
	terminate(t, c)
}

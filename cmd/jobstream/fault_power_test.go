package main

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/faultfs"
)

// seeded returns the seed of a test with chance in it, and says it.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("JOBSTREAM_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		mustDo(t, err)
	}
	t.Logf("seed %d (JOBSTREAM_SEED)", seed)
	return rand.New(rand.NewPCG(seed, 99))
}

// TestCrashPowerCut cuts the power of the disk under load. Unsynced data are lost, or
// partly lost, or only names are lost: the seed decides. Every job that was
// acknowledged with a 202 or by the service is there after the start, and ends
// properly.
func TestCrashPowerCut(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	mustDo(t, os.Mkdir(data, 0o750))
	disk := faultfs.New(faultfs.Strict)
	unmount, err := faultfs.Mount(disk, data)
	if err != nil {
		t.Skipf("NOT TESTED, a power cut: %v", err)
	}
	t.Cleanup(func() { _ = unmount() })
	boot := filepath.Join(dir, "boot")
	promised := &acked{}
	fresh := 0
	for round := range rounds(t, 3) {
		mustDo(t, os.WriteFile(boot, []byte(strconv.Itoa(round)), 0o600)) // a power cut ends the operating system, too
		c := startChild(t, dir, childBootFile+"="+boot)
		missing(t, c, promised, true, fresh)
		checkParked(t, c, promised)
		fresh = len(promised.jobs)
		ctx, cancel := context.WithCancel(t.Context())
		loaded := make(chan struct{})
		loadSeed := rng.Uint64()
		go func() { loadAll(ctx, c, loadSeed, promised); close(loaded) }()
		after := promised.count.Load() + int64(50+rng.IntN(800))
		waitUntil(t, func() bool { return promised.count.Load() >= after })
		how := "at a random moment"
		if rng.IntN(2) == 0 {
			how = "instead of an fsync"
			disk.CutAtSync(1 + rng.Int64N(40))
			<-disk.Off()
		}
		disk.Cut()
		_ = c.cmd.Process.Signal(syscall.SIGKILL) // it is gone once what hangs in the disk has ended
		names, torn := faultfs.Names(rng.IntN(2)), rng
		if rng.IntN(2) == 0 {
			torn = nil
		}
		syncs := disk.Syncs()
		disk = disk.Restart(names, torn)
		<-c.done
		cancel()
		<-loaded
		mustDo(t, unmount())
		unmount, err = faultfs.Mount(disk, data)
		mustDo(t, err)
		t.Logf("round %d: %d promised so far, %d fsyncs; power cut %s, torn: %v, next with journal: %v",
			round, promised.count.Load(), syncs, how, torn != nil, names == faultfs.Journal)
	}
	mustDo(t, os.WriteFile(boot, []byte("last"), 0o600))
	c := startChild(t, dir, childBootFile+"="+boot)
	missing(t, c, promised, true, fresh)
	verifyAll(t, c, dir, promised)
	mustDo(t, c.cmd.Process.Signal(syscall.SIGTERM))
	if err := <-c.done; err != nil {
		t.Errorf("the last stop was not clean: %v\n%s", err, c.logged())
	}
	if _, err := os.Stat(filepath.Join(data, "broker", "broken")); !errors.Is(err, fs.ErrNotExist) {
		t.Logf("streams were set aside: %v", err)
	}
}

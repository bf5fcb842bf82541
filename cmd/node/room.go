package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"jobstream/jobs"
)

// room is the space left on the disks of the data folder. While there is too little,
// nothing new is admitted; what is in the queue runs, ends and is notified. So the disk
// does not get full by what comes in. All methods may be called from any goroutine.
type room struct {
	dirs  []string // one for each disk that there may be
	least uint64   // bytes; 0 = no bound
	log   *slog.Logger
	short atomic.Pointer[jobs.Error] // why there is too little; nil: there is enough

	looking sync.Mutex // guards unknown
	unknown bool       // it has been logged that the space cannot be found out
}

// roomRetryAfter is when a refused client should try again.
const roomRetryAfter = 10 * time.Second

func newRoom(dirs Folders, least int64, log *slog.Logger) *room {
	r := &room{dirs: []string{dirs.Root, dirs.Broker, dirs.Artifacts, dirs.Logs, dirs.Outbox}, least: uint64(max(least, 0)), log: log}
	_ = r.look()
	return r
}

// now is nil, or the reason why there was too little at the last look.
func (r *room) now() error {
	if e := r.short.Load(); e != nil {
		return e
	}
	return nil
}

// reason is the text of now, without what changes all the time; "" if there is enough.
func (r *room) reason() string {
	if r.short.Load() == nil {
		return ""
	}
	return "the disk is nearly full (data.min_free); nothing new is taken until it has room"
}

// look looks at the disks and returns what now does from then on. There is enough again
// when there is an eighth more than the least.
func (r *room) look() error {
	if r.least == 0 {
		return nil
	}
	r.looking.Lock()
	defer r.looking.Unlock()
	dir, free, err := leastFree(r.dirs)
	if err != nil {
		if !r.unknown {
			r.log.Warn("the free space of the disk cannot be found out, so data.min_free has no effect", "error", err)
		}
		r.unknown = true
		r.short.Store(nil)
		return nil
	}
	r.unknown = false
	enough, was := r.least, r.short.Load()
	if was != nil {
		enough += r.least / 8
	}
	if free >= enough {
		if was != nil {
			r.log.Info("the disk has room again; jobs are taken", "disk of", dir, "free", mebibytes(free))
		}
		r.short.Store(nil)
		return nil
	}
	e := &jobs.Error{Kind: jobs.Unavailable, RetryAfter: roomRetryAfter, Detail: fmt.Sprintf(
		"the disk of %s has %d bytes (%s) free, less than data.min_free (%s): nothing new is taken until it has %s; free disk space, delete old jobs, or lower data.min_free",
		dir, free, mebibytes(free), mebibytes(r.least), mebibytes(r.least+r.least/8))}
	r.short.Store(e)
	if was == nil {
		r.log.Error("the disk is nearly full; new jobs and uploads are refused, running ones go on. Free disk space, or lower data.min_free",
			"disk of", dir, "free", mebibytes(free), "data.min_free", mebibytes(r.least))
	}
	return e
}

// mebibytes is a size for people.
func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// leastFree is the folder whose disk has the fewest bytes free. Missing folders do not
// count.
func leastFree(dirs []string) (dir string, free uint64, err error) {
	for _, d := range dirs {
		n, err := Free(d)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", 0, fmt.Errorf("%s: %w", d, err)
		}
		if dir == "" || n < free {
			dir, free = d, n
		}
	}
	if dir == "" {
		return "", 0, fmt.Errorf("%s: %w", dirs[0], fs.ErrNotExist)
	}
	if full, err := filepath.Abs(dir); err == nil {
		dir = full
	}
	return dir, free, nil
}

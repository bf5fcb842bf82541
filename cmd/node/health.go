package node

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"jobstream/broker"
	"jobstream/status"
)

// health knows whether jobs can be admitted, and whether that needs another start. One
// goroutine runs watch; the other methods may be called from any.
type health struct {
	store *status.Store
	dirs  Folders
	room  *room
	log   *slog.Logger
	sick  atomic.Pointer[error] // the result of the last checks of the broker; nil: it is well
	stuck chan error            // gets the reason for another start, once that can help
}

func newHealth(store *status.Store, dirs Folders, room *room, log *slog.Logger) *health {
	return &health{store: store, dirs: dirs, room: room, log: log, stuck: make(chan error, 1)}
}

// Health checks of the broker cost some hundred microseconds, so submissions use the
// result of the last one.
const healthEvery = 250 * time.Millisecond

// watch checks the broker, the disk, and that the tracker's file exists, until ctx ends. It needs
// two bad results in a row, because a busy machine makes a check time out.
func (h *health) watch(ctx context.Context, b *broker.Broker) error {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	bad := 0
	var probed time.Time
	refused := ""
	for {
		_ = h.room.look()
		if why := h.room.reason(); why != refused {
			if err := b.RefuseBare(why); err != nil {
				h.log.Error("bare messages cannot be refused", "error", err)
			}
			refused = why
		}
		err := h.store.Present()
		if err == nil {
			err = b.Healthy()
		}
		// After a write error JetStream loses, at its stop, some of the messages that
		// it acknowledged before.
		h.store.KeepOutbox(err != nil)
		if err == nil {
			if h.sick.Swap(nil) != nil {
				h.log.Info("jobs are taken again")
			}
			bad = 0
		} else if bad++; bad >= 2 {
			if h.sick.Swap(&err) == nil {
				h.log.Error("no jobs can be taken; submissions are refused until they can", "error", err)
			}
			if errors.Is(err, broker.ErrStuck) && time.Since(probed) >= probeEvery {
				h.probe(err)
				probed = time.Now()
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// now is nil, or the reason why no job can be admitted.
func (h *health) now() error {
	if err := h.store.Health(); err != nil {
		return err
	}
	return h.broker()
}

// broker is nil, or the problem with the broker.
func (h *health) broker() error {
	if p := h.sick.Load(); p != nil {
		return *p
	}
	return nil
}

// Check is the health by part; see httpapi.Health.
func (h *health) Check(context.Context) map[string]error {
	checks := map[string]error{"tracker": h.store.Health(), "broker": h.broker()}
	if h.room.least > 0 {
		checks["disk"] = h.room.now()
	}
	return checks
}

// probeEvery is how often a stuck node checks whether a new start could help.
const probeEvery = time.Second

// probe asks for a new start if the folder can be written to. The tracker must be able
// to write as well: it folds everything that the streams have acknowledged, before they
// are closed.
func (h *health) probe(why error) {
	if h.store.Health() != nil || writable(h.dirs.Root) != nil || openable(h.dirs.Broker) != nil {
		return
	}
	select {
	case h.stuck <- why:
	default: // somebody has asked already
	}
}

// The size and the number of files of a probe.
const (
	probeSize  = 1 << 20
	probeFiles = 32
)

// writable is nil if a folder takes a new file, has room, and the process may open some
// more files.
func writable(dir string) (err error) {
	name := filepath.Join(dir, ".writable")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	opened := []*os.File{f}
	defer func() {
		for _, f := range opened {
			err = errors.Join(err, f.Close())
		}
		err = errors.Join(err, os.Remove(name))
	}()
	if _, err := f.Write(make([]byte, probeSize)); err != nil {
		return err
	}
	for range probeFiles {
		more, err := os.Open(name)
		if err != nil {
			return err
		}
		opened = append(opened, more)
	}
	return f.Sync()
}

// openable is nil if all files below a folder can be opened for writing. The folder may
// be missing.
func openable(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it will be made, or was just deleted
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

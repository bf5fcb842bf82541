package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"jobstream/broker"
)

// Health checks of the broker cost some hundred microseconds, so submissions go
// by the last one.
const healthEvery = 250 * time.Millisecond

// watchHealth checks the broker, and that the tracker's file is still there, all
// the time. One bad answer is not believed at
// once: a busy machine makes a check time out.
func (n *Core) watchHealth(ctx context.Context) error {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	bad := 0
	var probed time.Time
	for {
		err := n.Store.Present()
		if err == nil {
			err = n.Broker.Healthy()
		}
		// After a write error JetStream forgets, at its stop, some of what it
		// acknowledged before.
		n.Store.KeepOutbox(err != nil)
		if err == nil {
			if n.brokerSick.Swap(nil) != nil {
				n.log.Info("jobs are taken again")
			}
			bad = 0
		} else if bad++; bad >= 2 {
			if n.brokerSick.Swap(&err) == nil {
				n.log.Error("no jobs can be taken; submissions are refused until they can", "error", err)
			}
			if errors.Is(err, broker.ErrStuck) && time.Since(probed) >= probeEvery {
				n.probe(err)
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

// healthy is nil, or why nothing can be taken.
func (n *Core) healthy() error {
	if err := n.Store.Health(); err != nil {
		return err
	}
	return n.brokerHealth()
}

func (n *Core) brokerHealth() error {
	if p := n.brokerSick.Load(); p != nil {
		return *p
	}
	return nil
}

// Check is the health by part; see httpapi.Health.
func (n *Core) Check(context.Context) map[string]error {
	return map[string]error{"tracker": n.Store.Health(), "broker": n.brokerHealth()}
}

// probeEvery is how often a node that is stuck looks whether a new start could help.
const probeEvery = time.Second

// probe asks for a new start if the folder can be written to. The tracker, which writes
// to the same disk, must be able to: it takes in what the streams have acknowledged
// before they are closed.
func (n *Core) probe(why error) {
	if n.Store.Health() != nil || writable(n.o.Dirs.Root) != nil || openable(n.o.Dirs.Broker) != nil {
		return
	}
	select {
	case n.Mend <- why:
	default: // that has been said
	}
}

// What must be possible before a new start is tried.
const (
	probeSize  = 1 << 20
	probeFiles = 32
)

// writable says whether a folder takes a file, has room, and the process may open some
// more.
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

// openable says whether all files below a folder, if there is one, can be opened to write.
func openable(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it is made anew, or was just deleted
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

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"time"
)

// lookEvery is how often watched files are looked at. A change is taken up once two looks
// have found the same: it may be in the middle of being written.
const lookEvery = 250 * time.Millisecond

// watched are files that are used again whenever one of them has changed.
type watched struct {
	names []string
	used  [sha256.Size]byte // of what was in them
}

// watch remembers what is in the files. Read them for use after that, so that no change
// is missed.
func watch(names ...string) *watched {
	w := &watched{names: names}
	w.used = w.look()
	return w
}

// look hashes the content of all files. A file that is not there has none.
func (w *watched) look() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, name := range w.names {
		data, _ := os.ReadFile(name)
		_, _ = fmt.Fprintf(h, "%d:%s", len(data), data) // a hash takes everything
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// follow calls changed after every change of the files, until ctx ends.
func (w *watched) follow(ctx context.Context, changed func()) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := w.used
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := w.look()
		settled := now == last
		last = now
		if settled && now != w.used {
			w.used = now
			changed()
		}
	}
}

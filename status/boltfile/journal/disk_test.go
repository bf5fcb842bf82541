package journal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
)

// sector is what a disk writes whole or not at all.
const sector = 512

var errFaulty = errors.New("the disk is faulty")

// faulty is a file on a disk that can fail, and lose its power. Its file is what the
// system shows; beside that it keeps what would be there after a power cut.
type faulty struct {
	*power
	f    *os.File
	safe []byte  // what is on disk
	late []write // what is not, or not yet
	held bool    // syncs wait for the gate
}

// write is one that the disk may not have done yet.
type write struct {
	id   int
	at   int64
	data []byte
}

// power is what the files of a disk have in common.
type power struct {
	mu    sync.Mutex
	rng   *rand.Rand
	ids   int
	gate  chan struct{}
	fails func(d *faulty, sync bool) bool // says whether the next write or sync is to fail
	watch func()                          // is called before every write and sync
}

func newPower(seed uint64) *power {
	return &power{
		rng: rand.New(rand.NewPCG(seed, 1)), gate: make(chan struct{}),
		fails: func(*faulty, bool) bool { return false }, watch: func() {},
	}
}

// open lets all syncs that wait go on, and no later ones.
func (p *power) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.gate)
	p.gate = make(chan struct{})
}

func (p *power) next(d *faulty, sync bool) (fail bool) {
	p.watch()
	return p.fails(d, sync)
}

func (d *faulty) ReadAt(b []byte, at int64) (int, error) { return d.f.ReadAt(b, at) }
func (d *faulty) Close() error                           { return d.f.Close() }

// WriteAt writes; if it is to fail, a part of it, or all.
func (d *faulty) WriteAt(b []byte, at int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fail := d.next(d, false)
	if fail {
		if n := d.rng.IntN(len(b)/sector + 2); n*sector < len(b) {
			b = b[:n*sector]
		}
	}
	d.ids++
	d.late = append(d.late, write{d.ids, at, append([]byte(nil), b...)})
	n, err := d.f.WriteAt(b, at)
	if fail {
		return n, errFaulty
	}
	return n, err
}

// Sync brings to disk what was written before it began. If it fails, some of that is
// lost, and the system does not try again.
func (d *faulty) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fail, upTo := d.next(d, true), d.ids
	if gate := d.gate; d.held {
		d.mu.Unlock()
		<-gate
		d.mu.Lock()
	}
	share := 1.0
	if fail {
		share = []float64{0, 0.5, 1}[d.rng.IntN(3)]
	}
	rest := d.late[:0:0]
	for _, w := range d.late {
		if w.id > upTo {
			rest = append(rest, w)
			continue
		}
		d.safe = w.onto(d.safe, d.rng, share)
	}
	d.late = rest
	if fail {
		return errFaulty
	}
	return nil
}

// onto writes a share of the sectors of a write to an image.
func (w write) onto(image []byte, rng *rand.Rand, share float64) []byte {
	for from := 0; from < len(w.data); from += sector {
		if share < 1 && rng.Float64() >= share {
			continue
		}
		to := min(from+sector, len(w.data))
		if end := int(w.at) + to; end > len(image) {
			image = append(image, make([]byte, end-len(image))...)
		}
		copy(image[int(w.at)+from:], w.data[from:to])
	}
	return image
}

// snapshot is what is known of a file at a moment.
type snapshot struct {
	safe  []byte
	late  []write
	shown []byte
}

// snap must be called with the lock held.
func (d *faulty) snap() (s snapshot, err error) {
	s.safe, s.late = append([]byte(nil), d.safe...), append([]write(nil), d.late...)
	s.shown, err = os.ReadFile(d.f.Name())
	return s, err
}

// cut is the file after a power cut: all that was synced, and of what was not as
// many sectors as chance wants. Its length may have been written before.
func (s *snapshot) cut(rng *rand.Rand, grown bool) []byte {
	image := append([]byte(nil), s.safe...)
	share := []float64{0, 0.1, 0.5, 0.9, 1}[rng.IntN(5)]
	for _, w := range s.late {
		image = w.onto(image, rng, share)
	}
	if n := len(s.shown) - len(image); grown && n > 0 {
		image = append(image, make([]byte, n)...)
	}
	return image
}

// newImage is a file in memory.
func newImage(b []byte) *bytes.Reader { return bytes.NewReader(b) }

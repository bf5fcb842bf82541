package journal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
)

// sector is the unit that a disk writes completely or not at all.
const sector = 512

var errFaulty = errors.New("the disk is faulty")

// faulty is a file on a disk that can fail and lose its power. Its file is the system's
// view. Beside that it keeps the content that a power cut would leave.
type faulty struct {
	*power
	f    *os.File
	safe []byte  // the synced content
	late []write // the writes that are not synced
	held bool    // syncs wait for the gate
}

// write is one that may not have reached the disk yet.
type write struct {
	id   int
	at   int64
	data []byte
}

// power is the common part of the files of a disk.
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

// open lets all waiting syncs go on, and no later ones.
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

// WriteAt writes. If it is to fail, it writes a part, or all.
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

// Sync brings all writes before its beginning to disk. If it fails, it loses some of
// them, and the system does not try again.
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

// snapshot is the state of a file at a moment.
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

// cut is the file after a power cut: everything that was synced, and a random share of
// the other sectors. Its length may have been written before.
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

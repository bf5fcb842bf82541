package client

import (
	"errors"
	"maps"
	"sync"
)

// Figures are what a worker shows of itself, see [Options.Figures]. The zero value is ready
// to use. Its methods may be called from any goroutine.
type Figures struct {
	mu      sync.Mutex
	running int
	heard   bool
	asking  error
	ended   map[End]uint64
}

// End is how attempts of a type end. How is done, fail or release, as they are reported; or
// lost, if the server had ended the execution before, or could not be notified.
type End struct{ Type, How string }

var errUnheard = errors.New("the server has not answered yet")

// Running is how many jobs run.
func (f *Figures) Running() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running
}

// Asking is nil if the last ask for jobs was answered, else why not.
func (f *Figures) Asking() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asking == nil && !f.heard {
		return errUnheard
	}
	return f.asking
}

// Ended counts the attempts that have ended.
func (f *Figures) Ended() map[End]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.ended)
}

// asked notes what has become of an ask.
func (f *Figures) asked(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard, f.asking = f.heard || err == nil, err
}

func (f *Figures) begun() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running++
}

func (f *Figures) returned() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
}

// over notes how an attempt has ended.
func (f *Figures) over(typ, how string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended == nil {
		f.ended = make(map[End]uint64)
	}
	f.ended[End{typ, how}]++
}

package bench

import (
	"sync"
	"sync/atomic"
	"time"
)

// memoryEvery is the interval at which the process's memory is measured.
const memoryEvery = 50 * time.Millisecond

// memoryWatch keeps the highest resident size.
type memoryWatch struct {
	on   atomic.Bool
	most int64
	quit chan struct{}
	once sync.Once
	done sync.WaitGroup
}

func watchMemory() *memoryWatch {
	w := &memoryWatch{quit: make(chan struct{})}
	w.done.Go(func() {
		tick := time.NewTicker(memoryEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if w.on.Load() {
					w.most = max(w.most, residentBytes())
				}
			case <-w.quit:
				return
			}
		}
	})
	return w
}

// watch says whether measurements count from now on.
func (w *memoryWatch) watch(on bool) { w.on.Store(on) }

// stop ends the watch and returns the highest size in bytes, 0 if none counted.
func (w *memoryWatch) stop() int64 {
	w.once.Do(func() { close(w.quit) })
	w.done.Wait()
	if w.on.Load() {
		w.most = max(w.most, residentBytes())
	}
	w.on.Store(false)
	return w.most
}

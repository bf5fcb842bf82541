package bench

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
)

// progress shows the progress of a phase in a line of a terminal. Without one it is
// silent.
type progress struct {
	out  io.Writer // nil = silent
	stop chan struct{}
	done sync.WaitGroup
}

// progressEvery is the interval at which the line is written.
const progressEvery = 200 * time.Millisecond

// clearLine moves the cursor to the start of an empty line.
const clearLine = "\r\x1b[K"

func newProgress(w io.Writer) *progress {
	if f, ok := w.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		return &progress{out: f}
	}
	return &progress{}
}

// begin shows a phase from now on. count returns how many of total jobs have ended; nil
// if that is unknown.
func (p *progress) begin(phase string, total int, count func() int64) {
	p.end()
	if p.out == nil {
		return
	}
	stop := make(chan struct{})
	p.stop = stop
	begun := time.Now()
	p.done.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			_, _ = io.WriteString(p.out, clearLine+progressLine(phase, total, count, time.Since(begun)))
			select {
			case <-tick.C:
			case <-stop:
				_, _ = io.WriteString(p.out, clearLine)
				return
			}
		}
	})
}

func progressLine(phase string, total int, count func() int64, since time.Duration) string {
	if count == nil {
		return fmt.Sprintf("%-9s %.0f s", phase, since.Seconds())
	}
	n := float64(count())
	return fmt.Sprintf("%-9s %3.0f %%  %s jobs, %s/s", phase, 100*n/float64(max(total, 1)), grouped(n, 0), grouped(n/since.Seconds(), 0))
}

// end removes the line.
func (p *progress) end() {
	if p.stop != nil {
		close(p.stop)
		p.done.Wait()
		p.stop = nil
	}
}

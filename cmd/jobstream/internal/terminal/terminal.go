// Package terminal is about the terminal that a command may be used at: whether there is
// one, how large it is, and a line of it that shows how far something is. Start at [Bar].
package terminal

import (
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/term"
	"github.com/mattn/go-isatty"
)

// Is says whether w, or a reader, is a terminal.
func Is(w any) bool {
	f, is := w.(*os.File)
	return is && isatty.IsTerminal(f.Fd())
}

// Size is that of a terminal, 80 by 24 if it has none.
func Size(w io.Writer) (width, height int) {
	if f, is := w.(*os.File); is {
		width, height, _ = term.GetSize(f.Fd()) // 0 with an error
	}
	if width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	return width, height
}

// Part draws a part of a whole, 0 to 1, in 22 characters.
func Part(part float64) string {
	const width = 20
	full := max(min(int(part*width+0.5), width), 0)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}

// Bar is a line of a terminal that shows how far something is. Elsewhere it is silent.
// Its methods may be called from any goroutine.
type Bar struct {
	out  io.Writer // nil = silent
	done sync.WaitGroup

	mu   sync.Mutex
	line func() string
	stop chan struct{} // nil: the line is not shown
}

// every is the interval at which the line is written.
const every = 200 * time.Millisecond

// clearLine moves the cursor to the start of an empty line.
const clearLine = "\r\x1b[K"

// On makes a bar on w, which is silent unless w is a terminal.
func On(w io.Writer) *Bar {
	if Is(w) {
		return &Bar{out: w}
	}
	return &Bar{}
}

// Shown says whether anybody can see it.
func (b *Bar) Shown() bool { return b.out != nil }

// Show shows a line from now on, and again every 200 ms. What it says must change no
// terminal. The line is called by one goroutine at a time.
func (b *Bar) Show(line func() string) {
	if b.out == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.line = line
	b.draw()
	if b.stop == nil {
		stop := make(chan struct{})
		b.stop = stop
		b.done.Go(func() { b.redraw(stop) })
	}
}

func (b *Bar) draw() {
	width, _ := Size(b.out)
	_, _ = io.WriteString(b.out, clearLine+ansi.Truncate(b.line(), width-1, "…")) // a line that is not shown is no loss
}

func (b *Bar) redraw(stop <-chan struct{}) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.mu.Lock()
			if b.stop != nil {
				b.draw()
			}
			b.mu.Unlock()
		case <-stop:
			return
		}
	}
}

// End removes the line. It may be called again, and so may Show.
func (b *Bar) End() {
	b.mu.Lock()
	if b.stop != nil {
		close(b.stop)
		b.stop = nil
		_, _ = io.WriteString(b.out, clearLine)
	}
	b.mu.Unlock()
	b.done.Wait()
}

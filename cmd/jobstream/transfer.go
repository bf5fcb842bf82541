package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"

	"jobstream/cmd/jobstream/internal/cli"
	"jobstream/cmd/node/archive"
)

// transfer shows how much of an archive has been read, in a line of a terminal. Without
// one it is silent.
type transfer struct {
	from  io.Reader
	what  string
	out   io.Writer
	begun time.Time
	read  atomic.Int64
	total atomic.Int64 // about; 0 = unknown
	stop  chan struct{}
	once  sync.Once
	done  sync.WaitGroup
}

// transferEvery is the interval at which the line is written.
const transferEvery = 200 * time.Millisecond

// clearLine moves the cursor to the start of an empty line.
const clearLine = "\r\x1b[K"

func newTransfer(from io.Reader, what string, out io.Writer) *transfer {
	t := &transfer{from: from, what: what, out: out, begun: time.Now(), stop: make(chan struct{})}
	if f, ok := out.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		t.done.Go(t.show)
	}
	return t
}

// begin gets the size of the archive.
func (t *transfer) begin(i *archive.Info) error {
	t.total.Store(i.Bytes)
	return nil
}

func (t *transfer) Read(p []byte) (int, error) {
	n, err := t.from.Read(p)
	t.read.Add(int64(n))
	return n, err
}

func (t *transfer) show() {
	tick := time.NewTicker(transferEvery)
	defer tick.Stop()
	for {
		_, _ = io.WriteString(t.out, clearLine+transferLine(t.what, t.read.Load(), t.total.Load(), time.Since(t.begun)))
		select {
		case <-tick.C:
		case <-t.stop:
			_, _ = io.WriteString(t.out, clearLine)
			return
		}
	}
}

// transferLine is the line after so much of about total bytes.
func transferLine(what string, read, total int64, since time.Duration) string {
	const mib = 1 << 20
	if total == 0 {
		return fmt.Sprintf("%s: waiting, %.0f s", what, since.Seconds())
	}
	part := min(float64(read)/float64(total), 1)
	line := fmt.Sprintf("%s: %s %3.0f %%  %.1f of about %.1f MiB, %.1f MiB/s", what, cli.Bar(part), 100*part, float64(read)/mib, float64(total)/mib, float64(read)/mib/max(since.Seconds(), 0.001))
	if left := since.Seconds() * (1 - part) / max(part, 1e-9); read > 0 && since > time.Second {
		line += fmt.Sprintf(", %.0f s left", left)
	}
	return line
}

// end removes the line. It may be called again.
func (t *transfer) end() {
	t.once.Do(func() { close(t.stop) })
	t.done.Wait()
}

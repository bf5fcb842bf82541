package terminal

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Reader reads from another reader. A bar shows how far it is.
type Reader struct {
	from  io.Reader
	bar   *Bar
	line  func() string
	read  atomic.Int64
	total atomic.Int64 // about; 0 = unknown
}

// Reading reads from a reader and shows that. what is the name of the action.
func (b *Bar) Reading(what string, from io.Reader) *Reader {
	r := &Reader{from: from, bar: b}
	begun := time.Now()
	r.line = func() string { return readLine(what, r.read.Load(), r.total.Load(), time.Since(begun)) }
	b.Show(r.line)
	return r
}

// Expect says how many bytes there are, about.
func (r *Reader) Expect(total int64) {
	r.total.Store(total)
	r.bar.Show(r.line)
}

func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.read.Add(int64(n))
	return n, err
}

// readLine is the line after so much of about total bytes.
func readLine(what string, read, total int64, since time.Duration) string {
	if total == 0 {
		return fmt.Sprintf("%s: waiting, %.0f s", what, since.Seconds())
	}
	part := min(float64(read)/float64(total), 1)
	line := fmt.Sprintf("%s: %s %3.0f %%  %s of about %s, %s/s", what, Part(part), 100*part, Bytes(read), Bytes(total), Bytes(int64(float64(read)/max(since.Seconds(), 0.001))))
	if left := since.Seconds() * (1 - part) / max(part, 1e-9); read > 0 && since > time.Second {
		line += fmt.Sprintf(", %.0f s left", left)
	}
	return line
}

// Bytes is a number of bytes for people.
func Bytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

package bench

import (
	"fmt"
	"time"

	"jobstream/cmd/jobstream/internal/terminal"
)

// show shows a phase on the terminal from now on. count returns how many of total jobs
// have ended; nil if that is unknown.
func (b *bench) show(phase string, total int, count func() int64) {
	begun := time.Now()
	b.bar.Show(func() string { return progressLine(phase, total, count, time.Since(begun)) })
}

func progressLine(phase string, total int, count func() int64, since time.Duration) string {
	if count == nil {
		return fmt.Sprintf("%-9s %.0f s", phase, since.Seconds())
	}
	n := float64(count())
	part := n / float64(max(total, 1))
	return fmt.Sprintf("%-9s %s %3.0f %%  %s jobs, %s/s", phase, terminal.Part(part), 100*part, grouped(n, 0), grouped(n/max(since.Seconds(), 0.001), 0))
}

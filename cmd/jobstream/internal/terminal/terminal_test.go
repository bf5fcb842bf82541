package terminal

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

func TestReadLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		read, total int64
		since       time.Duration
		want        string
	}{
		{0, 0, 3 * time.Second, "backup: waiting, 3 s"},
		{5 << 20, 10 << 20, 2 * time.Second, "backup: [##########..........]  50 %  5.0 MiB of about 10.0 MiB, 2.5 MiB/s, 2 s left"},
		{12 << 20, 10 << 20, 4 * time.Second, "backup: [####################] 100 %  12.0 MiB of about 10.0 MiB, 3.0 MiB/s, 0 s left"},
		{0, 10 << 20, 0, "backup: [....................]   0 %  0 B of about 10.0 MiB, 0 B/s"},
	} {
		if got := readLine("backup", c.read, c.total, c.since); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// TestSilent: nothing of a bar gets into a pipe, and what is read is not changed by it.
func TestSilent(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	b := On(&out)
	r := b.Reading("copy", strings.NewReader("all of it"))
	r.Expect(9)
	text, err := io.ReadAll(r)
	b.Show(func() string { return "more" })
	b.End()
	if string(text) != "all of it" || err != nil || out.Len() > 0 || b.Shown() {
		t.Errorf("%q, %v; the bar writes %q", text, err, out.String())
	}
}
